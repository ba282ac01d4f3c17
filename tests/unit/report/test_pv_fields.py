"""Fields of PVs."""

from __future__ import annotations

from pathlib import Path

from tests.unit.vgstore.lab import Lab
from ulvm.report.pv_fields import PV_FIELDS
from ulvm.report.rows import Row


def test_a_disk_that_went_since_the_scan_has_the_numbers_of_a_missing_one(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    path = lab.pv("a")
    scan = lab.scan()
    numbers = [value for name, *_, value in PV_FIELDS if name in ("pv_major", "pv_minor")]
    row = Row(scan, device=scan.pv(path))
    assert [value(row) for value in numbers] == [-1, -1]
    Path(path).unlink()
    assert [value(row) for value in numbers] == [0, 0]
