"""What was answered and cannot be written does not go with its table, nor with its device."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.dm.stage_lab import SECTORS, StageLab, killed
from tests.waiting import until
from ulvm.dm.commit import settle
from ulvm.dm.cow import CowSnapshot
from ulvm.dm.stage import Stage
from ulvm.dm.table import parse_table
from ulvm.dm.targets.origin import OriginTarget
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.errors import BusyError, DeviceError, TableError

NEW = b"\x11" * 4096


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[StageLab]:
    """A write to the origin was answered, and the file below has no room for it."""
    lab = StageLab.staged(tmp_path)
    lab.faults["origin"].fail("write", error=errno.ENOSPC)
    yield lab
    lab.faults["origin"].clear()
    lab.dm.shutdown()


def others(lab: StageLab) -> list[str]:
    """Tables that know nothing of what is staged for `org`."""
    origin = lab.folder / "origin"
    return [
        f"0 {SECTORS} linear {origin} 0",
        f"0 {SECTORS} error",
        f"0 {SECTORS} snapshot-origin {lab.file('other', SECTORS)}",
        f"0 {SECTORS} snapshot-merge {origin} {lab.folder / 'cow'} P 8",
    ]


@pytest.mark.parametrize("kind", range(4))
def test_an_origin_keeps_its_table_until_all_is_written(stuck: StageLab, kind: int) -> None:
    table = others(stuck)[kind]
    stuck.dm.suspend("snap")
    with pytest.raises(TableError, match="keeps its table") as refused:
        stuck.reload("org", table)
    assert refused.value.errno == errno.ENOSPC
    info = stuck.dm.info("org")
    assert (info.suspended, info.live_table, info.inactive_table) == (True, True, False)
    assert stuck.dm.table("org")[0].target_type == "snapshot-origin"
    assert not any("lost" in line for line in stuck.messages)
    stuck.faults["origin"].clear()
    stuck.reload("org", table)
    assert stuck.on_disk(0, 8) == NEW or "merge" in table


@pytest.mark.parametrize(("table", "unwritten"), [(0, True), (1, True), (2, True), (None, False)])
def test_a_suspend_tells_what_waits_still(
    stuck: StageLab, table: int | None, unwritten: bool
) -> None:
    assert not stuck.dm.info("org").unwritten
    assert stuck.dm.suspend("org").unwritten
    line = f"0 {SECTORS} snapshot-origin {stuck.folder / 'origin'}"
    line = line if table is None else others(stuck)[table]
    assert stuck.dm.load("org", parse_table(line)).unwritten is unwritten
    assert stuck.dm.clear("org").unwritten
    stuck.faults["origin"].clear()
    stuck.dm.resume("org")
    assert not stuck.dm.suspend("org").unwritten
    stuck.dm.resume("org")


def test_an_origin_that_kept_its_table_goes_on(stuck: StageLab) -> None:
    with pytest.raises(TableError):
        stuck.reload("org", others(stuck)[0])
    stuck.dm.resume("org")
    assert stuck.read("org", 0, 8) == NEW
    with pytest.raises(DeviceError):
        stuck.dm.mapped("org").flush()
    stuck.put(8, 8, 0x11)
    stuck.faults["origin"].clear()
    stuck.dm.mapped("org").flush()
    assert stuck.on_disk(0, 16) == NEW * 2


def test_what_an_origin_kept_outlives_a_kill(stuck: StageLab, tmp_path: Path) -> None:
    with pytest.raises(TableError):
        stuck.reload("org", others(stuck)[0])
    again = killed(stuck, tmp_path / "second")
    again.dm.resume("org")
    assert again.read("org", 0, 8) == NEW
    again.dm.shutdown()
    assert again.on_disk(0, 8) == NEW


def test_a_table_that_takes_it_up_is_let_in(stuck: StageLab) -> None:
    stuck.reload("org", f"0 {SECTORS} snapshot-origin {stuck.folder / 'origin'}")
    assert stuck.read("org", 0, 8) == NEW
    stuck.faults["origin"].clear()
    stuck.dm.mapped("org").flush()
    assert stuck.on_disk(0, 8) == NEW


def test_an_origin_is_not_removed_until_all_is_written(stuck: StageLab) -> None:
    stuck.faults["origin"].clear()
    stuck.faults["origin"].fail("write", error=errno.EIO)
    before = stuck.dm.snapshot_state()
    with pytest.raises(DeviceError, match="not removed"):
        stuck.dm.remove("org")
    assert stuck.dm.snapshot_state() == before
    handle = stuck.dm.mapped("org").open(write=True)
    assert handle.read(0, 4096) == NEW
    handle.write(4096, NEW)
    with pytest.raises(BusyError):
        stuck.dm.remove("org")
    handle.close()
    stuck.faults["origin"].clear()
    stuck.dm.remove("org")
    assert stuck.on_disk(0, 16) == NEW * 2


def test_by_force_it_is_lost_and_that_is_said(stuck: StageLab) -> None:
    stuck.dm.remove("org", force=True)
    assert any("are lost" in line for line in stuck.messages)
    assert [info.name for info in stuck.dm.devices()] == ["snap"]


def test_what_is_written_at_the_last_moment_is_no_less(
    stuck: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, written to and closed between the look and the claim."""
    stuck.faults["origin"].clear()
    org = stuck.dm.mapped("org")

    def write() -> bool:
        stuck.put(8, 8, 0x11)
        return claim()

    claim = org.claim_removal
    monkeypatch.setattr(org, "claim_removal", write)
    with pytest.raises(BusyError):
        stuck.dm.remove("org")
    assert stuck.read("org", 0, 16) == NEW * 2


@pytest.mark.timeout(20)
def test_nobody_waits_below_for_a_device_that_is_suspended(tmp_path: Path) -> None:
    """Who suspended it may be about to resume it next."""
    lab = StageLab(tmp_path)
    origin, cow = lab.file("origin", SECTORS), lab.file("cow", 20_000)
    lab.device("real", f"0 {SECTORS} linear {origin} 0")
    lab.device("snap", f"0 {SECTORS} snapshot 253:0 {cow} P 8")
    lab.device("org", f"0 {SECTORS} snapshot-origin 253:0")
    lab.still()
    lab.put(0, 8, 0x11)
    lab.faults["origin"].fail("write")
    lab.dm.suspend("org")
    lab.dm.suspend("real")
    lab.faults["origin"].clear()
    with pytest.raises(TableError, match="is suspended"):
        lab.reload("org", f"0 {SECTORS} linear 253:0 0")
    with pytest.raises(DeviceError, match="is suspended"):
        lab.dm.remove("org")
    lab.dm.resume("real")
    lab.reload("org", f"0 {SECTORS} linear 253:0 0")
    assert lab.on_disk(0, 8) == NEW
    lab.dm.shutdown()


def test_a_shutdown_leaves_it_to_the_next_process(stuck: StageLab, tmp_path: Path) -> None:
    failures = stuck.dm.shutdown()
    assert any("last flush failed" in line for line in failures)
    assert failures[-1] == "org: what was written waits for the devices below"
    again = killed(stuck, tmp_path / "again")
    assert again.read("org", 0, 8) == NEW
    again.dm.mapped("org").flush()
    assert again.on_disk(0, 8) == NEW
    again.dm.shutdown()


@pytest.mark.parametrize("step", ["presuspend", "postsuspend"])
def test_a_suspend_that_fails_can_be_resumed(
    stuck: StageLab, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gate is closed by then, or file systems are frozen."""

    def fail(_: object) -> None:
        raise MemoryError

    stuck.faults["origin"].clear()
    with monkeypatch.context() as once:
        once.setattr(OriginTarget, step, fail)
        with pytest.raises(MemoryError):
            stuck.dm.suspend("org")
    assert stuck.dm.info("org").suspended
    stuck.dm.resume("org")
    assert stuck.read("org", 0, 8) == NEW


def test_want_of_memory_keeps_nothing_from_being_suspended(
    stuck: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    stuck.faults["origin"].clear()
    with monkeypatch.context() as once:
        once.setattr(Stage, "commit", fail)
        stuck.dm.suspend("org")
        stuck.dm.suspend("snap")
    stuck.dm.resume("snap")
    stuck.dm.resume("org")
    assert stuck.read("org", 0, 8) == NEW


# -- the stage of a snapshot -------------------------------------------------------------------


@pytest.fixture
def held(tmp_path: Path) -> Iterator[StageLab]:
    """A write to the snapshot was answered, its chunk has an exception, and the COW is full."""
    (tmp_path / "first").mkdir()
    lab = StageLab(tmp_path / "first", kept=True)
    lab.pair()
    lab.still("snap")
    lab.dm.mapped("snap").write(0, NEW)
    settle([snapshot(lab).commit])
    lab.faults["cow"].fail("write")
    yield lab
    lab.faults["cow"].clear()
    lab.dm.shutdown()


def snapshot(lab: StageLab) -> CowSnapshot:
    target = lab.dm.mapped("snap").targets[0]
    assert isinstance(target, SnapshotTarget)
    return target.snapshot


def over(lab: StageLab, kind: str, sectors: int = SECTORS) -> str:
    return f"0 {sectors} {kind} {lab.folder / 'origin'} {lab.folder / 'cow'} P 8"


def test_a_snapshot_keeps_its_table_until_all_is_written(held: StageLab) -> None:
    """The next one has no stage, as its last page is not whole."""
    table = over(held, "snapshot", SECTORS - 1)
    with pytest.raises(TableError, match="keeps its table"):
        held.reload("snap", table)
    held.dm.resume("snap")
    assert held.read("snap", 0, 8) == NEW
    with pytest.raises(DeviceError):
        held.dm.mapped("snap").flush()
    held.faults["cow"].clear()
    held.reload("snap", table)
    assert held.read("snap", 0, 8) == NEW
    assert not any("lost" in line or "Cancelling" in line for line in held.messages)


def test_a_table_that_has_the_stage_is_let_in(held: StageLab) -> None:
    held.reload("snap", over(held, "snapshot"))
    assert held.read("snap", 0, 8) == NEW
    held.faults["cow"].clear()
    held.dm.mapped("snap").flush()


@pytest.mark.parametrize("table", ["snapshot-merge", "error"])
def test_no_other_table_comes_before_it_is_written(held: StageLab, table: str) -> None:
    held.dm.suspend("org")
    line = over(held, table) if "merge" in table else f"0 {SECTORS} {table}"
    with pytest.raises(TableError, match="keeps its table"):
        held.reload("snap", line)
    assert held.dm.table("snap")[0].target_type == "snapshot"
    held.faults["cow"].clear()
    held.reload("snap", line)
    if "merge" in table:
        until(lambda: held.on_disk(0, 8) == NEW)


def test_a_snapshot_is_not_removed_until_all_is_written(held: StageLab) -> None:
    with pytest.raises(DeviceError, match="not removed"):
        held.dm.remove("snap")
    assert held.read("snap", 0, 8) == NEW
    held.faults["cow"].clear()
    held.dm.remove("snap")
    held.snapshot()
    assert held.read("snap", 0, 8) == NEW


@pytest.mark.parametrize("force", [False, True])
def test_what_nobody_can_read_holds_nothing_up(held: StageLab, force: bool) -> None:
    snapshot(held).invalidate("as a test does it")
    held.reload("snap", over(held, "snapshot", SECTORS - 1))
    assert held.status("snap") == "Invalid"
    held.dm.remove("snap", force=force)


def test_a_source_on_another_device_keeps_it(held: StageLab) -> None:
    """The destination is refused when it is live already: the source stays whole."""
    held.dm.suspend("org")
    held.dm.load("org", parse_table(over(held, "snapshot-merge")))
    held.dm.suspend("snap")
    with pytest.raises(TableError, match="cannot go on"):
        held.dm.resume("org")
    held.faults["cow"].clear()
    held.dm.resume("org")
    until(lambda: held.on_disk(0, 8) == NEW)


@pytest.mark.parametrize("name", ["org", "above"])
def test_without_barriers_a_flush_is_told_of_what_was_refused(tmp_path: Path, name: str) -> None:
    """Once that is known, until it is written; `above` is a device over the origin."""
    lab = StageLab(tmp_path, durability="process")
    lab.pair()
    lab.device("above", f"0 {SECTORS} linear org 0")
    lab.still()
    above = lab.dm.mapped(name)
    lab.faults["origin"].fail("write", error=errno.ENOSPC)
    above.write(0, NEW)
    above.flush()
    with pytest.raises(DeviceError):
        lab.stage("org").commit()
    for _ in range(2):
        with pytest.raises(DeviceError) as refused:
            above.flush()
        assert refused.value.errno == errno.ENOSPC
    lab.faults["origin"].clear()
    above.flush()
    assert lab.on_disk(0, 8) == NEW
    lab.put(16, 8, 0x22)
    above.flush()
    assert lab.on_disk(16, 8) != b"\x22" * 4096, "nobody waits for that"
    lab.dm.shutdown()


def test_without_barriers_a_flush_is_told_of_what_a_snapshot_lost(tmp_path: Path) -> None:
    lab = StageLab(tmp_path, durability="process")
    lab.pair()
    lab.still("snap")
    snap = lab.dm.mapped("snap")
    lab.faults["cow"].fail("write")
    snap.write(0, NEW)
    snap.flush()
    lab.stage("snap").commit()
    with pytest.raises(DeviceError, match="lost"):
        snap.flush()
    lab.dm.shutdown()
