"""What a killed process left staged for a snapshot that did not come back is not lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.dm.lab import header, make_store, runs
from tests.unit.dm.stage_lab import SECTORS, StageLab, Watched, killed
from tests.waiting import until
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.dm.stage import Stage
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError, TableError

NEW = b"\x11" * 4096


def back(
    state: dict[str, Any], old: Path, folder: Path, problems: int, kind: type[StageLab] = StageLab
) -> StageLab:
    """Another process, on what is in the folder `old`."""
    (folder / "stage").mkdir(parents=True)
    for file in [*old.iterdir(), *(old / "stage").iterdir()]:
        if file.is_file():
            (folder / file.relative_to(old)).write_bytes(file.read_bytes())
    for device in state["devices"]:
        for line in device.get("table", ()):
            line[3] = line[3].replace(str(old), str(folder))
        device["left_cows"] = {
            cow.replace(str(old), str(folder)): size for cow, size in device["left_cows"].items()
        }
    again = kind(folder, kept=True)
    assert len(again.dm.restore_state(state)) == problems
    again.dm.forget_stages()
    return again


@pytest.fixture
def away(tmp_path: Path) -> Iterator[StageLab]:
    """The daemon was killed twice with something staged for `snap`. Its COW was away the first
    time, and is there again."""
    (tmp_path / "first").mkdir()
    first = StageLab(tmp_path / "first", kept=True)
    first.pair()
    first.still("snap")
    first.dm.mapped("snap").write(4096, NEW)
    cow = (first.folder / "cow").read_bytes()
    (first.folder / "cow").unlink()
    second = back(first.dm.snapshot_state(), first.folder, tmp_path / "second", 2)
    third = back(second.dm.snapshot_state(), second.folder, tmp_path / "third", 0)
    (third.folder / "cow").write_bytes(cow)
    yield third
    for lab in (third, second, first):
        lab.dm.shutdown()


def over(lab: StageLab, kind: str) -> str:
    return f"0 {SECTORS} {kind} {lab.folder / 'origin'} {lab.folder / 'cow'} P 8"


def test_no_merge_comes_before_it(away: StageLab) -> None:
    with pytest.raises(TableError, match="before it is merged") as refused:
        away.reload("org", over(away, "snapshot-merge"))
    assert refused.value.errno == errno.EBUSY
    away.reload("snap", over(away, "snapshot"))
    assert away.read("snap", 8, 8) == NEW
    away.dm.load("org", parse_table(over(away, "snapshot-merge")))
    away.dm.suspend("snap")
    away.dm.resume("org")
    until(lambda: away.on_disk(8, 8) == NEW)


def test_a_disk_that_refuses_it_has_the_device_wait(away: StageLab) -> None:
    plain = f"0 {SECTORS} linear {away.file('plain', SECTORS)} 0"
    away.dm.load("snap", parse_table(plain))
    away.faults["plain"].fail("write", error=errno.ENOSPC)
    with pytest.raises(TableError, match="stays suspended") as refused:
        away.dm.resume("snap")
    assert refused.value.errno == errno.ENOSPC
    assert away.dm.info("snap").suspended
    assert not any("lost" in line for line in away.messages)
    away.faults["plain"].clear()
    away.dm.resume("snap")
    assert away.read("snap", 8, 8) == NEW
    assert not (away.stages / "0").exists()


def test_a_clean_stop_leaves_it_to_the_next_daemon(away: StageLab, tmp_path: Path) -> None:
    (problem,) = away.dm.shutdown()
    assert "waits for the devices below" in problem
    fourth = back(away.dm.snapshot_state(), away.folder, tmp_path / "fourth", 0)
    fourth.reload("snap", over(fourth, "snapshot"))
    assert fourth.read("snap", 8, 8) == NEW
    fourth.dm.shutdown()


@pytest.mark.parametrize("kind", ["snapshot", "linear"])
@pytest.mark.parametrize("where", ["left", "adopt"])
def test_want_of_memory_leaves_it_and_nothing_open(
    away: StageLab, monkeypatch: pytest.MonkeyPatch, kind: str, where: str
) -> None:
    plain = f"0 {SECTORS} linear {away.file('plain', SECTORS)} 0"

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as once:
        once.setattr(Stage, where, fail)
        with pytest.raises(MemoryError):
            away.reload("snap", plain if kind == "linear" else over(away, kind))
    links = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert away.stages / "0" not in links
    away.dm.resume("snap")
    assert away.read("snap", 8, 8) == NEW


def test_another_merge_is_let_in(away: StageLab) -> None:
    other, cow = away.file("other", SECTORS), away.file("cow2", 20_000)
    away.device("merge", f"0 {SECTORS} snapshot-merge {other} {cow} P 8")


def test_its_device_is_not_removed(away: StageLab) -> None:
    with pytest.raises(DeviceError, match="waits for its table"):
        away.dm.remove("snap")
    away.reload("snap", over(away, "snapshot"))
    away.dm.remove("snap")
    away.snapshot()
    assert away.read("snap", 8, 8) == NEW


def test_by_force_it_is_and_says_what_is_lost(away: StageLab) -> None:
    away.dm.remove("snap", force=True)
    assert "snap: 4096 bytes that were written to it are lost" in away.messages
    assert not (away.stages / "0").exists()
    away.reload("org", over(away, "snapshot-merge"))


def test_a_merge_leaves_what_is_behind_the_end_of_its_snapshot(tmp_path: Path) -> None:
    """The origin was extended, and got another snapshot; the daemon was killed twice before the
    COW of the short one was there again."""
    half = SECTORS // 2
    (tmp_path / "first").mkdir()
    first = StageLab(tmp_path / "first", kept=True)
    origin = first.file("origin", SECTORS)
    first.fill_pattern(origin, SECTORS)
    first.device("snap", f"0 {half} snapshot {origin} {first.file('cow', 20_000)} P 8")
    first.device("long", f"0 {SECTORS} snapshot {origin} {first.file('cow2', 20_000)} P 8")
    first.device("org", f"0 {SECTORS} snapshot-origin {origin}")
    before = first.read("org", 0, SECTORS)
    first.still()
    for sector in (0, half, SECTORS - 8):
        first.dm.mapped("org").write(sector * 512, NEW)
    cow = (first.folder / "cow").read_bytes()
    (first.folder / "cow").unlink()
    second = back(first.dm.snapshot_state(), first.folder, tmp_path / "second", 2)
    third = back(second.dm.snapshot_state(), second.folder, tmp_path / "third", 0)
    (third.folder / "cow").write_bytes(cow)
    third.reload("org", over(third, "snapshot-merge"))
    assert third.read("org", 0, half) == before[: half * 512]
    assert third.read("org", half, 8) == third.read("org", SECTORS - 8, 8) == NEW
    assert third.read("long", 0, SECTORS) == before
    for lab in (third, second, first):
        lab.dm.shutdown()


@pytest.mark.parametrize("spoilt", [None, "cow", [1], {"cow": "8"}])
def test_a_state_that_no_daemon_wrote(tmp_path: Path, spoilt: object) -> None:
    lab = StageLab(tmp_path)
    entry = {"name": "x", "uuid": "", "minor": 0, "read_only": False, "suspended": False}
    (problem,) = lab.dm.restore_state({"devices": [{**entry, "left_cows": spoilt}]})
    assert "left_cows is" in problem


class ReadOnlyLab(StageLab):
    """On disks that can only be read, as those of a file system that was mounted again so."""

    def _open(self, path: str, writable: bool) -> BlockDevice:
        if writable:
            raise DeviceError(f"{path} is on a read-only file system", errno=errno.EROFS)
        return Watched(FileDevice(path, writable=False))


class ReadOnlyOriginLab(StageLab):
    """The origin's disk alone can only be read."""

    def _open(self, path: str, writable: bool) -> BlockDevice:
        if writable and Path(path).name == "origin":
            raise DeviceError(f"{path} is on a read-only file system", errno=errno.EROFS)
        return super()._open(path, writable)


def came_read_only(
    folder: Path, name: str, kind: type[StageLab] = ReadOnlyLab
) -> tuple[StageLab, StageLab]:
    """What was written to `name` was staged when the first process was killed; the second one."""
    (folder / "first").mkdir()
    first = StageLab(folder / "first", kept=True)
    first.pair()
    first.still(name)
    first.dm.mapped(name).write(4096, NEW)
    second = killed(first, folder / "second", kind=kind)
    assert second.dm.forget_stages() == []
    return first, second


@pytest.mark.parametrize("name", ["org", "snap"])
def test_disks_that_can_only_be_read_leave_it_where_it_is(tmp_path: Path, name: str) -> None:
    """It is read, no flush says that it is durable, and the snapshot is not lost for a copy that
    its COW refuses."""
    first, second = came_read_only(tmp_path, name)
    other = "org" if name == "snap" else "snap"
    old = first.read(other, 8, 8)
    for _ in range(2):
        with pytest.raises(DeviceError) as refused:
            second.dm.mapped(name).flush()
        assert refused.value.errno == errno.EROFS
        second.dm.mapped(other).flush()
        assert second.read(name, 8, 8) == NEW
        assert second.read(other, 8, 8) == old
        assert all(extent.length for extent in second.dm.mapped(name).extents(0, 65536))
        assert "Invalid" not in second.status("snap")
        origin = f"0 {SECTORS} snapshot-origin {second.folder}/origin"
        second.reload(name, origin if name == "org" else over(second, "snapshot"))
    with pytest.raises(DeviceError, match="opens a disk anew that could only be read"):
        second.dm.remove(name)
    assert any("what was written to it before" in line for line in second.messages)
    third = killed(second, tmp_path / "third", kind=StageLab)
    assert third.read(name, 8, 8) == NEW
    third.dm.mapped(name).flush()
    assert third.read(other, 8, 8) == old
    assert "Invalid" not in third.status("snap")
    assert header(f"{third.folder}/cow")[1] == 1
    assert "waits for the devices below" in second.dm.shutdown()[-1]
    for lab in (third, first):
        lab.dm.shutdown()


@pytest.mark.parametrize("kind", [ReadOnlyLab, ReadOnlyOriginLab])
def test_no_snapshot_comes_that_would_lack_what_waits_for_a_disk(
    tmp_path: Path, kind: type[StageLab]
) -> None:
    first, second = came_read_only(tmp_path, "org", kind)
    with pytest.raises(TableError, match="before cannot reach it"):
        second.device("late", f"0 {SECTORS} snapshot {second.folder}/origin {store(second)} P 8")
    assert second.dm.suspend("org").unwritten
    second.dm.resume("org")
    for lab in (second, first):
        lab.dm.shutdown()


def store(lab: StageLab) -> str:
    make_store(str(lab.folder / "late"), 8, [], 4096)
    return str(lab.folder / "late")


def test_nor_does_one_go_that_would_lack_its_copies(tmp_path: Path) -> None:
    """Nor are they lost as another table takes its exceptions over."""
    first, second = came_read_only(tmp_path, "org")
    old = first.read("snap", 8, 8)
    with pytest.raises(DeviceError, match="not removed"):
        second.dm.remove("snap")
    with pytest.raises(TableError, match="keeps its table"):
        second.reload("snap", f"0 {SECTORS} error")
    second.dm.resume("snap")
    second.reload("snap", over(second, "snapshot"))
    assert "Invalid" not in second.status("snap")
    third = killed(second, tmp_path / "third", kind=StageLab)
    third.dm.mapped("org").flush()
    assert third.on_disk(8, 8) == NEW
    third.dm.remove("snap")
    third.snapshot()
    assert third.read("snap", 8, 8) == old
    for lab in (third, second, first):
        lab.dm.shutdown()


def test_where_nothing_waits_nothing_is_refused(tmp_path: Path) -> None:
    lab = ReadOnlyLab(tmp_path)
    origin, cow = lab.file("origin", SECTORS), lab.folder / "cow"
    make_store(str(cow), 8, runs("10..29>2..21"), 4096)
    lab.device("snap", over(lab, "snapshot"))
    lab.device("org", f"0 {SECTORS} snapshot-origin {origin}")
    for name in ("org", "snap"):
        lab.dm.mapped(name).flush()
    assert len(list(lab.dm.mapped("snap").changed(0, SECTORS * 512) or ())) == 3
    for name in ("snap", "org"):
        lab.dm.remove(name)


def test_copies_are_made_where_the_disk_of_the_cow_takes_them(tmp_path: Path) -> None:
    first, second = came_read_only(tmp_path, "org", ReadOnlyOriginLab)
    old = first.read("snap", 8, 8)
    with pytest.raises(DeviceError):
        second.dm.mapped("org").flush()
    second.dm.remove("snap")
    third = killed(second, tmp_path / "third", kind=StageLab)
    third.dm.mapped("org").flush()
    assert third.on_disk(8, 8) == NEW
    third.snapshot()
    assert third.read("snap", 8, 8) == old
    for lab in (third, second, first):
        lab.dm.shutdown()


@pytest.mark.parametrize("kind", [StageLab, ReadOnlyLab])
def test_a_table_for_reading_only_takes_it_if_its_disk_does(
    tmp_path: Path, kind: type[StageLab]
) -> None:
    """As a plain volume, its snapshot being away; what is older is not read as what was written."""
    (tmp_path / "first").mkdir()
    first = StageLab(tmp_path / "first", kept=True)
    first.pair()
    first.still()
    first.dm.mapped("org").write(4096, NEW)
    (first.folder / "cow").unlink()
    second = back(first.dm.snapshot_state(), first.folder, tmp_path / "second", 2, kind)
    line = parse_table(f"0 {SECTORS} linear {second.folder}/origin 0")
    second.dm.load("org", line, read_only=True)
    if kind is ReadOnlyLab:
        with pytest.raises(TableError, match="stays suspended"):
            second.dm.resume("org")
        assert second.dm.info("org").suspended
    else:
        second.dm.resume("org")
        assert second.read("org", 8, 8) == NEW
    for lab in (second, first):
        lab.dm.shutdown()


def test_a_merge_on_disks_that_can_only_be_read_costs_no_other_snapshot_its_copies(
    tmp_path: Path,
) -> None:
    lab = ReadOnlyLab(tmp_path)
    origin, other = lab.file("origin", SECTORS), lab.file("other", 4096)
    for cow in (lab.folder / "cow", lab.folder / "other"):
        make_store(str(cow), 8, runs("10..29>2..21") if cow.name == "cow" else [], 4096)
    lab.device("snap", f"0 {SECTORS} snapshot {origin} {other} P 8")
    lab.device("org", over(lab, "snapshot-merge"))
    lab.dm.suspend("org")
    assert lab.status("org").startswith("176/4096")
    assert "Invalid" not in lab.status("snap")
    assert any("the next daemon opens them anew" in line for line in lab.messages)
    lab.dm.shutdown()


@pytest.fixture
def no_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Until it is undone the second process opens no file of a stage."""
    real = Path.open

    def refuse(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode == "rb" and self.parent == tmp_path / "second" / "stage":
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    return monkeypatch


@pytest.mark.parametrize("name", ["org", "snap"])
def test_a_file_that_cannot_be_opened_is_not_taken_for_none(
    tmp_path: Path, no_descriptors: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "first").mkdir()
    first = StageLab(tmp_path / "first", kept=True)
    first.pair()
    first.still(name)
    first.dm.mapped(name).write(4096, NEW)
    second = back(first.dm.snapshot_state(), first.folder, tmp_path / "second", 2)
    said = StageSettings(1 << 20, second.stages).forget_all(()) + refusals(second)
    assert len(said) == len(list(second.stages.iterdir())) + 3
    assert all("cannot be read: Too many open files" in line for line in said)
    no_descriptors.undo()
    second.dm.resume("snap")
    second.reload("org", f"0 {SECTORS} snapshot-origin {second.folder}/origin")
    assert second.read(name, 8, 8) == NEW
    for lab in (second, first):
        lab.dm.shutdown()


def refusals(lab: StageLab) -> list[str]:
    """What is refused as long as nobody knows what waits."""
    found = []
    for ask in (
        lambda: lab.dm.resume("snap"),
        lambda: lab.dm.remove("snap"),
        lambda: lab.device("merge", over(lab, "snapshot-merge")),
    ):
        with pytest.raises(TableError) as refused:
            ask()
        found.append(str(refused.value))
    return found


@pytest.mark.usefixtures("no_descriptors")
def test_nor_by_a_stop_and_by_force_it_is_said_to_be_lost(tmp_path: Path) -> None:
    first = StageLab.staged(tmp_path)
    second = back(first.dm.snapshot_state(), first.folder, tmp_path / "second", 2)
    second.dm.remove("snap", force=True)
    assert any("snap: what was written to it is lost" in line for line in second.messages)
    assert second.dm.shutdown() == ["org: what was written waits for the devices below"]
    first.dm.shutdown()


def unremovable(path: Path, missing_ok: bool = False) -> None:
    """In the place of Path.unlink, on a file system that can only be read."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_file_that_cannot_be_removed_keeps_no_device_suspended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not even there."""
    lab = StageLab(tmp_path, kept=True)
    with monkeypatch.context() as once:
        once.setattr(Path, "unlink", unremovable)
        lab.pair()
        assert not any(info.suspended for info in lab.dm.devices())
        assert f"snap: {lab.stages}/0 cannot be removed: Read-only file system" in lab.messages
    lab.dm.shutdown()


def test_nor_does_it_mean_anything_behind_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = StageLab.staged(tmp_path)
    lab.faults["origin"].fail("write")
    with monkeypatch.context() as once:
        once.setattr(Path, "unlink", unremovable)
        lab.dm.remove("org", force=True)
    assert [info.name for info in lab.dm.devices()] == ["snap"]
    assert (lab.stages / "1").exists()
    assert StageSettings(1 << 20, lab.stages).pages_left(1) == 0
    lab.dm.shutdown()


def test_what_is_no_file_among_them_is_said(tmp_path: Path) -> None:
    stages = tmp_path / "stage"
    (stages / "folder").mkdir(parents=True)
    (stages / "other").write_text("")
    assert StageSettings(1 << 20, stages).forget_all(()) == [
        f"{stages}/folder cannot be removed: Is a directory"
    ]
    assert [path.name for path in stages.iterdir()] == ["folder"]
