"""The fields of logical volumes and of their segments."""

from __future__ import annotations

from collections.abc import Callable

from ulvm.activation.names import dm_name
from ulvm.dm_ioctl import READ_AHEAD
from ulvm.metadata.model import (
    LogicalVolume,
    MirrorSegment,
    SimpleSegment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.report import move_fields
from ulvm.report.attributes import lv_attr, percent
from ulvm.report.rows import Row
from ulvm.report.table import Table, Value

__all__ = ["LV_FIELDS", "SEGMENT_FIELDS", "read_ahead"]

# -- logical volumes ------------------------------------------------------------------------------


def _lv(function: Callable[[VolumeGroup, LogicalVolume], Value]) -> Callable[[Row], Value]:
    """A field that needs the VG and the LV alone."""

    def value(row: Row) -> Value:
        return function(row.vg, row.lv) if row.vg is not None and row.lv is not None else None

    return value


def _name(vg: VolumeGroup, lv: LogicalVolume) -> str:
    return lv.name if vg.is_visible(lv) else f"[{lv.name}]"


def _size(row: Row) -> Value:
    if row.vg is None or row.lv is None:
        return 0 if row.pv_segment is not None else None
    return row.vg.lv_sectors(row.lv)


def _attr(row: Row) -> Value:
    return lv_attr(row.vg, row.lv, row.state, asked=row.asked) if row.vg and row.lv else None


def _origin(vg: VolumeGroup, lv: LogicalVolume) -> str:
    snap = vg.snapshot_of(lv.name)
    return snap.origin if snap else ""


def _origin_shown(vg: VolumeGroup, lv: LogicalVolume) -> str:
    origin = vg.lv(_origin(vg, lv))
    return _name(vg, origin) if origin else ""


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
    if lv.is_pvmove:
        return "private,pvmove"
    if vg.pvmove_image_of(lv.name) is not None:
        return "private,mirror,image"
    if vg.is_cow(lv.name):
        return "public,snapshot,thicksnapshot"
    count = len(vg.snapshots_of_origin(lv.name))
    if not count:
        return "public"
    seen = "private" if vg.is_virtual_origin(lv) else "public"
    return f"{seen},origin,thickorigin" + (",multithickorigin" if count > 1 else "")


def _layout(vg: VolumeGroup, lv: LogicalVolume) -> str:
    if vg.is_virtual_origin(lv):
        return "virtual"
    return ",".join(dict.fromkeys(s.type_name for s in lv.segments))


def _time(_: VolumeGroup, lv: LogicalVolume) -> Value:
    return lv.creation_time or None


def _path(row: Row) -> Value:
    if row.vg is None or row.lv is None:
        return None
    return f"{row.scan.dev_dir}/{row.vg.name}/{row.lv.name}" if row.vg.is_visible(row.lv) else ""


def _dm_path(row: Row) -> Value:
    if row.vg is None or row.lv is None:
        return None
    return f"{row.scan.dev_dir}/mapper/{dm_name(row.vg.name, row.lv.name)}"


def _active(word: str) -> Callable[[Row], Value]:
    """Blank for an inactive volume, `unknown` where it was not asked."""
    return lambda row: word if row.state else "" if row.asked else "unknown"


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
    if row.lv.is_pvmove:
        return ""
    if not row.lv.writable:
        return "read-only"
    if row.state is None:
        return "unknown"
    return "read-only-override" if row.state.info.read_only else "writeable"


def _descendants(vg: VolumeGroup, lv: LogicalVolume) -> str:
    return ",".join(s.cow for s in vg.snapshots_of_origin(lv.name))


def _modules(vg: VolumeGroup, lv: LogicalVolume) -> str:
    words = {s.type_name for s in lv.segments if isinstance(s, SimpleSegment)}
    if lv.is_pvmove or vg.lower_lvs(lv):
        words.add("mirror")
    if vg.is_cow(lv.name) or vg.is_origin(lv.name):
        words.add("snapshot")
    return ",".join(sorted(words))


def read_ahead(vg: VolumeGroup, lv: LogicalVolume) -> int:
    """Sectors that are read ahead when the volume is active: two stripes of each disk, also of a
    snapshot's origin, and no less than for any device (block/blk-settings.c, io_opt); or what the
    volume was given."""
    if lv.read_ahead is not None:
        return max(lv.read_ahead, 0)
    below = [lv, vg.lv(_origin(vg, lv))]
    stripes = [
        2 * len(segment.areas) * segment.stripe_size
        for each in below
        if each is not None
        for segment in each.segments
        if isinstance(segment, StripedSegment) and len(segment.areas) > 1
    ]
    return max([READ_AHEAD, *stripes])


def _kernel_read_ahead(row: Row) -> Value:
    if row.state is None or row.vg is None or row.lv is None:
        return -1
    return read_ahead(row.vg, row.lv)


LV_FIELDS: Table = (
    ("lv_name", "LV", "str", 4, _lv(_name)),
    ("lv_full_name", "LV", "str", 4, _lv(lambda vg, lv: f"{vg.name}/{lv.name}")),
    ("lv_uuid", "LV UUID", "str", 38, _lv(lambda _, lv: lv.uuid)),
    ("lv_path", "Path", "str", 0, _path),
    ("lv_dm_path", "DMPath", "str", 0, _dm_path),
    ("lv_attr", "Attr", "str", 0, _attr),
    ("lv_size", "LSize", "size", 0, _size),
    ("lv_parent", "Parent", "str", 0, _lv(lambda *_: "")),
    ("lv_layout", "Layout", "list", 10, _lv(_layout)),
    ("lv_role", "Role", "list", 10, _lv(_role)),
    ("lv_tags", "LV Tags", "list", 0, _lv(lambda _, lv: ",".join(sorted(lv.tags)))),
    ("lv_active", "Active", "str", 0, _active("active")),
    ("lv_active_locally", "ActLocal", "bin", 10, _active("active locally")),
    ("lv_active_remotely", "ActRemote", "bin", 10, _active("")),
    ("lv_active_exclusively", "ActExcl", "bin", 10, _active("active exclusively")),
    ("lv_ancestors", "Ancestors", "list", 0, _lv(_origin)),
    ("lv_full_ancestors", "FAncestors", "list", 0, _lv(_origin)),
    ("lv_descendants", "Descendants", "list", 0, _lv(_descendants)),
    ("lv_full_descendants", "FDescendants", "list", 0, _lv(_descendants)),
    ("lv_modules", "Modules", "list", 0, _lv(_modules)),
    ("lv_time", "CTime", "time", 26, _lv(_time)),
    ("lv_host", "Host", "str", 10, _lv(lambda _, lv: lv.creation_host)),
    ("lv_permissions", "LPerms", "str", 0, _permissions),
    ("lv_allocation_policy", "AllocPol", "str", 10, _lv(lambda _, lv: lv.allocation_policy)),
    ("lv_read_ahead", "Rahead", "size", 0,
     _lv(lambda _, lv: "auto" if lv.read_ahead is None else max(lv.read_ahead, 0))),
    ("lv_major", "Maj", "num", 0, _lv(lambda _, lv: -1 if lv.major is None else lv.major)),
    ("lv_minor", "Min", "num", 0, _lv(lambda _, lv: -1 if lv.minor is None else lv.minor)),
    ("lv_kernel_major", "KMaj", "num", 0, _kernel("major")),
    ("lv_kernel_minor", "KMin", "num", 0, _kernel("minor")),
    ("lv_fixed_minor", "FixMin", "bin", 10,
     _lv(lambda _, lv: "" if lv.minor is None else "fixed minor")),
    ("lv_kernel_read_ahead", "KRahead", "size", 0, _kernel_read_ahead),
    ("lv_autoactivation", "AutoAct", "bin", 0,
     _lv(lambda _, lv: "" if "NOAUTOACTIVATE" in lv.flags else "enabled")),
    ("lv_profile", "LProfile", "str", 0, _lv(lambda _, lv: lv.profile or "")),
    ("lv_suspended", "Suspended", "bin", 10,
     _state_word("suspended", lambda row: bool(row.state and row.state.info.suspended))),
    ("lv_live_table", "LiveTable", "bin", 20,
     _state_word("live table present", lambda row: bool(row.state and row.state.info.live_table))),
    ("lv_inactive_table", "InactiveTable", "bin", 20,
     _state_word("inactive table present",
                 lambda row: bool(row.state and row.state.info.inactive_table))),
    ("lv_device_open", "DevOpen", "bin", 10,
     _state_word("open", lambda row: bool(row.state and row.state.open_count))),
    ("lv_merging", "Merging", "bin", 10, _lv(_merging)),
    ("lv_converting", "Converting", "bin", 0, _lv(lambda *_: "")),
    ("lv_snapshot_invalid", "SnapInvalid", "bin", 15,
     _snapshot_word("snapshot invalid", _is_invalid)),
    ("lv_merge_failed", "MergeFailed", "bin", 15,
     _snapshot_word("merge failed", _has_merge_failed)),
    ("lv_health_status", "Health", "str", 15,
     _lv(lambda vg, lv: "partial" if vg.is_partial(lv) else "")),
    ("lv_skip_activation", "SkipAct", "bin", 15,
     _lv(lambda _, lv: "skip activation" if "ACTIVATION_SKIP" in lv.flags else "")),
    ("pool_lv", "Pool", "str", 0, _lv(lambda *_: "")),
    ("origin", "Origin", "str", 0, _lv(_origin_shown)),
    ("origin_uuid", "Origin UUID", "str", 38, _lv(_origin_uuid)),
    ("origin_size", "OSize", "size", 0, _lv(_origin_size)),
    ("data_percent", "Data%", "pct", 6, _data_percent),
    ("snap_percent", "Snap%", "pct", 6, _data_percent),
    ("metadata_percent", "Meta%", "pct", 6, _lv(lambda *_: "")),
    ("move_pv", "Move", "str", 0, move_fields.move_pv),
    ("move_pv_uuid", "Move UUID", "str", 38, move_fields.move_pv_uuid),
    ("lv_initial_image_sync", "InitImgSync", "bin", 10,
     _lv(lambda _, lv: "initial image sync" if lv.is_pvmove else "")),
    ("lv_allocation_locked", "AllocLock", "bin", 10,
     _lv(lambda _, lv: "allocation locked" if lv.locked else "")),
    ("mirror_log", "Log", "str", 0, _lv(lambda *_: "")),
    ("copy_percent", "Cpy%Sync", "pct", 8, move_fields.copy_percent),
    ("sync_percent", "Cpy%Sync", "pct", 8, move_fields.copy_percent),
    ("convert_lv", "Convert", "str", 0, _lv(lambda *_: "")),
    ("seg_count", "#Seg", "num", 0, _lv(lambda _, lv: len(lv.segments))),
)  # fmt: skip


# -- segments -------------------------------------------------------------------------------------


def _stripes(row: Row) -> Value:
    if row.segment is None:
        return None
    if isinstance(row.segment, StripedSegment | MirrorSegment):
        return len(row.segment.areas)
    return 0


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
        if row.segment is None and row.pv_segment is None:
            return None
        if row.segment is not None:
            extents = number(row.segment.start_extent, row.segment.extent_count)
        else:  # free extents of a PV
            assert row.pv_segment is not None
            extents = number(0, row.pv_segment[1])
        extent_size = row.vg.extent_size if row.vg is not None else 0
        return extents * extent_size if size else extents

    return value


def _monitor(row: Row) -> Value:
    if row.state is None or row.state.monitored is None:
        return ""
    return "monitored" if row.state.monitored else "not monitored"


SEGMENT_FIELDS: Table = (
    ("segtype", "Type", "str", 0, _segment_type),
    ("stripes", "#Str", "num", 0, _stripes),
    ("data_stripes", "#DStr", "num", 0, _stripes),
    ("data_copies", "#Cpy", "num", 0, lambda r: 1 if r.segment else None),
    ("stripe_size", "Stripe", "size", 0,
     lambda r: r.segment.stripe_size if isinstance(r.segment, StripedSegment) else 0),
    ("region_size", "Region", "size", 0,
     lambda r: r.segment.region_size if isinstance(r.segment, MirrorSegment) else 0),
    ("chunk_size", "Chunk", "size", 0, _chunk),
    ("seg_start", "Start", "size", 0, _in_segment(lambda start, _: start, True)),
    ("seg_start_pe", "Start", "num", 0, _in_segment(lambda start, _: start, False)),
    ("seg_size", "SSize", "size", 0, _in_segment(lambda _, count: count, True)),
    ("seg_size_pe", "SSize", "num", 0, _in_segment(lambda _, count: count, False)),
    ("seg_tags", "Seg Tags", "list", 0, lambda r: ",".join(r.segment.tags) if r.segment else ""),
    ("seg_le_ranges", "LE Ranges", "list", 0, move_fields.le_ranges),
    ("seg_pe_ranges", "PE Ranges", "list", 0, move_fields.pe_ranges),
    ("devices", "Devices", "list", 0, move_fields.devices),
    ("seg_monitor", "Monitor", "str", 0, _monitor),
)  # fmt: skip
