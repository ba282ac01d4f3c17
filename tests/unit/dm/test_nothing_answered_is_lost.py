"""What was answered, or belongs to a snapshot, outlasts errors, and what is changed beside it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.unit.dm.lab import header, store_records
from tests.unit.dm.stage_lab import SECTORS, StageLab, killed
from tests.waiting import ended, until
from ulvm.blockdev.base import Changed
from ulvm.dm import commit, mapper
from ulvm.dm.cow import CowSnapshot
from ulvm.dm.exceptions.map import ExceptionMap
from ulvm.dm.origins import Origin
from ulvm.dm.stage import Stage
from ulvm.dm.table import parse_table
from ulvm.dm.targets.merge import MergeTarget
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.errors import DeviceError

PAGE = b"\xaa" * 4096


@pytest.fixture
def lab(tmp_path: Path) -> StageLab:
    lab = StageLab(tmp_path)
    lab.pair()
    lab.still()
    return lab


def snapshot(lab: StageLab, name: str = "snap") -> CowSnapshot:
    target = lab.dm.mapped(name).targets[0]
    assert isinstance(target, SnapshotTarget)
    return target.snapshot


@pytest.mark.parametrize("where", ["_settle", "_write_out", "write_each", "_let_go"])
def test_a_commit_that_fails_for_any_reason_keeps_its_pages(
    lab: StageLab, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    lab.put(0, 8, 0xAA)
    stage = lab.stage("org")
    device = stage._device

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as once:
        once.setattr(device if where == "write_each" else stage, where, fail)
        with pytest.raises(MemoryError):
            stage.commit()
    assert lab.read("org", 0, 8) == PAGE
    lab.put(64, 8, 0xBB)
    lab.dm.mapped("org").flush()
    assert lab.on_disk(0, 8) == lab.read("org", 0, 8) == PAGE
    assert lab.on_disk(64, 8) == b"\xbb" * 4096
    assert not stage.holds
    assert not stage._numbers.any()


def refuse(lab: StageLab, name: str) -> None:
    """A write of less than a page, which is given its exception and then cannot read the rest."""
    lab.faults["origin"].fail_nth("read", 1)
    with pytest.raises(DeviceError):
        lab.dm.mapped(name).write(512, PAGE[:512])
    lab.faults["origin"].clear()


@pytest.mark.parametrize("name", ["org", "snap"])
def test_an_exception_that_was_given_in_vain_outlasts_a_longer_table(
    tmp_path: Path, name: str
) -> None:
    lab = StageLab(tmp_path)
    disk = lab.file("origin", 2 * SECTORS)
    lab.fill_pattern(disk, 2 * SECTORS)
    tables = {
        "real": f"0 {{}} linear {disk} 0",
        "snap": f"0 {{}} snapshot real {lab.file('cow', 20_000)} P 8",
        "org": "0 {} snapshot-origin real",
    }
    for device, table in tables.items():
        lab.device(device, table.format(SECTORS))
    before = lab.read("snap", 0, 8)
    refuse(lab, name)
    for device, table in reversed(tables.items()):
        lab.dm.load(device, parse_table(table.format(2 * SECTORS)))
        lab.dm.suspend(device)
    for device in tables:
        lab.dm.resume(device)
    lab.put(40, 8, 0xBB)
    lab.dm.mapped("org").flush()
    assert lab.read("snap", 0, 8) == before
    lab.dm.mapped("snap").write(0, PAGE)
    lab.dm.mapped("snap").flush()
    assert header(f"{tmp_path}/cow")[1] == 1
    lab.dm.shutdown()


@pytest.mark.parametrize("name", ["org", "snap"])
def test_an_exception_that_was_given_in_vain_is_merged(lab: StageLab, name: str) -> None:
    before = lab.read("snap", 0, SECTORS)
    refuse(lab, name)
    start_merge(lab)
    until(lambda: lab.status("org") == "16/20000 16")
    assert lab.read("org", 0, SECTORS) == before
    lab.dm.shutdown()


def start_merge(lab: StageLab) -> None:
    table = f"0 {SECTORS} snapshot-merge {lab.folder}/origin {lab.folder}/cow P 8"
    lab.dm.load("org", parse_table(table))
    lab.dm.suspend("org")
    lab.dm.suspend("snap")
    lab.dm.resume("org")
    lab.dm.remove("snap")


@pytest.mark.parametrize("where", ["_copy_back", "_read"])
def test_a_merge_that_fails_for_want_of_memory_says_so_and_goes_on(
    lab: StageLab, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before = lab.read("snap", 0, SECTORS)
    lab.put(0, 8, 0xAA)

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as once:
        once.setattr(MergeTarget, where, fail)
        start_merge(lab)
        until(lambda: lab.status("org") == "Merge failed")
    assert lab.read("org", 0, SECTORS) == before
    lab.dm.suspend("org")
    lab.dm.resume("org")
    until(lambda: not store_records(f"{lab.folder}/cow", 8))
    assert lab.read("org", 0, SECTORS) == before
    lab.dm.shutdown()


@pytest.mark.parametrize("again", [False, True], ids=["killed", "goes on"])
@pytest.mark.parametrize("nth", [1, 2])
def test_what_is_written_to_a_merge_that_failed_outlasts_it(
    tmp_path: Path, nth: int, again: bool
) -> None:
    """The flush around cleared records fails: they may be cleared, or not."""
    lab = StageLab.staged(tmp_path)
    lab.dm.mapped("org").flush()
    lab.faults["cow"].fail_nth("flush", nth)
    start_merge(lab)
    until(lambda: lab.status("org") == "Merge failed")
    lab.put(0, 8, 0xAA)
    if again:
        lab.dm.suspend("org")
        lab.dm.resume("org")
        until(lambda: not store_records(f"{lab.folder}/cow", 8))
        assert lab.read("org", 0, 8) == PAGE
    after = killed(lab, tmp_path / "after")
    assert after.read("org", 0, 8) == PAGE
    until(lambda: not store_records(f"{after.folder}/cow", 8))
    assert after.read("org", 0, 8) == after.on_disk(0, 8) == PAGE
    for each in (after, lab):
        each.dm.shutdown()


def test_what_is_written_to_a_merged_chunk_that_stays_in_the_map_gets_to_the_origin(
    lab: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.put(0, 8, 0x11)
    lab.put(64, 8, 0x11)

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as once:
        once.setattr(ExceptionMap, "remove", fail)
        start_merge(lab)
        until(lambda: lab.status("org") == "Merge failed")
    lab.put(0, 8, 0xAA)
    assert lab.read("org", 0, 8) == lab.on_disk(0, 8) == PAGE
    lab.dm.suspend("org")
    lab.dm.resume("org")
    lab.dm.shutdown()


def test_a_resume_that_fails_at_its_end_can_be_made_again(
    lab: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = lab.dm.mapped("org")

    def fail(*_: object) -> None:
        raise MemoryError

    lab.dm.suspend("org")
    with monkeypatch.context() as once:
        once.setattr(org, "unpause", fail)
        with pytest.raises(MemoryError):
            lab.dm.resume("org")
    lab.dm.resume("org")
    lab.put(0, 8, 0xAA)
    assert lab.read("org", 0, 8) == PAGE


class Freezer:
    """What is frozen, by name; it stands for what it gives."""

    frozen_places = synced_places = ()

    def __init__(self) -> None:
        self.frozen: list[str] = []

    def freeze(self, name: str) -> Freezer:
        self.frozen.append(name)
        return self

    def thaw(self, token: object) -> None:
        self.frozen.pop()


def test_a_suspend_that_fails_leaves_nothing_frozen_that_no_resume_thaws(
    lab: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    lab.dm.freezer = freezer = Freezer()
    with monkeypatch.context() as once:
        once.setattr(mapper, "users_of", fail)
        with pytest.raises(MemoryError):
            lab.dm.suspend("org")
    assert not lab.dm.info("org").suspended
    assert freezer.frozen == []
    lab.dm.suspend("org")
    assert freezer.frozen == ["org"]
    lab.dm.resume("org")
    assert freezer.frozen == []


def test_an_origin_goes_on_when_a_snapshot_cannot_join_for_want_of_memory(
    lab: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = lab.dm.mapped("org")
    pause = org.pause

    def fail(*_: object) -> bool:
        pause()
        raise MemoryError

    lab.dm.suspend("snap")
    with monkeypatch.context() as once:
        once.setattr(org, "pause", fail)
        with pytest.raises(MemoryError):
            lab.dm.resume("snap")
    assert not org._closed
    lab.dm.resume("snap")
    lab.put(0, 8, 0xAA)
    org.flush()
    assert lab.on_disk(0, 8) == PAGE
    lab.dm.shutdown()


def test_who_takes_over_a_snapshot_that_is_turning_invalid_knows_of_it(tmp_path: Path) -> None:
    """A merge cannot give it its copy, and it is given a new table at that moment."""
    lab = StageLab(tmp_path, size=0)
    lab.pair()
    table = f"0 {SECTORS} snapshot {tmp_path}/origin {lab.file('cow2', 20_000)} P 8"
    lab.put(0, 8, 0xAA)
    lab.device("snap2", table)
    old = snapshot(lab, "snap2")
    turning, goes_on = threading.Event(), threading.Event()
    real = old.commit_failed

    def slowly(error: Exception) -> None:
        turning.set()
        assert goes_on.wait(10)
        real(error)

    old.commit_failed = slowly  # type: ignore[method-assign]
    lab.faults["cow2"].fail_nth("write", 1)
    merging = threading.Thread(target=start_merge, args=(lab,))
    merging.start()
    assert turning.wait(10)
    lab.dm.suspend("snap2")
    lab.dm.load("snap2", parse_table(table))
    resumed = threading.Thread(target=lab.dm.resume, args=("snap2",))
    resumed.start()
    resumed.join(0.2)
    goes_on.set()
    resumed.join()
    merging.join()
    until(lambda: lab.status("org") == "16/20000 16")
    assert lab.status("snap2") == "Invalid"
    assert header(f"{tmp_path}/cow2")[1] == 0
    lab.dm.shutdown()


def test_a_snapshot_that_takes_over_waits_for_one_that_turns_invalid(
    lab: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On disk already, and not yet in memory."""
    old = snapshot(lab)
    turning, goes_on = threading.Event(), threading.Event()
    real = old.store.mark_invalid

    def slowly() -> None:
        turning.set()
        assert goes_on.wait(10)
        real()

    monkeypatch.setattr(old.store, "mark_invalid", slowly)
    invalid = threading.Thread(target=old.invalidate, args=("it is a test",))
    invalid.start()
    assert turning.wait(10)
    lab.dm.suspend("snap")
    table = f"0 {SECTORS} snapshot {lab.folder}/origin {lab.folder}/cow P 8"
    lab.dm.load("snap", parse_table(table))
    resumed = threading.Thread(target=lab.dm.resume, args=("snap",))
    resumed.start()
    resumed.join(0.2)
    goes_on.set()
    resumed.join()
    invalid.join()
    assert lab.status("snap") == "Invalid"
    lab.dm.shutdown()


def test_a_snapshot_that_comes_in_the_midst_of_a_merge_does_not_change(lab: StageLab) -> None:
    """A batch that is about to be written was not copied out to it (kernel: stop_merge)."""
    lab.put(0, 8, 0xAA)
    entered, goes_on = threading.Event(), threading.Event()

    def look() -> None:
        if threading.current_thread().name.startswith("merge"):
            entered.set()
            assert goes_on.wait(10)

    lab.dm.mapped("org").flush()
    lab.faults["origin"].look = look  # type: ignore[method-assign]
    start_merge(lab)
    assert entered.wait(10)
    table = f"0 {SECTORS} snapshot {lab.folder}/origin {lab.file('cow2', 20_000)} P 8"
    coming = threading.Thread(target=lab.device, args=("snap2", table))
    coming.start()
    coming.join(0.2)
    early = not coming.is_alive()
    first = lab.read("snap2", 0, 8) if early else b""
    goes_on.set()
    coming.join()
    first = first or lab.read("snap2", 0, 8)
    until(lambda: lab.status("org") == "16/20000 16")
    assert lab.read("snap2", 0, 8) == first
    lab.dm.shutdown()


@pytest.mark.parametrize("again", [False, True], ids=["once", "and again"])
def test_want_of_memory_in_a_commit_makes_no_snapshot_wrong(
    lab: StageLab, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """`again`: when its header is to be marked as well."""
    lab.put(0, 8, 0xAA)
    assert lab.status("snap") == "24/20000 16"

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as once:
        once.setattr(commit, "_table", fail)
        if again:
            once.setattr(snapshot(lab).store, "mark_invalid", fail)
        lab.dm.mapped("org").flush()
    assert lab.on_disk(0, 8) == PAGE
    assert lab.status("snap") == "Invalid"
    with pytest.raises(DeviceError):
        lab.read("snap", 0, 8)


def test_writes_are_no_more_copied_to_an_invalid_snapshot_whatever_its_event_meets(
    lab: StageLab,
) -> None:
    def fail() -> None:
        raise MemoryError

    lab.dm.on_change.append(fail)
    with pytest.raises(MemoryError):
        snapshot(lab).invalidate("it is a test")
    lab.dm.on_change.clear()
    lab.put(0, 8, 0xAA)
    lab.dm.mapped("org").flush()
    assert lab.on_disk(0, 8) == PAGE


def test_nor_where_no_memory_is_left_to_leave_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    lab = StageLab(tmp_path, size=0)
    lab.pair()
    lab.faults["cow"].fail("write")
    with monkeypatch.context() as once:
        once.setattr(Origin, "update", fail)
        with pytest.raises(MemoryError):
            lab.put(0, 8, 0xAA)
    ended(lambda: lab.put(0, 8, 0xAA), seconds=10)
    assert lab.on_disk(0, 8) == PAGE
    lab.dm.shutdown()


def test_no_write_overtakes_the_news_that_a_snapshot_is_invalid(tmp_path: Path) -> None:
    """A kill before that would bring the snapshot back as it was, if its disk took no mark."""
    lab = StageLab(tmp_path, size=0)
    lab.pair()
    before, found = lab.on_disk(64, 8), []
    beside = threading.Thread(target=lab.put, args=(64, 8, 0xBB))

    def look() -> None:
        if not beside.ident:
            beside.start()
            beside.join(0.3)
            found.append(lab.on_disk(64, 8))

    lab.faults["cow"].fail("write")
    lab.dm.on_change.append(look)
    lab.put(0, 8, 0xAA)
    beside.join()
    assert found == [before]
    assert lab.on_disk(64, 8) == b"\xbb" * 4096
    lab.dm.shutdown()


def test_the_mark_that_a_snapshot_is_invalid_is_written_later_if_it_could_not_be(
    lab: StageLab,
) -> None:
    lab.faults["cow"].fail("write")
    lab.put(0, 8, 0xAA)
    lab.dm.mapped("org").flush()
    assert lab.status("snap") == "Invalid"
    assert header(f"{lab.folder}/cow")[1] == 1
    lab.faults["cow"].clear()
    table = f"0 {SECTORS} snapshot {lab.folder}/origin {lab.folder}/cow P 8"
    lab.dm.load("snap", parse_table(table))
    lab.dm.resume("snap")
    lab.dm.shutdown()
    assert header(f"{lab.folder}/cow")[1] == 0


@pytest.mark.parametrize("when", ["flush", "suspend", "resume", "kill"])
@pytest.mark.parametrize("name", ["org", "snap"])
def test_and_as_soon_as_somebody_asks(tmp_path: Path, when: str, name: str) -> None:
    """Power may go before it is taken down, and its origin has changed without copies. Nobody may
    have anything to ask of a snapshot that is invalid."""
    lab = StageLab.staged(tmp_path)
    lab.faults["cow"].fail("write")
    lab.dm.mapped("org").flush()
    if when == "resume":
        lab.dm.suspend(name)
    lab.faults["cow"].clear()
    assert header(f"{lab.folder}/cow")[1] == 1
    if when == "flush":
        lab.dm.mapped(name).flush()
    elif when == "kill":
        again = killed(lab, tmp_path / "again")
        assert header(f"{again.folder}/cow")[1] == 0
        again.dm.shutdown()
    else:
        getattr(lab.dm, when)(name)
    assert header(f"{lab.folder}/cow")[1] == (when == "kill")
    assert lab.status("snap") == "Invalid"
    lab.dm.shutdown()


def test_by_the_merge_of_another_snapshot_too(tmp_path: Path) -> None:
    lab = StageLab.staged(tmp_path)
    other = f"0 {SECTORS} snapshot-merge {lab.folder}/origin {lab.file('other', 20_000)} P 8"
    lab.faults["cow"].fail("write")
    lab.dm.mapped("org").flush()
    lab.reload("org", other)
    assert header(f"{lab.folder}/cow")[1] == 1
    lab.faults["cow"].clear()
    lab.dm.mapped("org").flush()
    assert header(f"{lab.folder}/cow")[1] == 0
    lab.dm.shutdown()


def test_why_it_could_not_be_is_said_once(lab: StageLab) -> None:
    lab.faults["cow"].fail("write")
    lab.put(0, 8, 0xAA)
    for _ in range(5):
        lab.dm.mapped("org").flush()
        lab.dm.mapped("snap").flush()
    assert sum("still looks valid" in line for line in lab.messages) == 1


def test_what_is_staged_for_the_origin_has_changed(lab: StageLab) -> None:
    lab.put(8, 8, 0xAA)
    runs = lab.dm.mapped("snap").changed(0, 3 * 4096)
    assert runs is not None
    assert list(runs) == [
        Changed(0, 4096, False),
        Changed(4096, 4096, True),
        Changed(8192, 4096, False),
    ]
    assert lab.on_disk(8, 8) != PAGE


def test_no_page_that_goes_on_behind_the_table_is_staged(tmp_path: Path) -> None:
    """What is behind is another device's."""
    lab = StageLab(tmp_path)
    disk = lab.file("disk", 4096)
    lab.device("snap", f"0 20 snapshot {disk} {lab.file('cow', 20_000)} P 8")
    lab.device("org", f"0 20 snapshot-origin {disk}")
    lab.device("other", f"0 100 linear {disk} 20")
    lab.put(16, 1, 0xAA)
    lab.dm.mapped("other").write(0, b"\xbb" * 512)
    for name in ("other", "org"):
        lab.dm.mapped(name).flush()
    assert lab.read("other", 0, 1) == b"\xbb" * 512
    assert lab.read("org", 16, 1) == PAGE[:512]
    lab.dm.shutdown()


def test_a_page_that_a_snapshot_drops_is_said_to_be_lost(lab: StageLab) -> None:
    """It turns invalid when the exceptions of the page are there."""
    lab.still("snap")
    lab.dm.mapped("snap").write(512, PAGE[:512])
    own = snapshot(lab).stage
    assert own is not None
    below = own.stage._device
    real = below.write_each

    def turned(pieces: object) -> None:
        snapshot(lab).invalidate("it is a test")
        real(pieces)  # type: ignore[arg-type]

    below.write_each = turned  # type: ignore[method-assign, assignment]
    with pytest.raises(DeviceError, match="lost"):
        lab.dm.mapped("snap").flush()
    assert isinstance(own.stage, Stage)
