"""The fields of volume groups and physical volumes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from ulvm.metadata.mda import max_text
from ulvm.metadata.model import VolumeGroup
from ulvm.report.attributes import pv_attr, vg_attr
from ulvm.report.rows import Row
from ulvm.report.table import Table, Value
from ulvm.units import SECTOR

__all__ = ["PV_FIELDS", "PV_SEGMENT_FIELDS", "VG_FIELDS"]

_UNKNOWN = "[unknown]"
"""The VG of a PV that some VG uses, where no metadata say which."""

# -- volume groups --------------------------------------------------------------------------------


_ORPHANS = VolumeGroup("", "", 0, status=frozenset(), allocation_policy="unknown")
"""What LVM2 takes the PVs in no VG to be in."""


def _vg(function: Callable[[VolumeGroup], Value]) -> Callable[[Row], Value]:
    def value(row: Row) -> Value:
        if row.vg is None and row.device is None:
            return None
        return function(row.vg or _ORPHANS)

    return value


def _mda_numbers(row: Row) -> tuple[list[int], list[int]]:
    """Sizes and free space, in sectors, of the VG's metadata areas."""
    sizes, free = [], []
    for pv in row.vg.pvs if row.vg else ():
        device = row.scan.by_uuid(pv.uuid)
        for mda in device.areas if device else ():
            sizes.append(mda.size // SECTOR)
            locn = mda.header.current if mda.header else None
            free.append(max(0, max_text(mda.size) - (locn.size if locn else 0)) // SECTOR)
    return sizes, free


def _mdas_in_use(row: Row) -> int:
    devices = row.scan.pvs_of(row.vg) if row.vg else ()
    return sum(not mda.ignored for device in devices for mda in device.areas)


def _vg_name(row: Row) -> Value:
    if row.vg is not None:
        return row.vg.name
    if row.device is None:
        return None
    if row.copy and row.pv_segment is not None:
        return ""  # LVM2 does not look for it there
    return _UNKNOWN if row.device.unowned else row.device.vg_name or ""


VG_FIELDS: Table = (
    ("vg_name", "VG", "str", 0, _vg_name),
    ("vg_fmt", "Fmt", "str", 0, _vg(lambda vg: "lvm2")),
    ("vg_uuid", "VG UUID", "str", 38, _vg(lambda vg: vg.uuid)),
    ("vg_attr", "Attr", "str", 5, _vg(vg_attr)),
    ("vg_permissions", "VPerms", "str", 10,
     _vg(lambda vg: "writeable" if "WRITE" in vg.status else "read-only")),
    ("vg_extendable", "Extendable", "bin", 0,
     _vg(lambda vg: "extendable" if "RESIZEABLE" in vg.status else "")),
    ("vg_exported", "Exported", "bin", 10,
     _vg(lambda vg: "exported" if "EXPORTED" in vg.status else "")),
    ("vg_autoactivation", "AutoAct", "bin", 0,
     _vg(lambda vg: "" if "NOAUTOACTIVATE" in vg.flags else "enabled")),
    ("vg_partial", "Partial", "bin", 10, _vg(lambda vg: "partial" if vg.partial else "")),
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
     _vg(lambda vg: len(vg.all_missing))),
    ("lv_count", "#LV", "num", 0, _vg(lambda vg: len(vg.visible_lvs()))),
    ("snap_count", "#SN", "num", 0, _vg(lambda vg: len(list(vg.snapshot_segments())))),
    ("vg_seqno", "Seq", "num", 0, _vg(lambda vg: vg.seqno)),
    ("vg_tags", "VG Tags", "list", 0, _vg(lambda vg: ",".join(sorted(vg.tags)))),
    ("vg_profile", "VProfile", "str", 0, _vg(lambda vg: vg.profile or "")),
    ("vg_mda_count", "#VMda", "num", 0, lambda r: len(_mda_numbers(r)[0])),
    ("vg_mda_used_count", "#VMdaUse", "num", 0, _mdas_in_use),
    ("vg_mda_free", "VMdaFree", "size", 9,
     lambda r: min(_mda_numbers(r)[1], default=0)),
    ("vg_mda_size", "VMdaSize", "size", 9,
     lambda r: min(_mda_numbers(r)[0], default=0)),
    ("vg_mda_copies", "#VMdaCps", "num", 0,
     _vg(lambda vg: str(vg.metadata_copies) if vg.metadata_copies else "unmanaged")),
)  # fmt: skip


# -- physical volumes -----------------------------------------------------------------------------


def _pv_name(row: Row) -> Value:
    if row.device is not None:
        return row.device.path
    return _UNKNOWN if row.pv is not None else None


def _number(row: Row, part: Callable[[int], int]) -> Value:
    """Major or minor of a disk; 0 for one that is missing, or went since it was seen; -1 for a
    plain file."""
    if row.device is None:
        return 0
    try:
        found = os.stat(row.device.path)
    except OSError:
        return 0
    return part(found.st_rdev) if stat.S_ISBLK(found.st_mode) else -1


def _pv_uuid(row: Row) -> Value:
    if row.device is not None:
        return row.device.uuid
    return row.pv.uuid if row.pv else None


def _pv_fmt(row: Row) -> Value:
    if row.device is None:
        return "lvm2" if row.pv else None
    return "lvm2" if row.device.uuid else ""


def _pv_size(row: Row) -> Value:
    if row.vg is not None and row.pv is not None:
        return row.pv.pe_count * row.vg.extent_size
    if row.device is None:
        return None
    if row.copy or not row.device.uuid:
        return 0
    return (row.device.label.pv_header.device_size or row.device.size) // SECTOR


def _not_understood(row: Row) -> bool:
    """Some VG uses the PV, but nobody knows which extents."""
    device = row.device
    return device is not None and (device.unowned or device.vg_name in row.scan.broken)


def _pv_used(row: Row) -> Value:
    if row.vg is not None and row.pv is not None:
        return row.vg.allocated(row.pv.uuid) * row.vg.extent_size
    return 0 if row.device else None


def _pv_free(row: Row) -> Value:
    if _not_understood(row):
        return 0
    size, used = _pv_size(row), _pv_used(row)
    return size - used if isinstance(size, int) and isinstance(used, int) else None


def _pv_attr(row: Row) -> Value:
    if row.copy:
        return "d--"
    if _not_understood(row):
        return "u--"
    return pv_attr(row.vg, row.pv_uuid, missing=row.device is None)


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
    if row.device is not None and row.device.areas:
        free = []
        for mda in row.device.areas:
            locn = mda.header.current if mda.header else None
            free.append(max(0, max_text(mda.size) - (locn.size if locn else 0)) // SECTOR)
    return min(free)


PV_FIELDS: Table = (
    ("pv_name", "PV", "str", 10, _pv_name),
    ("pv_fmt", "Fmt", "str", 0, _pv_fmt),
    ("pv_uuid", "PV UUID", "str", 38, _pv_uuid),
    ("pv_attr", "Attr", "str", 4, _pv_attr),
    ("pv_size", "PSize", "size", 0, _pv_size),
    ("pv_free", "PFree", "size", 0, _pv_free),
    ("pv_used", "Used", "size", 0, _pv_used),
    ("dev_size", "DevSize", "size", 0, lambda r: r.device.size // SECTOR if r.device else 0),
    ("pe_start", "1st PE", "size", 7, _pe_start),
    ("pv_pe_count", "PE", "num", 3, lambda r: r.pv.pe_count if r.pv else 0),
    ("pv_pe_alloc_count", "Alloc", "num", 0,
     lambda r: r.vg.allocated(r.pv.uuid) if r.vg and r.pv else 0),
    ("pv_tags", "PV Tags", "list", 0, lambda r: ",".join(sorted(r.pv.tags)) if r.pv else ""),
    ("pv_mda_count", "#PMda", "num", 0, lambda r: len(r.device.areas) if r.device else 0),
    ("pv_mda_used_count", "#PMdaUse", "num", 0,
     lambda r: sum(not m.ignored for m in r.device.areas) if r.device else 0),
    ("pv_mda_size", "PMdaSize", "size", 9,
     lambda r: min((m.size // SECTOR for m in r.device.areas), default=0) if r.device else 0),
    ("pv_mda_free", "PMdaFree", "size", 9, _pv_mda_free),
    ("pv_ba_start", "BA Start", "size", 0, _ba(0)),
    ("pv_ba_size", "BA Size", "size", 0, _ba(1)),
    ("pv_ext_vsn", "PExtVsn", "num", 0,
     lambda r: r.device.label.pv_header.extension_version
     if r.device and r.device.uuid and not r.copy else None),
    ("pv_in_use", "PInUse", "bin", 0,
     lambda r: "used" if r.pv or (r.device and r.device.in_use) else ""),
    ("pv_allocatable", "Allocatable", "bin", 0,
     lambda r: "allocatable" if r.pv is not None and r.pv.allocatable else ""),
    ("pv_missing", "Missing", "bin", 10,
     lambda r: "missing" if r.device is None or (r.pv is not None and r.pv.missing) else ""),
    ("pv_exported", "Exported", "bin", 10,
     lambda r: "exported" if r.vg is not None and "EXPORTED" in r.vg.status else ""),
    ("pv_major", "Maj", "str", 0, lambda r: _number(r, os.major)),
    ("pv_minor", "Min", "str", 0, lambda r: _number(r, os.minor)),
    ("pv_device_id", "DeviceID", "str", 0, lambda r: (r.pv.device_id if r.pv else None) or ""),
    ("pv_device_id_type", "DeviceIDType", "str", 0,
     lambda r: (r.pv.device_id_type if r.pv else None) or ""),
)  # fmt: skip

PV_SEGMENT_FIELDS: Table = (
    ("pvseg_start", "Start", "num", 0, lambda r: r.pv_segment[0] if r.pv_segment else 0),
    ("pvseg_size", "SSize", "num", 0, lambda r: r.pv_segment[1] if r.pv_segment else 0),
)
