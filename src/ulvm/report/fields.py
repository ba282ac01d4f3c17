"""All fields of lvs, vgs and pvs by name (lvmreport(7), columns.h of LVM2)."""

from __future__ import annotations

from ulvm.report.catalogue import VOLUMES
from ulvm.report.lv_fields import LV_FIELDS, SEGMENT_FIELDS
from ulvm.report.other_fields import OTHER_FIELDS
from ulvm.report.pv_fields import PV_FIELDS, PV_SEGMENT_FIELDS, VG_FIELDS
from ulvm.report.table import Field, Value
from ulvm.report.vocabulary import Vocabulary

__all__ = ["FIELDS", "VOLUME_FIELDS", "Field", "Value"]

_ENTRIES = [entry for section in VOLUMES for entry in section.entries]
_TYPES = {entry.name: entry.type for entry in _ENTRIES}

_FOUND = {
    name: Field(name, heading, kind, width or len(heading), value, group, _TYPES[name])
    for group, table in (
        ("lv", LV_FIELDS),
        ("seg", SEGMENT_FIELDS),
        ("vg", VG_FIELDS),
        ("pv", PV_FIELDS),
        ("pvseg", PV_SEGMENT_FIELDS),
        *OTHER_FIELDS.items(),
    )
    for name, heading, kind, width, value in table
}

FIELDS: dict[str, Field] = {entry.name: _FOUND[entry.name] for entry in _ENTRIES}
"""In LVM2's order."""

VOLUME_FIELDS = Vocabulary(
    VOLUMES,
    FIELDS,
    groups={f"{group}_all": (group,) for group in ("lv", "vg", "pv", "seg", "pvseg")},
)
"""What volumes, groups, devices and their segments are reported by."""
