"""The CRC of LVM2 metadata (lib/misc/crc.c): reflected CRC-32 0xEDB88320, register preset to
0xf597a6cf, no inversion before or after."""

from __future__ import annotations

import zlib

from ulvm.blockdev.base import Buffer

__all__ = ["lvm_crc"]

_INITIAL = 0xF597A6CF
_ALL = 0xFFFFFFFF


def lvm_crc(data: Buffer) -> int:
    """Checksum used for labels, metadata area headers and texts."""
    return zlib.crc32(data, _ALL ^ _INITIAL) ^ _ALL
