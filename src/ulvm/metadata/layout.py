"""Where pvcreate puts things: metadata areas, bootloader area, first extent.

Facts: spec/lvm2-format.md sec. 2 (table) and _text_pv_add_metadata_area in
lib/format_text/format-text.c of LVM2. All sizes are sectors unless named otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from ulvm.errors import RefusedError
from ulvm.metadata.label import LABEL_SCAN_SIZE, DiskLocn
from ulvm.units import SECTOR

__all__ = ["DEFAULT_ALIGNMENT", "PvLayout", "PvOptions", "plan_layout", "usable_extents"]

PAGE = 4096
"""Bytes; LVM aligns to the memory page."""
DEFAULT_ALIGNMENT = 2048
MDA_START = -(-LABEL_SCAN_SIZE // PAGE) * PAGE // SECTOR
DEFAULT_METADATA_SIZE = DEFAULT_ALIGNMENT - PAGE // SECTOR
MIN_METADATA_SIZE = 8 * PAGE // SECTOR


@dataclass(frozen=True, slots=True)
class PvOptions:
    """The options of pvcreate that shape a PV; sectors. 0 means LVM's default."""

    metadata_size: int = 0
    metadata_copies: int = 1
    data_alignment: int = 0
    data_alignment_offset: int = 0
    bootloader_area_size: int = 0
    label_sector: int = 1


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
    align = options.data_alignment or DEFAULT_ALIGNMENT
    offset = options.data_alignment_offset
    wanted = options.metadata_size or DEFAULT_METADATA_SIZE
    if align + offset > device_size:
        raise RefusedError(f"{device}: Data alignment must not exceed device size.")
    ba_size = _round_up(options.bootloader_area_size, align)
    if align + offset + ba_size > device_size:
        raise RefusedError(
            f"{device}: Bootloader area with data-aligned start must not exceed device size."
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


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _area(start: int, size: int) -> DiskLocn:
    return DiskLocn(start * SECTOR, size * SECTOR)
