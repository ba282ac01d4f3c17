"""A volume group as LVM2's text: the front door.

`vg_to_text` gives the on-disk form (no indentation, header last) or the file form of backup/ and
archive/ (header first, tabs, comments), letter for letter as lib/format_text/export.c writes
them. `vg_from_text` reads either. The writer is in `text_export`, the reader in `text_import`;
both take the vocabulary from `text_words`.
"""

from __future__ import annotations

from ulvm.metadata.text_export import vg_to_text
from ulvm.metadata.text_import import vg_and_header, vg_from_text
from ulvm.metadata.text_words import TextHeader
from ulvm.metadata.tree import parse_apart

__all__ = ["TextHeader", "parse_apart", "vg_and_header", "vg_from_text", "vg_to_text"]
