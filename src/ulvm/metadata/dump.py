"""What the headers of a physical volume say, field by field, in the words of `pvck --dump headers`.

Nothing is taken for granted: every value is shown as it is, and a line `CHECK:` follows where it is
not as the format wants it. The fields are those of `metadata.label` and `metadata.mda`, read anew
here because those refuse what is damaged, which is what this looks for.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from ulvm.errors import FormatError
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.label import DiskLocn
from ulvm.metadata.mda import MAGIC, MDA_HEADER_SIZE, RawLocn, ring_parts
from ulvm.units import SECTOR

__all__ = [
    "Headers",
    "MdaDump",
    "Read",
    "dump_label",
    "dump_mda",
    "ring_text",
    "summary_of",
]

Read = Callable[[int, int], bytes]
"""Offset and length in bytes; short at the end of the device."""

_IGNORED = 1
_NAME = re.compile(rb"([a-zA-Z0-9+_.-]{1,127}) \{\n")
_SEQNO = re.compile(rb"\nseqno = (\d{1,10})\n")
_ID = re.compile(rb'\nid = "([^"\n]{1,64})"\n')


@dataclass
class MdaDump:
    """A metadata area as its header has it; `start` and `size` are the PV header's."""

    number: int
    start: int
    size: int
    current: RawLocn = field(default_factory=RawLocn)
    good: bool = True


@dataclass
class Headers:
    """`lines` are what is shown; `checks` of them are complaints. Areas in bytes. `parse_error`:
    why the last text that is malformed cannot be read."""

    lines: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    has_label: bool = False
    label_good: bool = True
    mdas: list[DiskLocn] = field(default_factory=list)
    parse_error: str = ""

    def show(self, text: str) -> None:
        self.lines.append(text)

    def check(self, text: str) -> None:
        self.lines.append(f"CHECK: {text}")
        self.checks.append(f"CHECK: {text}")


def dump_label(read: Read, sector: int) -> Headers:
    """label_header, pv_header and its extension in a sector of the device."""
    at = sector * SECTOR
    data = read(at, SECTOR).ljust(SECTOR, b"\0")
    found = Headers()
    magic, number, crc, offset, kind = struct.unpack_from("<8sQLL8s", data)
    found.show(f"label_header at {at}")
    found.show(f"label_header.id {_text(magic)}")
    found.show(f"label_header.sector {number}")
    found.show(f"label_header.crc 0x{crc:x}")
    found.show(f"label_header.offset {offset}")
    found.show(f"label_header.type {_text(kind)}")
    found.has_label = magic == b"LABELONE"
    if magic != b"LABELONE":
        found.check("label_header.id expected LABELONE")
    if number != sector:
        found.check(f"label_header.sector expected {sector}")
    wanted = lvm_crc(data[20:])
    if crc != wanted:
        found.check(f"label_header.crc expected 0x{wanted:x}")
    if offset != 32:
        found.check("label_header.offset expected 32")
    if kind != b"LVM2 001":
        found.check("label_header.type expected LVM2 001")
    found.label_good = not found.checks
    _dump_pv_header(found, data, at)
    return found


def _dump_pv_header(found: Headers, data: bytes, sector_at: int) -> None:
    at = 32
    uuid, size = struct.unpack_from("<32sQ", data, at)
    found.show(f"pv_header at {sector_at + at}")
    found.show(f"pv_header.pv_uuid {_text(uuid)}")
    found.show(f"pv_header.device_size {size}")
    if not re.fullmatch(rb"[0-9a-zA-Z!#]{32}", uuid):
        found.check("pv_header.pv_uuid invalid format")
    at += 40
    lists = _Lists(found, data, sector_at, "pv_header")
    _, at = lists.dump(at, "location of data area")
    found.mdas, at = lists.dump(at, "location of metadata area")
    version, flags = struct.unpack_from("<LL", data.ljust(at + 8, b"\0"), at)
    found.show(f"pv_header_extension at {sector_at + at}")
    found.show(f"pv_header_extension.version {version}")
    found.show(f"pv_header_extension.flags {flags}")
    _Lists(found, data, sector_at, "pv_header_extension").dump(at + 8, "bootloader area")


class _Lists:
    """disk_locn lists that follow each other in one header, counted through."""

    def __init__(self, found: Headers, data: bytes, sector_at: int, name: str) -> None:
        self._found = found
        self._data = data
        self._sector_at = sector_at
        self._name = name
        self._index = 0

    def dump(self, at: int, what: str) -> tuple[list[DiskLocn], int]:
        """The areas of the list that begins at byte `at` of the sector, and where it ends."""
        areas: list[DiskLocn] = []
        while at + 16 <= len(self._data):
            offset, size = struct.unpack_from("<QQ", self._data, at)
            label = f"{self._name}.disk_locn[{self._index}]"
            note = what if offset else "location list end"
            self._found.show(f"{label} at {self._sector_at + at} # {note}")
            self._found.show(f"{label}.offset {offset}")
            self._found.show(f"{label}.size {size}")
            at += 16
            self._index += 1
            if not offset:
                break
            areas.append(DiskLocn(offset, size))
        return areas, at


def dump_mda(found: Headers, read: Read, number: int, area: DiskLocn) -> MdaDump:
    """mda_header at the start of an area, and where its text is; adds to `found`."""
    name, start = f"mda_header_{number}", area.offset
    data = read(start, MDA_HEADER_SIZE).ljust(MDA_HEADER_SIZE, b"\0")
    checksum, magic, version, own_start, size = struct.unpack_from("<L16sLQQ", data)
    found.show(f"{name} at {start} # metadata area")
    found.show(f"{name}.checksum 0x{checksum:x}")
    found.show(f"{name}.magic 0x{_digits(magic)}")
    found.show(f"{name}.version {version}")
    found.show(f"{name}.start {own_start}")
    found.show(f"{name}.size {size}")
    wanted = lvm_crc(data[4:])
    if checksum != wanted:
        found.check(f"{name}.checksum expected 0x{wanted:x}")
    if magic != MAGIC:
        found.check(f"{name}.magic expected 0x{_digits(MAGIC)}")
    if version != 1:
        found.check(f"{name}.version expected 1")
    if own_start != start:
        found.check(f"{name}.start does not match pv_header.disk_locn.offset {start}")
    if size != area.size:
        found.check(f"{name}.size does not match pv_header.disk_locn.size {area.size}")
    mda = MdaDump(number, start, area.size, good=magic == MAGIC)
    slots = [RawLocn(*struct.unpack_from("<QQLL", data, 40 + 24 * n)) for n in (0, 1)]
    for slot, (locn, what) in enumerate(zip(slots, ("commit", "precommit"), strict=True)):
        label = f"{name}.raw_locn[{slot}]"
        found.show(f"{label} at {start + 40 + 24 * slot} # {what}")
        found.show(f"{label}.offset {locn.offset}")
        found.show(f"{label}.size {locn.size}")
        found.show(f"{label}.checksum 0x{locn.checksum:x}")
        ignored = " # RAW_LOCN_IGNORED" if locn.flags & _IGNORED else ""
        found.show(f"{label}.flags 0x{locn.flags:x}{ignored}")
    mda.current = slots[0]
    return mda


def ring_text(read: Read, mda: MdaDump, locn: RawLocn) -> bytes:
    """The text that a slot names, as far as it lies within the area; FormatError if it cannot."""
    room = mda.size - MDA_HEADER_SIZE
    if not MDA_HEADER_SIZE <= locn.offset < mda.size or not 0 < locn.size <= room:
        raise FormatError(
            f"mda_header_{mda.number}.raw_locn[0] ({locn.size} bytes at {locn.offset}) is outside "
            "the metadata area"
        )
    parts = ring_parts(mda.size, locn.offset, locn.size)
    return b"".join(read(mda.start + start, length) for start, length in parts)


def summary_of(text: bytes) -> tuple[str, int, str] | None:
    """VG name, seqno and VG UUID that a text begins with; None if it is no VG's."""
    name = _NAME.match(text)
    head = text[:4096]
    seqno, identity = _SEQNO.search(head), _ID.search(head)
    if name is None or seqno is None or identity is None:
        return None
    return name[1].decode(), int(seqno[1]), identity[1].decode("ascii", errors="replace")


def _digits(raw: bytes) -> str:
    """As LVM2 shows them: no leading zero of a byte."""
    return "".join(f"{byte:x}" for byte in raw)


def _text(raw: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in raw)
