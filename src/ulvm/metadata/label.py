"""The label that makes a device a physical volume, and the PV header inside it.

One label lies in one of the first four sectors (normally sector 1). All integers little-endian;
offsets from the start of the sector (struct label_header, lib/label/label.h; struct pv_header
and pv_header_extension, lib/format_text/layout.h):

    0    8   magic "LABELONE"
    8    8   number of this sector
    16   4   CRC of bytes 20..511
    20   4   offset of the PV header (32)
    24   8   type "LVM2 001"
    32   32  PV UUID without dashes
    64   8   device size in bytes
    72   ..  data areas: (u64 offset, u64 size) in bytes, ended by (0, 0); size 0 = to the end
    ..   ..  metadata areas, likewise
    ..   4   extension version: 0 none, 1, 2
    ..   4   flags: bit 0 = the PV belongs to a VG            (version 2)
    ..   ..  bootloader areas, likewise                        (version >= 1)

A sector whose magic, number or CRC is wrong is no label at all, as for LVM2: it is passed over.
A sector that passes these and still makes no sense is a FormatError. A later extension version is
read as version 2, as by LVM2: what is there stays where it was.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ulvm.errors import FormatError
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.uuid import format_uuid, parse_uuid
from ulvm.units import SECTOR

__all__ = [
    "LABEL_SCAN_SECTORS",
    "LABEL_SCAN_SIZE",
    "DiskLocn",
    "Label",
    "PvHeader",
    "find_label",
    "labelled_sectors",
]

LABEL_SCAN_SECTORS = 4
LABEL_SCAN_SIZE = LABEL_SCAN_SECTORS * SECTOR

_LABEL_HEADER = struct.Struct("<8sQLL8s")
_MAGIC = b"LABELONE"
_TYPE = b"LVM2 001"
_CRC_FROM = 20
_PV_HEADER = struct.Struct("<32sQ")
_DISK_LOCN = struct.Struct("<QQ")
_EXTENSION = struct.Struct("<LL")
_EXTENSION_VERSION = 2
_PV_EXT_USED = 1


class DiskLocn(NamedTuple):
    """disk_locn: an area of the device, in bytes."""

    offset: int
    size: int


class PvHeader(NamedTuple):
    """pv_header with its extension. `data_areas` has at least one entry; its offset is pe_start."""

    uuid: str
    """In text form, with dashes."""
    device_size: int
    """Bytes."""
    data_areas: tuple[DiskLocn, ...]
    metadata_areas: tuple[DiskLocn, ...] = ()
    bootloader_areas: tuple[DiskLocn, ...] = ()
    in_use: bool = False
    """The PV belongs to a VG, whether or not its metadata can be found."""
    extension_version: int = _EXTENSION_VERSION

    @property
    def pe_start(self) -> int:
        """Bytes from the start of the device to extent 0."""
        return self.data_areas[0].offset

    def with_in_use(self, in_use: bool) -> PvHeader:
        """The header to write for a PV that joins or leaves a VG."""
        return self._replace(in_use=in_use, extension_version=_EXTENSION_VERSION)

    def pack(self) -> bytes:
        parts = [_PV_HEADER.pack(parse_uuid(self.uuid).encode(), self.device_size)]
        parts += [_pack_list(self.data_areas), _pack_list(self.metadata_areas)]
        if self.extension_version:
            flags = _PV_EXT_USED if self.in_use else 0
            parts.append(_EXTENSION.pack(self.extension_version, flags))
            parts.append(_pack_list(self.bootloader_areas))
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes) -> PvHeader:
        """From the bytes between the header's start and the sector's end; else FormatError."""
        if len(data) < _PV_HEADER.size:
            raise FormatError("PV header does not fit in its label")
        raw_uuid, device_size = _PV_HEADER.unpack_from(data)
        try:
            uuid = format_uuid(raw_uuid.decode("ascii", errors="replace"))
        except FormatError as error:
            raise FormatError(f"PV header has a bad UUID: {error.message}") from error
        at = _PV_HEADER.size
        data_areas, at = _unpack_list(data, at, "data areas")
        if not data_areas:
            raise FormatError("PV header has no data area")
        metadata_areas, at = _unpack_list(data, at, "metadata areas")
        version, flags = 0, 0
        bootloader: tuple[DiskLocn, ...] = ()
        if at + _EXTENSION.size <= len(data):
            version, flags = _EXTENSION.unpack_from(data, at)
        if version:
            bootloader, at = _unpack_list(data, at + _EXTENSION.size, "bootloader areas")
        return cls(
            uuid=uuid,
            device_size=device_size,
            data_areas=data_areas,
            metadata_areas=metadata_areas,
            bootloader_areas=bootloader,
            in_use=version >= 2 and bool(flags & _PV_EXT_USED),
            extension_version=version,
        )


class Label(NamedTuple):
    """label_header: where it lies and the PV header it holds."""

    sector: int
    pv_header: PvHeader

    def pack(self) -> bytes:
        """The 512 bytes of the label's sector."""
        body = self.pv_header.pack().ljust(SECTOR - _LABEL_HEADER.size, b"\0")
        if len(body) > SECTOR - _LABEL_HEADER.size:
            raise FormatError("PV header is too large for one sector")
        tail = struct.pack("<L8s", _LABEL_HEADER.size, _TYPE) + body
        crc = lvm_crc(tail)
        return _LABEL_HEADER.pack(_MAGIC, self.sector, crc, _LABEL_HEADER.size, _TYPE) + body

    @classmethod
    def unpack(cls, data: bytes, sector: int) -> Label | None:
        """The label in the 512 bytes of a sector; None if there is none (see the module)."""
        if len(data) < SECTOR:
            return None
        magic, number, crc, offset, kind = _LABEL_HEADER.unpack_from(data)
        if magic != _MAGIC or number != sector or crc != lvm_crc(data[_CRC_FROM:SECTOR]):
            return None
        if kind != _TYPE:
            raise FormatError(f"label in sector {sector} has the unknown type {kind!r}")
        if not _LABEL_HEADER.size <= offset < SECTOR:
            raise FormatError(f"label in sector {sector} points outside its sector")
        return cls(sector, PvHeader.unpack(data[offset:SECTOR]))


def find_label(start: bytes) -> Label | None:
    """The first label in the first `LABEL_SCAN_SIZE` bytes of a device, if there is one."""
    for sector in range(LABEL_SCAN_SECTORS):
        label = Label.unpack(start[sector * SECTOR : (sector + 1) * SECTOR], sector)
        if label is not None:
            return label
    return None


def labelled_sectors(start: bytes) -> tuple[int, ...]:
    """Of the first `LABEL_SCAN_SIZE` bytes of a device those that say they are labels, damaged ones
    as well."""
    return tuple(
        sector
        for sector in range(LABEL_SCAN_SECTORS)
        if start[sector * SECTOR : (sector + 1) * SECTOR].startswith(_MAGIC)
    )


def _pack_list(areas: tuple[DiskLocn, ...]) -> bytes:
    return b"".join(_DISK_LOCN.pack(*a) for a in (*areas, DiskLocn(0, 0)))


def _unpack_list(data: bytes, at: int, what: str) -> tuple[tuple[DiskLocn, ...], int]:
    areas: list[DiskLocn] = []
    while at + _DISK_LOCN.size <= len(data):
        area = DiskLocn(*_DISK_LOCN.unpack_from(data, at))
        at += _DISK_LOCN.size
        if area.offset == 0:
            return tuple(areas), at
        areas.append(area)
    raise FormatError(f"PV header's list of {what} does not end")
