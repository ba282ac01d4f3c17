"""The watch over snapshots: what goes wrong with one of them does not end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.dm.stage_lab import StageLab
from tests.waiting import ended, until
from ulvm.daemon import monitor
from ulvm.daemon.monitor import Monitor
from ulvm.dm.device import MappedDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.dm_ioctl import TableLine
from ulvm.vgstore.policy import SnapshotPolicy

MIB = 1 << 20


def full_snapshot(mapper: LocalMapper, folder: Path, name: str, letter: str) -> None:
    """A snapshot of an LVM volume's UUID, fuller than 50 %."""
    for part in ("origin", "cow"):
        (folder / f"{name}.{part}").write_bytes(bytes(MIB))
    mapper.create(name, "LVM-" + letter * 64)
    params = f"{folder}/{name}.origin {folder}/{name}.cow P 8"
    mapper.load(name, [TableLine(0, MIB // 512, "snapshot", params)])
    mapper.resume(name)
    mapper.mapped(name).write(0, b"x" * (700 << 10))


def watch(mapper: LocalMapper, command: Callable[..., Sequence[str]], grown: Path) -> None:
    """Until the command has made the file `grown`."""
    watcher = Monitor(mapper, policy=lambda: SnapshotPolicy(50, 20), command=command)
    watcher.start()
    try:
        until(grown.exists, seconds=20)
    finally:
        watcher.stop()
        mapper.shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_SECONDS", 0.01)


def test_a_name_that_is_not_lvms_leaves_the_others_watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = LocalMapper()
    full_snapshot(mapper, tmp_path, "nodash", "a")
    full_snapshot(mapper, tmp_path, "vg-snap", "b")

    def command(*words: str) -> list[str]:
        return ["touch", str(tmp_path / words[-1].replace("/", "."))]

    watch(mapper, command, tmp_path / "vg.snap")
    assert caplog.text.count("cannot watch nodash") == 1


def test_a_name_that_is_not_lvms_leaves_the_others_in_the_report(tmp_path: Path) -> None:
    mapper = LocalMapper()
    full_snapshot(mapper, tmp_path, "nodash", "a")
    full_snapshot(mapper, tmp_path, "vg-snap", "b")
    watcher = Monitor(mapper, policy=lambda: SnapshotPolicy(100, 20), command=lambda *words: words)
    assert [(row["vg"], row["lv"]) for row in watcher.report()] == [("vg", "snap")]
    mapper.shutdown()


def test_a_process_that_cannot_be_started_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = LocalMapper()
    full_snapshot(mapper, tmp_path, "vg-snap", "a")
    commands = iter([["/nonexistent"], ["/nonexistent"]])

    def command(*words: str) -> list[str]:
        return next(commands, ["touch", str(tmp_path / "grown")])

    watch(mapper, command, tmp_path / "grown")
    assert caplog.text.count("cannot watch vg-snap") == 1


def test_want_of_memory_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = LocalMapper()
    full_snapshot(mapper, tmp_path, "vg-snap", "a")
    look, left = mapper.all_mapped, [MemoryError(), MemoryError()]

    def all_mapped(*, leaving: bool = False) -> list[MappedDevice]:
        if left:
            raise left.pop()
        return look(leaving=leaving)

    monkeypatch.setattr(mapper, "all_mapped", all_mapped)
    watch(mapper, lambda *words: ["touch", str(tmp_path / "grown")], tmp_path / "grown")
    assert caplog.text.count("cannot watch the snapshots") == 1


def about_to_overflow(folder: Path) -> LocalMapper:
    """vg-s, whose COW has no room for what is staged for its origin, and is suspended; vg-beside
    is of the same origin."""
    lab = StageLab(folder)
    for name, sectors in (("origin", 4096), ("cow", 64), ("beside", 2048)):
        lab.file(name, sectors)
    lab.device("vg-s-cow", f"0 64 linear {folder}/cow 0")
    lab.device("vg-s", f"0 4096 snapshot {folder}/origin vg-s-cow P 8")
    lab.device("vg-beside", f"0 4096 snapshot {folder}/origin {folder}/beside P 8")
    for name in ("vg-s", "vg-beside"):
        lab.dm.set_uuid(name, "LVM-" + name.rjust(64, "x"))
    lab.device("org", f"0 4096 snapshot-origin {folder}/origin")
    lab.still()
    lab.dm.suspend("vg-s-cow")
    lab.put(0, 512, 0x11)
    return lab.dm


def test_a_suspended_cow_leaves_the_others_watched(tmp_path: Path) -> None:
    """A look at its snapshot would wait for it, or at another one of the origin."""
    mapper = about_to_overflow(tmp_path)
    full_snapshot(mapper, tmp_path, "vg-z", "a")
    grown = tmp_path / "grown"
    ended(lambda: watch(mapper, lambda *words: ["touch", str(grown)], grown), seconds=30)


def test_a_look_that_waits_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A COW that is suspended a moment too late to be seen."""
    mapper = about_to_overflow(tmp_path)
    monkeypatch.setattr(monitor, "_may_wait", lambda device: False)
    monkeypatch.setattr(monitor, "_PATIENCE", 0.5)
    watcher = Monitor(mapper, policy=lambda: SnapshotPolicy(50, 20), command=lambda *words: words)
    snapshot = mapper.mapped("vg-s").targets[0]
    assert isinstance(snapshot, SnapshotTarget)
    watcher.start()
    until(snapshot.snapshot._invalidate_lock.locked)
    ended(watcher.stop, seconds=10)
    assert "does not end" in caplog.text
    mapper.shutdown()
    ended(watcher._thread.join, seconds=10)


def test_an_unmounting_that_cannot_be_started_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = LocalMapper()
    full_snapshot(mapper, tmp_path, "vg-snap", "a")
    snapshot = mapper.mapped("vg-snap").targets[0]
    assert isinstance(snapshot, SnapshotTarget)
    snapshot.snapshot.invalidate("for a test")
    places = [tmp_path / "first", tmp_path / "second"]
    failing = [False, True, True]
    script = 'sleep 0.1; touch "$0"; [ "$0" != "$1" ] || { echo no >&2; exit 5; }'

    def command(*words: str) -> list[str]:
        if failing and failing.pop(0):
            return ["/nonexistent"]
        return ["sh", "-c", script, words[-1], str(places[1]), "--config=x"]

    watcher = Monitor(
        mapper,
        policy=lambda: SnapshotPolicy(50, 20),
        command=command,
        mount_points=lambda name: [(str(place), True) for place in places if not place.exists()],
    )
    watcher.start()
    try:
        until(lambda: f"from {places[1]}: no" in caplog.text, seconds=10)
    finally:
        watcher.stop()
        mapper.shutdown()
    assert caplog.text.count("changed state to: Invalid") == 1
    assert caplog.text.count("Unmounting invalid snapshot") == 2


def test_a_snapshot_that_rests_at_the_threshold_is_not_looked_at_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_SECONDS", 2.0)
    mapper = LocalMapper()
    for part in ("origin", "cow"):
        (tmp_path / part).write_bytes(bytes(MIB))
    mapper.create("vg-snap", "LVM-" + "a" * 64)
    params = f"{tmp_path}/origin {tmp_path}/cow P 8"
    mapper.load("vg-snap", [TableLine(0, MIB // 512, "snapshot", params)])
    mapper.resume("vg-snap")
    mapper.mapped("vg-snap").write(0, b"x" * (126 * 4096))
    mapper.mapped("vg-snap").flush()
    assert mapper.status("vg-snap")[0].params == "1024/2048 16"
    watcher = Monitor(mapper, policy=lambda: SnapshotPolicy(50, 20), command=lambda *words: words)
    assert [watcher._look() for _ in range(3)] == [2.0] * 3
    mapper.shutdown()


@pytest.mark.parametrize("code", [0, 5])
def test_what_an_unmounting_leaves_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """Of two mounts on one place it takes the upper one away; or the first two attempts fail."""
    monkeypatch.setattr(monitor, "_RETRY_SECONDS", 0.05)
    mapper = LocalMapper()
    full_snapshot(mapper, tmp_path, "vg-snap", "a")
    snapshot = mapper.mapped("vg-snap").targets[0]
    assert isinstance(snapshot, SnapshotTarget)
    snapshot.snapshot.invalidate("for a test")
    tries = tmp_path / "tries"
    tries.write_text("")
    script = f'printf x >> "$0"; [ $(wc -c < "$0") -gt 2 ] || {{ echo no >&2; exit {code}; }}'

    def places(name: str) -> list[tuple[str, bool]]:
        left = max(3 - len(tries.read_text()), 0)
        return [("/mnt", n == 0) for n in range(left)]

    watcher = Monitor(
        mapper,
        policy=lambda: SnapshotPolicy(50, 20),
        command=lambda *words: ["sh", "-c", script, str(tries)],
        mount_points=places,
    )
    watcher.start()
    try:
        until(lambda: any(w.dead for w in watcher._watched.values()), seconds=10)
    finally:
        watcher.stop()
        mapper.shutdown()
    assert tries.read_text() == "xxx"
    assert caplog.text.count("Failed to umount") == bool(code)
