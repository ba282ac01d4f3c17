"""A volume group as LVM2's text: the front door.

`vg_to_text` gives the on-disk form (no indentation, header last) or the file form of backup/ and
archive/ (header first, tabs, comments), letter for letter as lib/format_text/export.c writes
them. `vg_from_text` reads either. The writer is in `text_export`, the reader in `text_import`;
both take the vocabulary from `text_words`.
"""

from __future__ import annotations

from ulvm.metadata.text_export import vg_to_text
from ulvm.metadata.text_import import header_from_tree, vg_from_text, vg_from_tree
from ulvm.metadata.text_words import TextHeader
from ulvm.metadata.tree import parse

__all__ = ["TextHeader", "header_from_tree", "parse", "vg_from_text", "vg_from_tree", "vg_to_text"]
