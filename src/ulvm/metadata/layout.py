"""Where pvcreate puts things: metadata areas, bootloader area, first extent.

Facts: spec/lvm2-format.md sec. 2 (table) and _text_pv_add_metadata_area in
lib/format_text/format-text.c of LVM2. All sizes are sectors unless named otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from ulvm.errors import RefusedError
from ulvm.metadata.label import LABEL_SCAN_SIZE, DiskLocn
from ulvm.metadata.text_words import UINT32
from ulvm.units import SECTOR, display_size

__all__ = [
    "DEFAULT_ALIGNMENT",
    "MAX_EXTENTS",
    "PvLayout",
    "PvOptions",
    "check_extents",
    "plan_layout",
    "usable_extents",
]

PAGE = 4096
"""Bytes; LVM aligns to the memory page."""
DEFAULT_ALIGNMENT = 2048
MDA_START = -(-LABEL_SCAN_SIZE // PAGE) * PAGE // SECTOR
DEFAULT_METADATA_SIZE = DEFAULT_ALIGNMENT - PAGE // SECTOR
MIN_METADATA_SIZE = 8 * PAGE // SECTOR
MAX_EXTENTS = UINT32
"""Of a PV, of a VG and of an LV: LVM2 counts in 32 bits, and a text with more is not read."""


@dataclass(frozen=True, slots=True)
class PvOptions:
    """The options of pvcreate that shape a PV; sectors. 0 means LVM's default."""

    metadata_size: int = 0
    metadata_copies: int = 1
    data_alignment: int = 0
    data_alignment_offset: int = 0
    bootloader_area_size: int = 0
    label_sector: int = 1
    metadata_ignore: bool = False
    """The areas are made, and nothing is written to them (pvchange --metadataignore)."""
    zero: bool = True
    """The first sectors are wiped."""
    size: int = 0
    """What the PV is said to be as large as; 0: the device."""
    pe_start: int = 0
    """Where the extents begin, as a backup file has it; 0: where they fit."""
    pe_end: int = 0
    """Where the extents end that the backup file has."""
    ba_start: int = 0
    """Of the backup file; `bootloader_area_size` goes with it."""


@dataclass(frozen=True, slots=True)
class PvLayout:
    """`metadata_areas` in bytes, as the PV header has them; the rest in sectors."""

    pe_start: int
    ba_start: int
    ba_size: int
    metadata_areas: tuple[DiskLocn, ...]

    @property
    def bootloader_areas(self) -> tuple[DiskLocn, ...]:
        """In bytes, as the PV header has them."""
        if not self.ba_size:
            return ()
        return (DiskLocn(self.ba_start * SECTOR, self.ba_size * SECTOR),)


def plan_layout(device_size: int, options: PvOptions, *, device: str = "device") -> PvLayout:
    """The layout of a new PV on a device of `device_size` sectors.

    A metadata area that does not fit is cut to what does, as LVM cuts it; an area below 32 KiB
    or an alignment or bootloader area beyond the device is a RefusedError.
    """
    if options.pe_start:
        return _restored_layout(device_size, options, device)
    align = options.data_alignment or DEFAULT_ALIGNMENT
    offset = options.data_alignment_offset
    wanted = options.metadata_size or DEFAULT_METADATA_SIZE
    if align + offset > device_size:
        raise RefusedError(f"{device}: Data alignment must not exceed device size.")
    ba_size = _round_up(options.bootloader_area_size, align)
    if align + offset + ba_size > device_size:
        raise RefusedError(
            f"{device}: Bootloader area with data-aligned start must not exceed device size.\n"
            f"Format-specific initialisation of physical volume {device} failed."
        )
    areas = []
    if options.metadata_copies:
        limit = device_size - ba_size
        end = _round_up(MDA_START + wanted, align) + offset
        if end > limit:
            end = (limit - align - 1) // align * align
        if end - MDA_START < MIN_METADATA_SIZE:
            raise RefusedError(
                f"Metadata area size too small: {max(0, end - MDA_START) * SECTOR} bytes. "
                f"It must be at least {MIN_METADATA_SIZE * SECTOR} bytes."
            )
        areas.append(_area(MDA_START, end - MDA_START))
    else:
        end = align + offset
    pe_start = end + ba_size
    if options.metadata_copies > 1:
        start = max((device_size - wanted) // align * align, pe_start)
        if device_size - start < MIN_METADATA_SIZE:
            raise RefusedError(
                f"Metadata area size too small: {(device_size - start) * SECTOR} bytes. "
                f"It must be at least {MIN_METADATA_SIZE * SECTOR} bytes."
            )
        areas.append(_area(start, device_size - start))
    return PvLayout(pe_start, end if ba_size else 0, ba_size, tuple(areas))


def _restored_layout(device_size: int, options: PvOptions, device: str) -> PvLayout:
    """Extents lie where a backup file has them; metadata areas take what is left before and behind
    them. RefusedError if that is too little, or the device is too small."""
    if options.pe_end > device_size:
        raise RefusedError(
            f"Physical extents ({display_size(options.pe_end)}) end beyond end of device "
            f"({display_size(device_size)}) {device}.\n"
            f"Format-specific initialisation of physical volume {device} failed."
        )
    wanted = options.metadata_size or DEFAULT_METADATA_SIZE
    areas = []
    room = (options.ba_start or options.pe_start, device_size - options.pe_end)
    for index in range(options.metadata_copies):
        size = min(wanted, room[index] - (0 if index else MDA_START))
        if size < MIN_METADATA_SIZE:
            raise RefusedError(
                f"Not enough space available for metadata area with index {index} on PV {device}.\n"
                f"Failed to add metadata area for new physical volume {device}"
            )
        areas.append(_area(device_size - size if index else MDA_START, size))
    return PvLayout(options.pe_start, options.ba_start, options.bootloader_area_size, tuple(areas))


def usable_extents(
    device_size: int, pe_start: int, metadata_areas: tuple[DiskLocn, ...], extent_size: int
) -> int:
    """Extents of `extent_size` sectors between pe_start and the device's end or a metadata area
    there. Sizes in sectors, areas in bytes."""
    end = device_size
    for area in metadata_areas:
        if area.offset // SECTOR >= pe_start:
            end = min(end, area.offset // SECTOR)
    return max(0, end - pe_start) // extent_size


def check_extents(device: str, extents: int, extent_size: int) -> None:
    """RefusedError if a PV has more extents of `extent_size` sectors than can be counted."""
    if extents > MAX_EXTENTS:
        raise RefusedError(f"PV {device} too large for extent size {display_size(extent_size)}.")


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _area(start: int, size: int) -> DiskLocn:
    return DiskLocn(start * SECTOR, size * SECTOR)
