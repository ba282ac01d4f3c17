"""LVM's UUIDs: 32 characters, shown in groups of 6-4-4-4-4-4-6 (lib/uuid/uuid.c of LVM2).

Readers accept the 64 characters `0-9a-zA-Z!#`; generated ones use the first 62 alone.
"""

from __future__ import annotations

import re

from ulvm.errors import FormatError

__all__ = ["UUID_LEN", "format_uuid", "new_uuid", "parse_uuid"]

UUID_LEN = 32
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_GROUPS = (6, 4, 4, 4, 4, 4, 6)
_RAW = re.compile(r"[0-9a-zA-Z!#]{32}")


def new_uuid() -> str:
    """A fresh random UUID in text form, with dashes."""
    # Of commands that change something alone: it takes a while to load.
    import secrets

    return format_uuid("".join(secrets.choice(_ALPHABET) for _ in range(UUID_LEN)))


def format_uuid(raw: str) -> str:
    """The text form, with dashes, of 32 raw characters; FormatError if they are not a UUID."""
    if not _RAW.fullmatch(raw):
        raise FormatError(f"{raw!r} is not a UUID of {UUID_LEN} characters")
    groups = []
    at = 0
    for length in _GROUPS:
        groups.append(raw[at : at + length])
        at += length
    return "-".join(groups)


def parse_uuid(text: str) -> str:
    """The 32 raw characters of a UUID written with or without dashes; else FormatError."""
    raw = text.replace("-", "")
    if not _RAW.fullmatch(raw):
        raise FormatError(f"{text!r} is not a UUID of {UUID_LEN} characters")
    return raw
