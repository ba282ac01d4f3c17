"""Attribute letters and per cents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.activation.lab import Lab
from ulvm.activation.status import SnapshotStatus
from ulvm.report.attributes import lv_attr, percent, vg_attr


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (SnapshotStatus(16, 16384, 16), "0.00"),
        (SnapshotStatus(24, 16384, 16), "0.15"),
        (SnapshotStatus(8040, 16384, 40), "49.07"),
        (SnapshotStatus(510, 1600, 16), "31.88"),
        (SnapshotStatus(24, 1 << 30, 16), "0.01"),
        (SnapshotStatus(16383, 16384, 80), "99.99"),
        (SnapshotStatus(16384, 16384, 80), "100.00"),
        (SnapshotStatus(invalid=True), "100.00"),
        (SnapshotStatus(overflow=True), "100.00"),
        (SnapshotStatus(merge_failed=True), None),
    ],
)
def test_percent(status: SnapshotStatus, text: str | None) -> None:
    assert percent(status) == text


def test_letters_follow_the_devices(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.pv()
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 1)
    lab.linear("plain", 1)

    def letters() -> dict[str, str]:
        states = lab.activator.states(lab.vg)
        return {
            v.name: lv_attr(lab.vg, v, states.get(v.name))
            for v in lab.vg.lvs
            if v.snapshot_segment is None
        }

    assert letters() == {"base": "owi---s---", "s1": "swi---s---", "plain": "-wi-------"}
    lab.activator.activate(lab.vg, "base")
    lab.activator.activate(lab.vg, "plain")
    assert letters() == {"base": "owi-a-s---", "s1": "swi-a-s---", "plain": "-wi-a-----"}
    lab.dm.suspend("vg-plain")
    handle = lab.dm.mapped("vg-s1").open(write=False)
    assert letters() == {"base": "owi-a-s---", "s1": "swi-aos---", "plain": "-wi-s-----"}
    handle.close()
    lab.dm.resume("vg-plain")
    lab.write("base", 0, 1, sectors=200)  # more than the COW of 64 sectors holds
    assert letters()["s1"] == "swi-I-s---"
    lab.vg = lab.merging("s1")
    assert letters()["base"][0] + letters()["s1"][0] == "OS"
    plain = lab.vg.lv("plain")
    assert plain is not None
    lab.vg = lab.vg.with_lv(
        plain._replace(status=plain.status - {"WRITE"}, allocation_policy="contiguous")
    )
    assert letters()["plain"].startswith("-rc")
    assert vg_attr(lab.vg) == "wz--n-"
    gone = lab.vg._replace(missing_uuids=frozenset({lab.vg.pvs[0].uuid}))
    assert vg_attr(gone) == "wz-pn-"
    lab.dm.shutdown()
