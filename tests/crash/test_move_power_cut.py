"""The power goes at every instant of a pvmove, with a snapshot on top and writes beside.

After each event a machine is started on what the disks may hold then: the origin shows every sector
old or new, and new where a flush had returned, the snapshot all of its past; the move, given again
or aborted, comes to an end at which the same holds.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash.test_lvm_power_cut import BLOCK, BLOCKS, NEW, OLD, STAGES, Play, blocks, origin_of
from tests.unit.lvm.lab import Lab
from ulvm.lvm import move, snapshot
from ulvm.metadata.model import StripedSegment
from ulvm.units import SECTOR

CHANGED = (1, 5, 20, 40, 63)


def moves(lab: Lab) -> list[move.Move]:
    return move.find_all(lab.session)


def to_the_end(lab: Lab) -> None:
    for each in moves(lab):
        move.resume(lab.session, each)
        assert move.poll(lab.session, [each], interval=0)


@pytest.mark.parametrize(("atomic", "stage"), [(False, STAGES[0]), (True, STAGES[1])])
def test_a_move_with_a_snapshot_and_writes(tmp_path: Path, atomic: bool, stage: int) -> None:
    play = Play(tmp_path, stage)
    session = play.lab.session
    snapshot.create(session, "vg", "o", "s", extents=4)
    play.lab.write("o", 0, NEW)
    source = str(tmp_path / "a")
    play.record()
    begun = move.start(session, "vg", source, atomic=atomic)
    assert begun is not None
    play.mark("begun")
    play.change(CHANGED)
    play.mark("changed")
    assert move.poll(session, [begun], interval=0)
    play.mark("finished")
    play.lab.write("o", 7 * BLOCK, NEW)
    play.mark("after")
    choose = random.Random(3)
    seen = set()

    def content(lab: Lab, time: int) -> None:
        assert lab.read("s", 0, BLOCK * BLOCKS) == OLD * BLOCKS, time
        for number, found in enumerate(origin_of(lab)):
            allowed = {NEW} if number == 0 else {OLD}
            if number in CHANGED or number == 7:
                known = "after" if number == 7 else "changed"
                allowed = {NEW} if play.past(known, time) else {OLD, NEW}
            for at in range(0, BLOCK, SECTOR):
                assert found[at : at + SECTOR] in {a[:SECTOR] for a in allowed}, (time, number)

    def check(lab: Lab, time: int) -> None:
        vg = lab.vg
        origin = vg.lv("o")
        assert origin is not None
        on = {
            area.pv_uuid
            for segment in origin.segments
            if isinstance(segment, StripedSegment)
            for area in segment.areas
        }
        there = vg.pvmoves()
        state = "moving" if there else "done" if vg.pvs[0].uuid not in on else "before"
        seen.add(state)
        assert not (play.past("begun", time) and state == "before")
        assert not (play.past("finished", time) and state != "done")
        content(lab, time)
        if there and choose.random() < 0.5:
            to_the_end(lab)
            assert not lab.vg.allocated(vg.pvs[0].uuid)
        elif there:
            assert move.abort(lab.session, moves(lab)[0])
        assert not lab.vg.pvmoves()
        content(lab, time)
        lab.write("o", 9 * BLOCK, NEW)
        assert blocks(lab.read("o", 0, BLOCK * BLOCKS))[9] == NEW
        assert lab.read("s", 0, BLOCK * BLOCKS) == OLD * BLOCKS

    assert play.every_instant(check) > 60
    assert seen == {"before", "moving", "done"}
    play.lab.mapper.shutdown()
