"""What the random lives of tests/crash found, in few steps."""

from __future__ import annotations

import time
from pathlib import Path

from tests.unit.dm.lab import Lab
from ulvm.blockdev.base import BlockDevice, Buffer
from ulvm.blockdev.file import FileDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table


def test_the_last_snapshot_goes_while_its_origin_is_suspended(lab: Lab) -> None:
    """The origin's live table and the next snapshot have to share one list of snapshots."""
    origin, cow = lab.file("origin", 64), lab.file("cow", 64)
    lab.fill_pattern(origin, 64)
    lab.device("org", f"0 64 snapshot-origin {origin}")
    lab.device("first", f"0 64 snapshot {origin} {cow} P 8")
    lab.dm.suspend("org")
    lab.dm.remove("first")
    lab.dm.resume("org")
    before = lab.read("org", 0, 64)
    lab.device("second", f"0 64 snapshot {origin} {lab.file('other', 64)} P 8")
    lab.write("org", 0, 16)
    assert lab.read("second", 0, 64) == before


class Slow(FileDevice):
    """A disk on which a merge takes its time."""

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        time.sleep(0.002)
        super().write(offset, data, fua=fua)


def test_a_shutdown_stops_a_merge_before_the_snapshots_that_it_fills(tmp_path: Path) -> None:
    origin = tmp_path / "origin"

    def opener(path: str, writable: bool) -> BlockDevice:
        return Slow(path, writable=writable) if path == str(origin) else FileDevice(path)

    lab = Lab(tmp_path)
    lab.dm = LocalMapper(open_file=opener)
    path = lab.file("origin", 1024)
    line = f"0 1024 snapshot {path}"
    lab.device("org", f"0 1024 snapshot-origin {path}")
    merging, other = lab.file("cow", 4096), lab.file("other", 4096)
    lab.device("merging", f"{line} {merging} P 1")
    for sector in reversed(range(1024)):  # in one piece it would be merged at once
        lab.write("merging", sector, 1)
    before = lab.read("org", 0, 1024)
    lab.device("other", f"{line} {other} P 1")
    lab.dm.load("org", parse_table(f"0 1024 snapshot-merge {path} {merging} P 1"))
    lab.dm.suspend("org")
    lab.dm.suspend("merging")
    lab.dm.resume("org")
    assert lab.dm.shutdown() == []

    lab.dm = LocalMapper()
    lab.device("other", f"{line} {other} P 1")
    lab.device("org", f"0 1024 snapshot {path} {merging} P 1")
    assert lab.status("org") != "32/4096 32", "the merge was over before the shutdown"
    assert lab.read("other", 0, 1024) == before
