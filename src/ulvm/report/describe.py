"""The long forms: lvdisplay, vgdisplay, pvdisplay (lib/display/display.c of LVM2).

Functions give lines without the two blanks of indentation. Labels are padded to 23 columns for
LVs, to 22 for VGs and PVs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ulvm.activation.states import LvState
from ulvm.metadata.model import LogicalVolume, StripedSegment, VolumeGroup
from ulvm.metadata.text_words import local_time
from ulvm.report.attributes import percent
from ulvm.report.lv_fields import read_ahead
from ulvm.report.rows import Row
from ulvm.units import SECTOR, display_size
from ulvm.vgstore.scan import PvDevice, Scan

__all__ = [
    "lv_colon",
    "lv_lines",
    "lv_map",
    "pv_colon",
    "pv_lines",
    "pv_map",
    "pv_scan",
    "vg_colon",
    "vg_lines",
    "vg_pv_lines",
    "vg_short",
]

States = Mapping[str, LvState]

SizeWords = Callable[[int], str]
"""Sectors to words."""

_STATUS_BITS = {"EXPORTED": 0x2, "RESIZEABLE": 0x4, "READ": 0x100, "WRITE": 0x200}
"""LVM2's, as vgdisplay -c and pvdisplay -c show them."""
_ALLOCATABLE, _MISSING = 1 << 3, 1 << 23
"""LVM2's bits for a PV that may be allocated from, and for one that is not there (pvdisplay -c)."""


def _lv(label: str, value: object) -> str:
    return f"{label:<23}{value}"


def _vg(label: str, value: object) -> str:
    return f"{label:<22}{value}"


# -- logical volumes ------------------------------------------------------------------------------


def lv_lines(
    vg: VolumeGroup,
    lv: LogicalVolume,
    states: States,
    size: Callable[[int], str] = display_size,
    *,
    full_path: bool = False,
    known: bool = True,
) -> Iterator[str]:
    """`size` writes sectors as text; `full_path`: the path stands for the name
    (global/lvdisplay_shows_full_device_path); `known`: whether it was asked what is active."""
    state = states.get(lv.name)
    snap = vg.snapshot_of(lv.name)
    yield "--- Logical volume ---"
    if full_path:
        yield _lv("LV Name", f"/dev/{vg.name}/{lv.name}")
    elif vg.is_visible(lv):
        yield _lv("LV Path", f"/dev/{vg.name}/{lv.name}")
        yield _lv("LV Name", lv.name)
    else:
        yield _lv("Internal LV Name", lv.name)
    yield _lv("VG Name", vg.name)
    yield _lv("LV UUID", lv.uuid)
    yield _lv("LV Write Access", "read/write" if lv.writable else "read only")
    made = local_time("%Y-%m-%d %H:%M:%S %z", lv.creation_time)
    yield _lv("LV Creation host, time", f" {lv.creation_host}, {made}".strip())
    if vg.is_origin(lv.name):
        yield _lv("LV snapshot status", "source of")
        for each in vg.snapshots_of_origin(lv.name):
            word = "active" if _usable(states.get(each.cow)) else "INACTIVE"
            yield _lv("", f"{each.cow} [{word}]")
    if snap is not None:
        word = "active" if _usable(state) else "INACTIVE"
        yield _lv("LV snapshot status", f"{word} destination for {snap.origin}")
    if known:
        yield _lv("LV Status", _status_word(state) + (" (partial)" if vg.is_partial(lv) else ""))
    if state is not None:
        yield _lv("# open", state.open_count)
    extents = lv.extent_count if snap is None else snap.extent_count
    yield _lv("LV Size", size(extents * vg.extent_size))
    yield _lv("Current LE", extents)
    if snap is not None:
        yield _lv("COW-table size", size(vg.lv_sectors(lv)))
        yield _lv("COW-table LE", lv.extent_count)
        full = percent(state.status) if state is not None and state.status is not None else None
        if _usable(state) and full is not None:
            yield _lv("Allocated to snapshot", f"{full}%")
        yield _lv("Snapshot chunk size", size(snap.chunk_size))
    if lv.is_pvmove:
        yield _lv("Mirrored volumes", 2)
    yield _lv("Segments", len(lv.segments))
    yield _lv("Allocation", lv.allocation_policy)
    wanted = "auto" if lv.read_ahead is None else max(lv.read_ahead, 0)
    yield _lv("Read ahead sectors", wanted)
    if state is not None and wanted != read_ahead(vg, lv):
        yield _lv("- currently set to", read_ahead(vg, lv))
    if lv.minor is not None:
        if lv.major is not None:
            yield _lv("Persistent major", lv.major)
        yield _lv("Persistent minor", lv.minor)
    if state is not None:
        yield _lv("Block device", f"{state.info.major}:{state.info.minor}")
    yield " "


def _usable(state: LvState | None) -> bool:
    if state is None:
        return False
    return state.status is None or not (state.status.invalid or state.status.overflow)


def _status_word(state: LvState | None) -> str:
    if state is None:
        return "NOT available"
    return "suspended" if state.info.suspended else "available"


def lv_map(scan: Scan, lv: LogicalVolume) -> Iterator[str]:
    """lvdisplay -m."""
    yield "--- Segments ---"
    for segment in lv.segments:
        last = segment.start_extent + segment.extent_count - 1
        yield f"Logical extents {segment.start_extent} to {last}:"
        yield f"  Type\t\t{segment.type_name}"
        if not isinstance(segment, StripedSegment):
            yield " "
            continue
        striped = len(segment.areas) > 1
        if striped:
            yield f"  Stripes\t\t{len(segment.areas)}"
            yield f"  Stripe size\t\t{display_size(segment.stripe_size)}"
        for number, area in enumerate(segment.areas):
            indent = "    " if striped else "  "
            if striped:
                yield f"  Stripe {number}:"
            extents = f"{area.pe} to {area.pe + segment.area_len - 1}"
            if area.lv:
                yield f"{indent}Logical volume\t{area.lv}"
                yield f"{indent}Logical extents\t{extents}"
                continue
            path = scan.path_of(area.pv_uuid) or "[unknown]"
            yield f"{indent}Physical volume\t{path}"
            yield f"{indent}Physical extents\t{extents}"
        yield " "
    yield " "


def lv_colon(vg: VolumeGroup, lv: LogicalVolume, state: LvState | None) -> str:
    """lvdisplay -c."""
    access = 3 if lv.writable else 1
    if state is not None and state.info.read_only:
        access |= 4
    opened = state.open_count if state is not None else 0
    major, minor = (state.info.major, state.info.minor) if state is not None else (-1, -1)
    ahead = -1 if lv.read_ahead is None else max(lv.read_ahead, 0)
    contiguous = 2 if lv.allocation_policy == "contiguous" else 0
    return (
        f"/dev/{vg.name}/{lv.name}:{vg.name}:{access}:{int(state is not None)}:-1:{opened}:"
        f"{vg.lv_sectors(lv)}:"
        f"{lv.extent_count}:-1:{contiguous}:{ahead}:{major}:{minor}"
    )


# -- volume groups --------------------------------------------------------------------------------


def vg_lines(
    scan: Scan, vg: VolumeGroup, states: States, size: SizeWords = display_size
) -> Iterator[str]:
    areas = sum(len(pv.areas) for p in vg.pvs if (pv := scan.by_uuid(p.uuid)) is not None)
    access = "read/write" if {"READ", "WRITE"} <= vg.status else "read"
    status = ["exported"] if "EXPORTED" in vg.status else []
    status += ["resizable"] if "RESIZEABLE" in vg.status else []
    used = vg.extent_count - vg.free_count
    yield "--- Volume group ---"
    yield _vg("VG Name", vg.name)
    yield _vg("System ID", vg.system_id or "")
    yield _vg("Format", "lvm2")
    yield _vg("Metadata Areas", areas)
    yield _vg("Metadata Sequence No", vg.seqno)
    yield _vg("VG Access", access)
    yield _vg("VG Status", "/".join(status) or "NOT resizable")
    yield _vg("MAX LV", vg.max_lv)
    yield _vg("Cur LV", len(vg.visible_lvs()))
    yield _vg("Open LV", sum(1 for s in states.values() if s.open_count))
    yield _vg("Max PV", vg.max_pv)
    yield _vg("Cur PV", len(vg.pvs))
    yield _vg("Act PV", len(vg.pvs) - len(vg.all_missing))
    yield _vg("VG Size", size(vg.extent_count * vg.extent_size))
    yield _vg("PE Size", size(vg.extent_size))
    yield _vg("Total PE", vg.extent_count)
    yield _vg("Alloc PE / Size", f"{used} / {size(used * vg.extent_size)}")
    free = vg.free_count
    yield _vg("Free  PE / Size", f"{free} / {size(free * vg.extent_size)}")
    yield _vg("VG UUID", vg.uuid)
    yield " "


def vg_pv_lines(scan: Scan, vg: VolumeGroup) -> Iterator[str]:
    """The last part of vgdisplay -v."""
    yield "--- Physical volumes ---"
    for pv in vg.pvs:
        yield _vg("PV Name", f"{scan.path_of(pv.uuid) or '[unknown]'}     ")
        yield _vg("PV UUID", pv.uuid)
        yield _vg("PV Status", f"{'' if pv.allocatable else 'NOT '}allocatable")
        yield _vg("Total PE / Free PE", f"{pv.pe_count} / {pv.pe_count - vg.allocated(pv.uuid)}")
        yield " "


def vg_short(vg: VolumeGroup, size: SizeWords = display_size) -> str:
    """vgdisplay -s."""
    total = vg.extent_count * vg.extent_size
    free = vg.free_count * vg.extent_size
    used = size(total - free)
    return f'"{vg.name}" {size(total):<9} [{used:<9} used / {size(free)} free]'


def vg_colon(vg: VolumeGroup, states: States) -> str:
    """vgdisplay -c."""
    flags = sum(bit for word, bit in _STATUS_BITS.items() if word in vg.status)
    access = "r/w" if "WRITE" in vg.status else "r"
    opened = sum(1 for s in states.values() if s.open_count)
    size_kib = vg.extent_count * vg.extent_size // 2
    used = vg.extent_count - vg.free_count
    return (
        f"{vg.name}:{access}:{flags}:-1:{vg.max_lv}:{len(vg.visible_lvs())}:{opened}:-1:"
        f"{vg.max_pv}:{len(vg.pvs)}:{len(vg.pvs) - len(vg.all_missing)}:{size_kib}:"
        f"{vg.extent_size // 2}:{vg.extent_count}:{used}:{vg.free_count}:{vg.uuid}"
    )


# -- physical volumes -----------------------------------------------------------------------------


def _new_pv(device: PvDevice, size: SizeWords = display_size) -> str:
    words = size(device.size // SECTOR)
    return f'"{device.path}" is a new physical volume of "{words}"'


def pv_lines(row: Row, size: SizeWords = display_size) -> Iterator[str]:
    """pvdisplay; `size` shows sectors."""
    path = row.device.path if row.device else "[unknown]"
    vg, pv = row.vg, row.pv
    if row.copy:
        yield from _copy_lines(path, size)
        return
    if vg is None or pv is None:
        assert row.device is not None
        owner = row.device.vg_name or ""
        if not owner:
            yield _new_pv(row.device, size)
        yield f"---{'' if owner else ' NEW'} Physical volume ---"
        yield _vg("PV Name", path)
        yield _vg("VG Name", owner)
        yield _vg("PV Size", size(row.device.size // SECTOR))
        yield _vg("Allocatable", "NO")
        yield _vg("PE Size", size(0))
        yield _vg("Total PE", 0)
        yield _vg("Free PE", 0)
        yield _vg("Allocated PE", 0)
        yield _vg("PV UUID", row.device.uuid)
        yield " "
        return
    rest = pv.dev_size - pv.pe_count * vg.extent_size
    # LVM2 counts what lies before the extents only when something behind them is lost.
    lost = size(rest if rest > pv.pe_start else 0)
    used = vg.allocated(pv.uuid)
    full = " (but full)" if used == pv.pe_count else " "
    yield "--- Physical volume ---"
    yield _vg("PV Name", path)
    yield _vg("VG Name", f"{vg.name}{' (exported)' if 'EXPORTED' in vg.status else ''}")
    yield _vg("PV Size", f"{size(pv.dev_size)} / not usable {lost}")
    yield _vg("Allocatable", f"yes{full}" if pv.allocatable else "NO")
    yield _vg("PE Size", size(vg.extent_size))
    yield _vg("Total PE", pv.pe_count)
    yield _vg("Free PE", pv.pe_count - used)
    yield _vg("Allocated PE", used)
    yield _vg("PV UUID", pv.uuid)
    yield " "


def _copy_lines(path: str, size: SizeWords) -> Iterator[str]:
    """Of a copy that was passed over LVM2 shows what it knows of nothing."""
    yield "--- Physical volume ---"
    yield _vg("PV Name", path)
    yield _vg("VG Name", "(null)")
    yield _vg("PV Size", size(0))
    yield _vg("Allocatable", "NO")
    yield _vg("PE Size", size(1))
    yield _vg("Total PE", 0)
    yield _vg("Free PE", 0)
    yield _vg("Allocated PE", 0)
    yield _vg("PV UUID", "none")
    yield " "


def pv_scan(rows: Sequence[Row], *, short: bool, uuids: bool) -> Iterator[str]:
    """pvscan: a line for each PV, those in a VG first, and the totals."""
    used, loose = [], []
    lines, loose_lines = [], []
    names = [row.device.path if row.device else "[unknown]" for row in rows]
    widest = max((len(name) for name in names), default=0)
    shown = [
        f"{name:<{widest}} with UUID {row.pv_uuid}" if uuids else name
        for name, row in zip(names, rows, strict=True)
    ]
    there = [text for text, row in zip(shown, rows, strict=True) if row.device or uuids]
    path_width = max(map(len, there), default=0) + (3 if uuids else 2)
    # LVM2 counts the group of PVs without a group, too: "#orphans_lvm2".
    width = max(13, *(len(row.vg.name) for row in rows if row.vg is not None), 0) + 2
    for name, text, row in zip(names, shown, rows, strict=True):
        if row.vg is None or row.pv is None:
            assert row.device is not None
            size = row.device.size // SECTOR
            loose.append(size)
            line = f"PV {text:<{path_width}} {'':<{width + 3}} lvm2 [{display_size(size)}]"
            loose_lines.append(name if short else line)
            continue
        size = row.pv.pe_count * row.vg.extent_size
        free = size - row.vg.allocated(row.pv.uuid) * row.vg.extent_size
        used.append(size)
        room = f"[{display_size(size)} / {display_size(free)} free]"
        line = f"PV {text:<{path_width}} VG {row.vg.name:<{width}} lvm2 {room}"
        if "EXPORTED" in row.vg.status:
            line = f"PV {text:<{path_width}}  is in exported VG {row.vg.name} {room}"
        lines.append(name if short else line)
    yield from (*lines, *loose_lines)
    yield (
        f"Total: {len(rows)} [{display_size(sum(used) + sum(loose))}]"
        f" / in use: {len(used)} [{display_size(sum(used))}]"
        f" / in no VG: {len(loose)} [{display_size(sum(loose))}]"
    )


def pv_map(rows: list[Row]) -> Iterator[str]:
    """pvdisplay -m: the rows are the segments of one PV."""
    yield "--- Physical Segments ---"
    for row in rows:
        assert row.pv_segment is not None
        start, length = row.pv_segment
        yield f"Physical extent {start} to {start + length - 1}:"
        if row.lv is None or row.segment is None or row.vg is None:
            yield "  FREE"
            continue
        first = row.segment.start_extent
        yield f"  Logical volume\t{row.scan.dev_dir}/{row.vg.name}/{row.lv.name}"
        yield f"  Logical extents\t{first} to {first + row.segment.extent_count - 1}"
    yield " "


def pv_colon(row: Row) -> Iterator[str]:
    """pvdisplay -c."""
    path = row.device.path if row.device else "[unknown]"
    vg, pv = row.vg, row.pv
    if row.copy:
        yield f"{path}:(null):0:-1:0:0:-1:0:0:0:0:none"
        return
    if vg is None or pv is None:
        assert row.device is not None
        yield _new_pv(row.device)
        yield f"{path}::{row.device.size // SECTOR}:-1:0:0:-1:0:0:0:0:{row.device.uuid}"
        return
    used = vg.allocated(pv.uuid)
    allocatable = _ALLOCATABLE if pv.allocatable else 0
    exported = _STATUS_BITS["EXPORTED"] if "EXPORTED" in vg.status else 0
    status = allocatable | exported | (_MISSING if pv.missing or pv.uuid in vg.missing_uuids else 0)
    yield (
        f"{path}:{vg.name}:{pv.dev_size}:-1:{status}:{allocatable}:-1:{vg.extent_size // 2}:"
        f"{pv.pe_count}:{pv.pe_count - used}:{used}:{pv.uuid}"
    )
