"""The power goes at every instant of the life of a snapshot: made, written beside, merged.

Metadata and data lie on the same two disks, which remember every write and flush. After each event
a machine is started on what the disks may hold then: it scans, activates, and must show

* the origin: every sector old or new, and new where a flush had returned;
* the snapshot, if the metadata know it: all of the origin as it was when it was made;
* once the merge is in the metadata: the origin as the snapshot was, whatever had been copied.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.lvm.lab import KIB, Lab
from ulvm.blockdev.faults import PowerCut
from ulvm.lvm import lv, merge, snapshot
from ulvm.metadata.model import VolumeGroup
from ulvm.units import SECTOR

BLOCK = 4 * KIB
BLOCKS = 64
OLD, NEW = b"\x11" * BLOCK, b"\x22" * BLOCK
CHANGED = (0, 1, 2, 7, 33, 34, 63)
STAGES = (0, 1 << 20)
CHOICES = 2
"""Images per instant."""


@dataclass
class Play:
    """One machine on record. `instants`: from when on what was done is to hold."""

    folder: Path
    stage: int = 0
    """In bytes, of each device; with one only the last of several writes is flushed."""
    lab: Lab = field(init=False)
    records: dict[str, PowerCut] = field(default_factory=dict)
    instants: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lab = Lab(self.folder, stage=self.stage)
        lv.create(self.lab.session, "vg", "o", extents=4)
        self.lab.write("o", 0, OLD * BLOCKS)

    def change(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            flush = not self.stage or number == numbers[-1]
            self.lab.write("o", number * BLOCK, NEW, flush=flush)

    def record(self) -> None:
        self.records = {path: device.record() for path, device in self.lab.devices.items()}

    def mark(self, name: str) -> None:
        """From now on what was done is to hold."""
        times = [record.times[-1] for record in self.records.values() if record.times]
        self.instants[name] = max(times, default=-1)

    def times(self) -> list[int]:
        return sorted(time for record in self.records.values() for time in record.times)

    def after(self, time: int, choose: random.Random) -> Lab:
        images = {
            path: record.image_at(record.events_until(time), choose)
            for path, record in self.records.items()
        }
        return Lab(self.folder, images=images, stage=self.stage)

    def past(self, name: str, time: int) -> bool:
        return name in self.instants and time > self.instants[name]

    def every_instant(self, check: Callable[[Lab, int], None]) -> int:
        """Start a machine on what each instant may have left; how many instants there were."""
        choose = random.Random(1)
        times = self.times()
        for time in [*times, times[-1] + 1]:
            for _ in range(CHOICES):
                lab = self.after(time, choose)
                try:
                    lv.activate(lab.session, "vg", "o")
                    check(lab, time)
                finally:
                    lab.mapper.shutdown()
        return len(times)


def blocks(content: bytes) -> list[bytes]:
    return [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]


def origin_of(lab: Lab) -> list[bytes]:
    return blocks(lab.read("o", 0, BLOCK * BLOCKS))


def merging(vg: VolumeGroup) -> bool:
    return vg.merging_snapshot_of("o") is not None


@pytest.mark.parametrize("stage", STAGES)
def test_a_snapshot_is_made_and_its_origin_changes(tmp_path: Path, stage: int) -> None:
    play = Play(tmp_path, stage)
    # Where the new store will be lies an older one, with another past of the origin.
    play.lab.write("o", 40 * BLOCK, NEW * 4)
    snapshot.create(play.lab.session, "vg", "o", "older", extents=2)
    play.lab.write("o", 40 * BLOCK, OLD * 4)
    lv.remove(play.lab.session, "vg", "older")
    play.record()
    snapshot.create(play.lab.session, "vg", "o", "s", extents=2)
    play.mark("made")
    play.change(CHANGED)
    play.mark("changed")
    seen = set()

    def check(lab: Lab, time: int) -> None:
        vg = lab.vg
        there = vg.snapshot_of("s") is not None
        seen.add(there)
        assert there or not play.past("made", time)
        found = origin_of(lab)
        for number, content in enumerate(found):
            allowed = {OLD, NEW} if number in CHANGED else {OLD}
            if number in CHANGED and play.past("changed", time):
                allowed = {NEW}
            # A write that was under way may be torn, at a sector.
            for at in range(0, BLOCK, SECTOR):
                assert content[at : at + SECTOR] in {a[:SECTOR] for a in allowed}, (time, number)
        if there:
            assert lab.read("s", 0, BLOCK * BLOCKS) == OLD * BLOCKS, time
        else:
            assert found == [OLD] * BLOCKS, "the origin changed with no snapshot to keep the past"

    assert play.every_instant(check) > (30 if stage else 60)
    assert seen == {False, True}
    play.lab.mapper.shutdown()


@pytest.mark.parametrize(("others", "stage"), [(0, STAGES[0]), (1, STAGES[1])])
def test_a_merge_ends_as_the_snapshot_was(tmp_path: Path, others: int, stage: int) -> None:
    play = Play(tmp_path, stage)
    session = play.lab.session
    snapshot.create(session, "vg", "o", "s", extents=2)
    play.change(CHANGED)
    for number in range(others):
        snapshot.create(session, "vg", "o", f"other{number}", extents=4)
    now = origin_of(play.lab)
    play.record()
    assert merge.start(session, "vg", "s") == ("o", merge.Started.RUNNING)
    play.mark("begun")
    assert merge.poll(session, "vg", "o")
    play.mark("finished")
    seen = set()

    def check(lab: Lab, time: int) -> None:
        vg = lab.vg
        state = "merging" if merging(vg) else "kept" if vg.snapshot_of("s") else "gone"
        seen.add(state)
        assert not (play.past("begun", time) and state == "kept")
        assert not (play.past("finished", time) and state != "gone")
        if state == "kept":
            assert origin_of(lab) == now
            assert lab.read("s", 0, BLOCK * BLOCKS) == OLD * BLOCKS
        else:
            assert origin_of(lab) == [OLD] * BLOCKS, (state, time)
        if state == "merging":
            assert merge.poll(lab.session, "vg", "o")
            assert origin_of(lab) == [OLD] * BLOCKS
            assert lab.vg.snapshot_of("s") is None
        for number in range(others):
            assert blocks(lab.read(f"other{number}", 0, BLOCK * BLOCKS)) == now

    assert play.every_instant(check) > 40
    assert seen == {"kept", "merging", "gone"}
    play.lab.mapper.shutdown()
