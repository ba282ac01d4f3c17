"""Units of size. A sector is 512 bytes everywhere, as in device-mapper and LVM2 metadata."""

from __future__ import annotations

from typing import NewType

__all__ = ["SECTOR", "SECTOR_SHIFT", "Bytes", "Chunks", "Extents", "Sectors"]

SECTOR = 512
SECTOR_SHIFT = 9

Bytes = NewType("Bytes", int)
Sectors = NewType("Sectors", int)
Chunks = NewType("Chunks", int)
Extents = NewType("Extents", int)
