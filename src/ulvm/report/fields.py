"""The fields of lvs, vgs and pvs: names, headings, kinds and values (lvmreport(7), columns.h).

Each field of the tables below is (name, heading, kind, least width, value of a row). Kinds: `str`
and `pct` stand left, `num`, `size` (sectors) and `word` (LVM2 counts these as numbers) right. A
value of None is blank.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ulvm.activation.names import dm_name
from ulvm.metadata.mda import max_text
from ulvm.metadata.model import (
    LogicalVolume,
    StripedSegment,
    VolumeGroup,
)
from ulvm.report.attributes import is_partial, lv_attr, percent, pv_attr, vg_attr
from ulvm.report.rows import Row
from ulvm.units import SECTOR

__all__ = ["FIELDS", "PREFIXES", "Field", "Value"]

Value = str | int | None


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    heading: str
    kind: str
    width: int
    value: Callable[[Row], Value]
    group: str
    """lv, seg, vg, pv or pvseg: a seg field makes a row of each segment."""

    @property
    def right(self) -> bool:
        return self.kind in ("num", "size", "word")


PREFIXES = ("lv_", "vg_", "pv_", "seg_")
"""May be left out in -o, -O and -S."""


# -- logical volumes ------------------------------------------------------------------------------


def _lv(function: Callable[[VolumeGroup, LogicalVolume], Value]) -> Callable[[Row], Value]:
    """A field that needs the VG and the LV alone."""

    def value(row: Row) -> Value:
        return function(row.vg, row.lv) if row.vg is not None and row.lv is not None else None

    return value


def _name(vg: VolumeGroup, lv: LogicalVolume) -> str:
    return lv.name if vg.is_visible(lv) else f"[{lv.name}]"


def _attr(row: Row) -> Value:
    return lv_attr(row.vg, row.lv, row.state) if row.vg and row.lv else None


def _origin(vg: VolumeGroup, lv: LogicalVolume) -> str:
    snap = vg.snapshot_of(lv.name)
    return snap.origin if snap else ""


def _origin_uuid(vg: VolumeGroup, lv: LogicalVolume) -> str:
    origin = vg.lv(_origin(vg, lv))
    return origin.uuid if origin else ""


def _origin_size(vg: VolumeGroup, lv: LogicalVolume) -> Value:
    snap = vg.snapshot_of(lv.name)
    if snap is not None:
        return snap.extent_count * vg.extent_size
    return vg.lv_sectors(lv) if vg.is_origin(lv.name) else None


def _data_percent(row: Row) -> Value:
    """Of a snapshot how full its COW is; of an origin what a merge under way has still to do."""
    status = row.state.status if row.state else None
    if row.vg is None or row.lv is None or status is None:
        return ""
    if row.vg.snapshot_of(row.lv.name) is None and not status.merging:
        return ""
    return percent(status) or ""


def _role(vg: VolumeGroup, lv: LogicalVolume) -> str:
    if vg.is_cow(lv.name):
        return "public,snapshot,thicksnapshot"
    count = len(vg.snapshots_of_origin(lv.name))
    if not count:
        return "public"
    return "public,origin,thickorigin" + (",multithickorigin" if count > 1 else "")


def _layout(vg: VolumeGroup, lv: LogicalVolume) -> str:
    return ",".join(dict.fromkeys(s.type_name for s in lv.segments))


def _time(_: VolumeGroup, lv: LogicalVolume) -> str:
    if not lv.creation_time:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(lv.creation_time))


def _path(vg: VolumeGroup, lv: LogicalVolume) -> str:
    return f"/dev/{vg.name}/{lv.name}" if vg.is_visible(lv) else ""


def _state_word(word: str, of: Callable[[Row], bool]) -> Callable[[Row], Value]:
    """LVM's binary fields: the word, blank, or `unknown` for an inactive volume."""

    def value(row: Row) -> Value:
        if row.state is None:
            return "unknown"
        return word if of(row) else ""

    return value


def _snapshot_word(word: str, of: Callable[[Row], bool]) -> Callable[[Row], Value]:
    """The same, `unknown` also for what is no snapshot."""

    def value(row: Row) -> Value:
        if row.vg is None or row.lv is None or row.state is None or row.state.status is None:
            return "unknown"
        return word if of(row) else ""

    return value


def _is_invalid(row: Row) -> bool:
    return bool(row.state and row.state.status and row.state.status.invalid)


def _has_merge_failed(row: Row) -> bool:
    return bool(row.state and row.state.status and row.state.status.merge_failed)


def _merging(vg: VolumeGroup, lv: LogicalVolume) -> str:
    snap = vg.snapshot_of(lv.name)
    is_merging = snap.merging if snap else vg.merging_snapshot_of(lv.name) is not None
    return "merging" if is_merging else ""


def _kernel(attribute: str) -> Callable[[Row], Value]:
    def value(row: Row) -> Value:
        return getattr(row.state.info, attribute) if row.state else -1

    return value


def _permissions(row: Row) -> Value:
    if row.lv is None:
        return None
    if not row.lv.writable:
        return "read-only"
    override = row.state is not None and row.state.info.read_only
    return "read-only-override" if override else "writeable"


_LV_FIELDS: tuple[tuple[str, str, str, int, Callable[[Row], Value]], ...] = (
    ("lv_name", "LV", "str", 4, _lv(_name)),
    ("lv_full_name", "LV", "str", 4, _lv(lambda vg, lv: f"{vg.name}/{lv.name}")),
    ("lv_uuid", "LV UUID", "str", 0, _lv(lambda _, lv: lv.uuid)),
    ("lv_path", "Path", "str", 0, _lv(_path)),
    ("lv_dm_path", "DMPath", "str", 0, _lv(lambda g, v: f"/dev/mapper/{dm_name(g.name, v.name)}")),
    ("lv_attr", "Attr", "str", 0, _attr),
    ("lv_size", "LSize", "size", 0, _lv(lambda vg, lv: vg.lv_sectors(lv))),
    ("lv_parent", "Parent", "str", 0, _lv(lambda *_: "")),
    ("lv_layout", "Layout", "str", 10, _lv(_layout)),
    ("lv_role", "Role", "str", 0, _lv(_role)),
    ("lv_tags", "LV Tags", "str", 0, _lv(lambda _, lv: ",".join(sorted(lv.tags)))),
    ("lv_active", "Active", "str", 0, lambda row: "active" if row.state else ""),
    ("lv_time", "CTime", "str", 26, _lv(_time)),
    ("lv_host", "Host", "str", 10, _lv(lambda _, lv: lv.creation_host)),
    ("lv_permissions", "LPerms", "str", 0, _permissions),
    ("lv_allocation_policy", "AllocPol", "str", 10, _lv(lambda _, lv: lv.allocation_policy)),
    ("lv_read_ahead", "Rahead", "word", 0,
     _lv(lambda _, lv: "auto" if lv.read_ahead is None else str(max(lv.read_ahead, 0)))),
    ("lv_major", "Maj", "num", 0, _lv(lambda _, lv: -1 if lv.major is None else lv.major)),
    ("lv_minor", "Min", "num", 0, _lv(lambda _, lv: -1 if lv.minor is None else lv.minor)),
    ("lv_kernel_major", "KMaj", "num", 0, _kernel("major")),
    ("lv_kernel_minor", "KMin", "num", 0, _kernel("minor")),
    ("lv_suspended", "Suspended", "word", 10,
     _state_word("suspended", lambda row: bool(row.state and row.state.info.suspended))),
    ("lv_live_table", "LiveTable", "word", 20,
     _state_word("live table present", lambda row: bool(row.state and row.state.info.live_table))),
    ("lv_inactive_table", "InactiveTable", "word", 20,
     _state_word("inactive table present",
                 lambda row: bool(row.state and row.state.info.inactive_table))),
    ("lv_device_open", "DevOpen", "word", 10,
     _state_word("open", lambda row: bool(row.state and row.state.open_count))),
    ("lv_merging", "Merging", "word", 10, _lv(_merging)),
    ("lv_converting", "Converting", "str", 0, _lv(lambda *_: "")),
    ("lv_snapshot_invalid", "SnapInvalid", "word", 15,
     _snapshot_word("snapshot invalid", _is_invalid)),
    ("lv_merge_failed", "MergeFailed", "word", 15,
     _snapshot_word("merge failed", _has_merge_failed)),
    ("lv_health_status", "Health", "str", 15,
     _lv(lambda vg, lv: "partial" if is_partial(vg, lv) else "")),
    ("lv_skip_activation", "SkipAct", "str", 15,
     _lv(lambda _, lv: "skip activation" if "ACTIVATION_SKIP" in lv.flags else "")),
    ("pool_lv", "Pool", "str", 0, _lv(lambda *_: "")),
    ("origin", "Origin", "str", 0, _lv(_origin)),
    ("origin_uuid", "Origin UUID", "str", 0, _lv(_origin_uuid)),
    ("origin_size", "OSize", "size", 0, _lv(_origin_size)),
    ("data_percent", "Data%", "pct", 6, _data_percent),
    ("snap_percent", "Snap%", "pct", 6, _data_percent),
    ("metadata_percent", "Meta%", "pct", 6, _lv(lambda *_: "")),
    ("move_pv", "Move", "str", 0, _lv(lambda *_: "")),
    ("mirror_log", "Log", "str", 0, _lv(lambda *_: "")),
    ("copy_percent", "Cpy%Sync", "pct", 8, _lv(lambda *_: "")),
    ("sync_percent", "Cpy%Sync", "pct", 8, _lv(lambda *_: "")),
    ("convert_lv", "Convert", "str", 0, _lv(lambda *_: "")),
    ("seg_count", "#Seg", "num", 0, _lv(lambda _, lv: len(lv.segments))),
)  # fmt: skip


# -- segments -------------------------------------------------------------------------------------


def _devices(row: Row) -> Value:
    if not isinstance(row.segment, StripedSegment):
        return ""
    return ",".join(
        f"{row.scan.path_of(a.pv_uuid) or '[unknown]'}({a.pe})" for a in row.segment.areas
    )


def _pe_ranges(row: Row) -> Value:
    if not isinstance(row.segment, StripedSegment):
        return ""
    length = row.segment.area_len
    return " ".join(
        f"{row.scan.path_of(a.pv_uuid) or '[unknown]'}:{a.pe}-{a.pe + length - 1}"
        for a in row.segment.areas
    )


def _stripes(row: Row) -> Value:
    if row.segment is None:
        return None
    return len(row.segment.areas) if isinstance(row.segment, StripedSegment) else 0


def _chunk(row: Row) -> Value:
    snap = row.vg.snapshot_of(row.lv.name) if row.vg and row.lv else None
    return snap.chunk_size if snap else 0


def _segment_type(row: Row) -> Value:
    if row.segment is None:
        return "free" if row.pv_segment else None
    return row.segment.type_name


def _in_segment(number: Callable[[int, int], int], size: bool) -> Callable[[Row], Value]:
    """Of start and count in extents; `size`: in sectors."""

    def value(row: Row) -> Value:
        if row.segment is None or row.vg is None:
            return None
        extents = number(row.segment.start_extent, row.segment.extent_count)
        return extents * row.vg.extent_size if size else extents

    return value


_SEGMENT_FIELDS: tuple[tuple[str, str, str, int, Callable[[Row], Value]], ...] = (
    ("segtype", "Type", "str", 0, _segment_type),
    ("stripes", "#Str", "num", 0, _stripes),
    ("data_stripes", "#DStr", "num", 0, _stripes),
    ("stripe_size", "Stripe", "size", 0,
     lambda r: r.segment.stripe_size if isinstance(r.segment, StripedSegment) else 0),
    ("region_size", "Region", "size", 0, lambda _: 0),
    ("chunk_size", "Chunk", "size", 0, _chunk),
    ("seg_start", "Start", "size", 0, _in_segment(lambda start, _: start, True)),
    ("seg_start_pe", "Start", "num", 0, _in_segment(lambda start, _: start, False)),
    ("seg_size", "SSize", "size", 0, _in_segment(lambda _, count: count, True)),
    ("seg_size_pe", "SSize", "num", 0, _in_segment(lambda _, count: count, False)),
    ("seg_tags", "Seg Tags", "str", 0, lambda r: ",".join(r.segment.tags) if r.segment else ""),
    ("seg_pe_ranges", "PE Ranges", "str", 0, _pe_ranges),
    ("devices", "Devices", "str", 0, _devices),
)  # fmt: skip


# -- volume groups --------------------------------------------------------------------------------


def _vg(function: Callable[[VolumeGroup], Value]) -> Callable[[Row], Value]:
    def value(row: Row) -> Value:
        return function(row.vg) if row.vg is not None else None

    return value


def _mda_numbers(row: Row) -> tuple[list[int], list[int]]:
    """Sizes and free space, in sectors, of the VG's metadata areas."""
    sizes, free = [], []
    for pv in row.vg.pvs if row.vg else ():
        device = row.scan.by_uuid(pv.uuid)
        for mda in device.mdas if device else ():
            sizes.append(mda.size // SECTOR)
            locn = mda.header.current if mda.header else None
            free.append(max(0, max_text(mda.size) - (locn.size if locn else 0)) // SECTOR)
    return sizes, free


def _vg_name(row: Row) -> Value:
    if row.vg is not None:
        return row.vg.name
    return (row.device.vg_name or "") if row.device else None


_VG_FIELDS: tuple[tuple[str, str, str, int, Callable[[Row], Value]], ...] = (
    ("vg_name", "VG", "str", 0, _vg_name),
    ("vg_fmt", "Fmt", "str", 0, _vg(lambda vg: "lvm2")),
    ("vg_uuid", "VG UUID", "str", 0, _vg(lambda vg: vg.uuid)),
    ("vg_attr", "Attr", "str", 5, _vg(vg_attr)),
    ("vg_permissions", "VPerms", "str", 10,
     _vg(lambda vg: "writeable" if "WRITE" in vg.status else "read-only")),
    ("vg_extendable", "Extendable", "str", 0,
     _vg(lambda vg: "extendable" if "RESIZEABLE" in vg.status else "")),
    ("vg_exported", "Exported", "str", 10,
     _vg(lambda vg: "exported" if "EXPORTED" in vg.status else "")),
    ("vg_partial", "Partial", "str", 10, _vg(lambda vg: "partial" if vg.partial else "")),
    ("vg_allocation_policy", "AllocPol", "str", 10, _vg(lambda vg: vg.allocation_policy)),
    ("vg_size", "VSize", "size", 0, _vg(lambda vg: vg.extent_count * vg.extent_size)),
    ("vg_free", "VFree", "size", 0, _vg(lambda vg: vg.free_count * vg.extent_size)),
    ("vg_systemid", "System ID", "str", 0, _vg(lambda vg: vg.system_id or "")),
    ("vg_extent_size", "Ext", "size", 0, _vg(lambda vg: vg.extent_size)),
    ("vg_extent_count", "#Ext", "num", 0, _vg(lambda vg: vg.extent_count)),
    ("vg_free_count", "Free", "num", 0, _vg(lambda vg: vg.free_count)),
    ("max_lv", "MaxLV", "num", 0, _vg(lambda vg: vg.max_lv)),
    ("max_pv", "MaxPV", "num", 0, _vg(lambda vg: vg.max_pv)),
    ("pv_count", "#PV", "num", 0, _vg(lambda vg: len(vg.pvs))),
    ("vg_missing_pv_count", "#PV Missing", "num", 0,
     _vg(lambda vg: len(vg.missing_uuids | {p.uuid for p in vg.pvs if p.missing}))),
    ("lv_count", "#LV", "num", 0, _vg(lambda vg: len(vg.visible_lvs()))),
    ("snap_count", "#SN", "num", 0, _vg(lambda vg: len(list(vg.snapshot_segments())))),
    ("vg_seqno", "Seq", "num", 0, _vg(lambda vg: vg.seqno)),
    ("vg_tags", "VG Tags", "str", 0, _vg(lambda vg: ",".join(sorted(vg.tags)))),
    ("vg_profile", "VProfile", "str", 0, _vg(lambda vg: vg.profile or "")),
    ("vg_mda_count", "#VMda", "num", 0, lambda r: len(_mda_numbers(r)[0]) if r.vg else None),
    ("vg_mda_used_count", "#VMdaUse", "num", 0,
     lambda r: len(_mda_numbers(r)[0]) if r.vg else None),
    ("vg_mda_free", "VMdaFree", "size", 9,
     lambda r: min(_mda_numbers(r)[1], default=0) if r.vg else None),
    ("vg_mda_size", "VMdaSize", "size", 9,
     lambda r: min(_mda_numbers(r)[0], default=0) if r.vg else None),
    ("vg_mda_copies", "#VMdaCps", "str", 0,
     _vg(lambda vg: str(vg.metadata_copies) if vg.metadata_copies else "unmanaged")),
)  # fmt: skip


# -- physical volumes -----------------------------------------------------------------------------


def _pv_name(row: Row) -> Value:
    if row.device is not None:
        return row.device.path
    return "[unknown]" if row.pv is not None else None


def _pv_uuid(row: Row) -> Value:
    if row.device is not None:
        return row.device.uuid
    return row.pv.uuid if row.pv else None


def _pv_size(row: Row) -> Value:
    if row.vg is not None and row.pv is not None:
        return row.pv.pe_count * row.vg.extent_size
    return row.device.size // SECTOR if row.device else None


def _pv_used(row: Row) -> Value:
    if row.vg is not None and row.pv is not None:
        return row.vg.allocated(row.pv.uuid) * row.vg.extent_size
    return 0 if row.device else None


def _pv_free(row: Row) -> Value:
    size, used = _pv_size(row), _pv_used(row)
    return size - used if isinstance(size, int) and isinstance(used, int) else None


def _pv_attr(row: Row) -> Value:
    uuid = row.device.uuid if row.device else row.pv.uuid if row.pv else ""
    return pv_attr(row.vg, uuid, missing=row.device is None)


def _pe_start(row: Row) -> Value:
    if row.device is not None:
        return row.device.label.pv_header.pe_start // SECTOR
    return row.pv.pe_start if row.pv else None


def _ba(index: int) -> Callable[[Row], Value]:
    def value(row: Row) -> Value:
        areas = row.device.label.pv_header.bootloader_areas if row.device else ()
        return areas[0][index] // SECTOR if areas else 0

    return value


def _pv_mda_free(row: Row) -> Value:
    free = [0]
    if row.device is not None and row.device.mdas:
        free = []
        for mda in row.device.mdas:
            locn = mda.header.current if mda.header else None
            free.append(max(0, max_text(mda.size) - (locn.size if locn else 0)) // SECTOR)
    return min(free)


_PV_FIELDS: tuple[tuple[str, str, str, int, Callable[[Row], Value]], ...] = (
    ("pv_name", "PV", "str", 10, _pv_name),
    ("pv_fmt", "Fmt", "str", 0, lambda r: "lvm2" if r.device or r.pv else None),
    ("pv_uuid", "PV UUID", "str", 0, _pv_uuid),
    ("pv_attr", "Attr", "str", 4, _pv_attr),
    ("pv_size", "PSize", "size", 0, _pv_size),
    ("pv_free", "PFree", "size", 0, _pv_free),
    ("pv_used", "Used", "size", 0, _pv_used),
    ("dev_size", "DevSize", "size", 0, lambda r: r.device.size // SECTOR if r.device else 0),
    ("pe_start", "1st PE", "size", 7, _pe_start),
    ("pv_pe_count", "PE", "num", 3, lambda r: r.pv.pe_count if r.pv else 0),
    ("pv_pe_alloc_count", "Alloc", "num", 0,
     lambda r: r.vg.allocated(r.pv.uuid) if r.vg and r.pv else 0),
    ("pv_tags", "PV Tags", "str", 0, lambda r: ",".join(sorted(r.pv.tags)) if r.pv else ""),
    ("pv_mda_count", "#PMda", "num", 0, lambda r: len(r.device.mdas) if r.device else 0),
    ("pv_mda_used_count", "#PMdaUse", "num", 0,
     lambda r: sum(not m.ignored for m in r.device.mdas) if r.device else 0),
    ("pv_mda_size", "PMdaSize", "size", 9,
     lambda r: min((m.size // SECTOR for m in r.device.mdas), default=0) if r.device else 0),
    ("pv_mda_free", "PMdaFree", "size", 9, _pv_mda_free),
    ("pv_ba_start", "BA Start", "size", 0, _ba(0)),
    ("pv_ba_size", "BA Size", "size", 0, _ba(1)),
    ("pv_ext_vsn", "PExtVsn", "num", 0,
     lambda r: r.device.label.pv_header.extension_version if r.device else 0),
    ("pv_in_use", "PInUse", "word", 0,
     lambda r: "used" if r.device is not None and r.device.in_use else ""),
    ("pv_allocatable", "Allocatable", "str", 0,
     lambda r: "allocatable" if r.pv is not None and r.pv.allocatable else ""),
    ("pv_missing", "Missing", "str", 10, lambda r: "missing" if r.device is None else ""),
    ("pv_exported", "Exported", "str", 10,
     lambda r: "exported" if r.vg is not None and "EXPORTED" in r.vg.status else ""),
)  # fmt: skip

_PV_SEGMENT_FIELDS: tuple[tuple[str, str, str, int, Callable[[Row], Value]], ...] = (
    ("pvseg_start", "Start", "num", 0, lambda r: r.pv_segment[0] if r.pv_segment else 0),
    ("pvseg_size", "SSize", "num", 0, lambda r: r.pv_segment[1] if r.pv_segment else 0),
)

FIELDS: dict[str, Field] = {
    name: Field(name, heading, kind, max(width, len(heading)), value, group)
    for group, table in (
        ("lv", _LV_FIELDS),
        ("seg", _SEGMENT_FIELDS),
        ("vg", _VG_FIELDS),
        ("pv", _PV_FIELDS),
        ("pvseg", _PV_SEGMENT_FIELDS),
    )
    for name, heading, kind, width, value in table
}
