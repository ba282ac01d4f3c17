"""A metadata area: its header and the ring that the texts of a VG go round in.

mda_header, the first 512 bytes of the area, little-endian (lib/format_text/layout.h):

    0    4     CRC of bytes 4..511
    4    16    magic
    20   4     version 1
    24   8     absolute byte offset of this header
    32   8     size of the area in bytes, header included
    40   24*n  raw_locn: u64 offset from the area's start, u64 size, u32 CRC, u32 flags

Slot 0 is the committed text, slot 1 one that was written but not committed; offset 0 ends the
list. Bit 0 of slot 0's flags says that the area is not in use (metadata copies are limited).

The ring is bytes 512..size-1. A text includes the NUL that ends it, begins on a sector, and may
wrap from the end of the area to byte 512. The committed text is never overwritten: the largest
text allowed leaves room for both (`max_text`), and `next_offset` starts behind the old one. A text
of an older LVM2 may be larger than that: beside it `room_beside` counts.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from ulvm.errors import FormatError
from ulvm.metadata.crc import lvm_crc
from ulvm.units import SECTOR

__all__ = [
    "IGNORED_LOCN",
    "MAGIC",
    "MAX_TEXT",
    "MDA_HEADER_SIZE",
    "NO_LOCN",
    "UNDAMAGED",
    "Damage",
    "MdaHeader",
    "RawLocn",
    "header_damage",
    "max_text",
    "next_offset",
    "ring_parts",
    "ring_write",
    "room_beside",
]

MDA_HEADER_SIZE = SECTOR
MIN_AREA = 3 * SECTOR
"""Bytes: a header and the smallest ring in which `max_text` is not negative."""
MAX_TEXT = 64 << 20
"""Bytes; a header that claims more is damaged or hostile."""

_HEADER = struct.Struct("<L16sLQQ")
_RAW_LOCN = struct.Struct("<QQLL")
MAGIC = b"\x20LVM2\x20x[5A%r0N*>"
_VERSION = 1
_IGNORED = 1
_SLOTS = (MDA_HEADER_SIZE - _HEADER.size) // _RAW_LOCN.size


class Damage(enum.IntFlag):
    """What is wrong with an area, in the numbers that LVM2 tells a user (BAD_MDA_*)."""

    READ = 0x1
    HEADER = 0x4
    TEXT = 0x8
    CHECKSUM = 0x10
    MAGIC = 0x20
    VERSION = 0x40
    START = 0x80


UNDAMAGED = Damage(0)


class RawLocn(NamedTuple):
    """raw_locn: one text in the ring. Offset and size in bytes; offset 0 = there is none."""

    offset: int = 0
    size: int = 0
    """With the NUL at the end."""
    checksum: int = 0
    flags: int = 0

    @property
    def empty(self) -> bool:
        return self.offset == 0

    @property
    def ignored(self) -> bool:
        return bool(self.flags & _IGNORED)

    @classmethod
    def of_text(cls, offset: int, text: bytes, *, ignored: bool = False) -> RawLocn:
        """Where a text, NUL included, is put."""
        return cls(offset, len(text), lvm_crc(text), _IGNORED if ignored else 0)


NO_LOCN = RawLocn()
IGNORED_LOCN = RawLocn(flags=_IGNORED)
"""Slot 0 of a new area that is not in use."""


class MdaHeader(NamedTuple):
    """mda_header: the area's place (absolute bytes) and its two slots."""

    start: int
    size: int
    committed: RawLocn = NO_LOCN
    precommitted: RawLocn = NO_LOCN

    @property
    def ignored(self) -> bool:
        """The area is kept out of use; its text must not be used."""
        return self.committed.ignored

    @property
    def current(self) -> RawLocn | None:
        """The text that must not be overwritten, if there is one."""
        return None if self.committed.empty or self.ignored else self.committed

    def pack(self) -> bytes:
        slots = b"".join(
            _RAW_LOCN.pack(slot.offset, slot.size, slot.checksum, slot.flags)
            for slot in (self.committed, self.precommitted)
        )
        tail = _HEADER.pack(0, MAGIC, _VERSION, self.start, self.size)[4:] + slots
        tail = tail.ljust(MDA_HEADER_SIZE - 4, b"\0")
        return struct.pack("<L", lvm_crc(tail)) + tail

    @classmethod
    def unpack(cls, data: bytes, *, start: int, device: str = "device") -> MdaHeader:
        """The header that should begin at byte `start`; FormatError in LVM's words, a line for
        each thing that is wrong."""
        where = f"in mda header on {device} at {start}"
        if len(data) < MDA_HEADER_SIZE:
            raise FormatError(f"short read {where}")
        checksum, magic, version, own_start, size = _HEADER.unpack_from(data)
        problems = []
        if checksum != lvm_crc(data[4:MDA_HEADER_SIZE]):
            problems.append(f"wrong checksum {checksum:x} {where}")
        if magic != MAGIC:
            problems.append(f"wrong magic number {where}")
        if version != _VERSION:
            problems.append(f"wrong version {version} {where}")
        if own_start != start:
            problems.append(f"wrong start sector {own_start} {where}")
        if problems:
            raise FormatError("\n".join(problems))
        if size < MIN_AREA:
            raise FormatError(f"wrong size {size} {where}")
        committed = RawLocn(*_RAW_LOCN.unpack_from(data, _HEADER.size))
        precommitted = RawLocn(*_RAW_LOCN.unpack_from(data, _HEADER.size + _RAW_LOCN.size))
        for slot, locn in enumerate((committed, precommitted)):
            if not locn.empty and not _fits(size, locn):
                raise FormatError(
                    f"wrong location in slot {slot} ({locn.size} bytes at {locn.offset}) {where}"
                )
        return cls(start, size, committed, precommitted)

    # -- the steps of a commit (spec/lvm2-format.md sec. 4) -----------------------------------

    def with_precommit(self, locn: RawLocn) -> MdaHeader:
        """Announce a text that has been written; the committed one stays."""
        return self._replace(precommitted=locn)

    def with_commit(self, locn: RawLocn) -> MdaHeader:
        """Make a text the one that readers see."""
        return self._replace(committed=locn, precommitted=NO_LOCN)

    def with_revert(self) -> MdaHeader:
        """Forget an announced text."""
        return self._replace(precommitted=NO_LOCN)

    def with_ignored(self, ignored: bool) -> MdaHeader:
        """Take the area out of use, or back into it with no text that counts; where the old text
        is stays on record."""
        if not ignored:
            return self._replace(committed=NO_LOCN, precommitted=NO_LOCN)
        flags = self.committed.flags | _IGNORED
        return self._replace(committed=self.committed._replace(flags=flags), precommitted=NO_LOCN)

    def cleared(self) -> MdaHeader:
        """No text at all, as after vgremove; the area is in use again."""
        return self._replace(committed=NO_LOCN, precommitted=NO_LOCN)


def header_damage(data: bytes, *, start: int) -> Damage:
    """What is wrong with a header that `MdaHeader.unpack` refuses."""
    found = Damage.HEADER
    if len(data) < MDA_HEADER_SIZE:
        return Damage.READ
    checksum, magic, version, own_start, _ = _HEADER.unpack_from(data)
    if checksum != lvm_crc(data[4:MDA_HEADER_SIZE]):
        found |= Damage.CHECKSUM
    if magic != MAGIC:
        found |= Damage.MAGIC
    if version != _VERSION:
        found |= Damage.VERSION
    if own_start != start:
        found |= Damage.START
    return found


def _fits(area_size: int, locn: RawLocn) -> bool:
    return (
        MDA_HEADER_SIZE <= locn.offset < area_size and 0 < locn.size <= area_size - MDA_HEADER_SIZE
    )


def max_text(area_size: int) -> int:
    """The most bytes, NUL included, that one text may have in an area of this size."""
    return (area_size - MDA_HEADER_SIZE) // 2 - SECTOR


def room_beside(area_size: int, old: RawLocn | None) -> int:
    """The most bytes that a text at `next_offset` may have, and the padding behind it, without
    touching the one that must survive."""
    ring = area_size - MDA_HEADER_SIZE
    if old is None:
        return ring
    start = next_offset(area_size, old)
    free = max(0, ring - old.size - (start - old.offset - old.size) % ring)
    first = min(free, area_size - start)
    if first == free:
        return free // SECTOR * SECTOR
    return first + (free - first) // SECTOR * SECTOR


def next_offset(area_size: int, old: RawLocn | None) -> int:
    """Where the next text begins, given the one that must survive (None = none)."""
    if old is None:
        return MDA_HEADER_SIZE
    end = old.offset + old.size
    if end > area_size:
        end = end - area_size + MDA_HEADER_SIZE
    start = -(-end // SECTOR) * SECTOR
    limit = area_size - SECTOR
    if end - 1 > limit or start > limit:
        return MDA_HEADER_SIZE
    return start


def ring_parts(area_size: int, offset: int, length: int) -> list[tuple[int, int]]:
    """The one or two (offset, length) runs, from the area's start, that bytes in the ring take."""
    first = min(length, area_size - offset)
    parts = [(offset, first)]
    if first < length:
        parts.append((MDA_HEADER_SIZE, length - first))
    return parts


def ring_write(area_size: int, offset: int, text: bytes) -> list[tuple[int, bytes]]:
    """What to write where, from the area's start, for a text: it is padded to a whole sector."""
    writes = []
    at = 0
    for start, length in ring_parts(area_size, offset, len(text)):
        data = text[at : at + length]
        at += length
        if at == len(text):
            room = min(-(-length // SECTOR) * SECTOR, area_size - start)
            data = data.ljust(room, b"\0")
        writes.append((start, data))
    return writes
