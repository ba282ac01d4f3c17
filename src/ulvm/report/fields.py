"""All fields of lvs, vgs and pvs by name (lvmreport(7), columns.h of LVM2)."""

from __future__ import annotations

from ulvm.report.lv_fields import LV_FIELDS, SEGMENT_FIELDS
from ulvm.report.other_fields import OTHER_FIELDS
from ulvm.report.pv_fields import PV_FIELDS, PV_SEGMENT_FIELDS, VG_FIELDS
from ulvm.report.table import Field, Value

__all__ = ["FIELDS", "PREFIXES", "Field", "Value"]

PREFIXES = ("lv_", "vg_", "pv_", "seg_")
"""May be left out in -o, -O and -S."""

FIELDS: dict[str, Field] = {
    name: Field(name, heading, kind, max(width, len(heading)), value, group)
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
