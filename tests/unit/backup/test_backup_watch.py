"""The COW watcher against a store that fills: numbers in, extensions out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ulvm.backup.watch import CowStatus, CowWatcher, parse_cow_status
from ulvm.errors import DeviceError

MIB = 1 << 20


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ("16/4096 16", CowStatus(8192, 2 * MIB, True)),
        ("4096/4096 40", CowStatus(2 * MIB, 2 * MIB, True)),
        ("Invalid", CowStatus(0, 0, False)),
        ("Overflow", CowStatus(0, 0, False)),
        ("Merge failed", CowStatus(0, 0, False)),
        ("Unknown", CowStatus(0, 0, False)),
    ],
)
def test_status_line(params: str, status: CowStatus) -> None:
    assert parse_cow_status(params) == status


class Store:
    """A store that somebody writes to, with room in the group to extend it."""

    def __init__(self, total: int, room: int) -> None:
        self.used, self.total, self.room = 0, total, room
        self.asked: list[int] = []
        self.broken: Exception | None = None
        self.busy = False
        self.refused = False
        self.said: list[str] = []

    def status(self) -> CowStatus:
        if self.broken is not None:
            self.refused = True
            raise self.broken
        if self.used > self.total:
            return CowStatus(0, 0, False)
        return CowStatus(self.used, self.total, True)

    def extend(self, amount: int) -> int | None:
        self.asked.append(amount)
        if self.busy:
            return None
        more = min(amount, self.room)
        self.total += more
        self.room -= more
        return self.total

    def watcher(self, limit: int = 1 << 40, pause: float = 3.0) -> CowWatcher:
        return CowWatcher(
            self.status, self.extend, limit=limit, say=self.said.append, interval=0.01, pause=pause
        )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_doubles_when_fuller_than_the_threshold() -> None:
    store = Store(10 * MIB, 100 * MIB)
    with store.watcher() as watcher:
        store.used = 8 * MIB
        wait_for(lambda: bool(store.said))
    assert store.asked == [10 * MIB]
    assert store.said == ["Snapshot was 80% full: extended from 10.00 to 20.00 MiB."]
    assert watcher.peak == 8 * MIB
    assert not watcher.overflowed


def test_a_fast_writer_is_seen_long_before_the_threshold() -> None:
    store = Store(1000 * MIB, 10_000 * MIB)
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.01):
            store.used += 4 * MIB  # full in 2.5 s

    writer = threading.Thread(target=write)
    with store.watcher():
        writer.start()
        wait_for(lambda: bool(store.asked))
        stop.set()
        writer.join()
    assert store.used < 500 * MIB


def test_no_room_is_said_once() -> None:
    store = Store(10 * MIB, 0)
    with store.watcher():
        store.used = 9 * MIB
        wait_for(lambda: bool(store.said))
        time.sleep(0.1)
    assert store.said == ["Snapshot is 90% full and there is no room to extend it."]
    assert len(store.asked) == 1


def test_room_that_comes_later_is_used() -> None:
    """The sentence makes the user run vgextend."""
    store = Store(10 * MIB, 0)
    with store.watcher(pause=0.05):
        store.used = 9 * MIB
        wait_for(lambda: len(store.asked) > 2)
        store.room = 10 * MIB
        wait_for(lambda: store.total == 20 * MIB)
        store.used = 19 * MIB
        wait_for(lambda: len(store.said) == 3)
    assert store.said == [
        "Snapshot is 90% full and there is no room to extend it.",
        "Snapshot was 90% full: extended from 10.00 to 20.00 MiB.",
        "Snapshot is 95% full and there is no room to extend it.",
    ]


def test_what_cannot_be_done_now_is_no_want_of_room() -> None:
    """Why, is told by who was asked."""
    store = Store(10 * MIB, 10 * MIB)
    store.busy = True
    with store.watcher(pause=0.05) as watcher:
        store.used = 9 * MIB
        wait_for(lambda: len(store.asked) > 2)
        assert store.said == []
        store.busy = False
        wait_for(lambda: bool(store.said))
    watcher.check()
    assert store.said == ["Snapshot was 90% full: extended from 10.00 to 20.00 MiB."]


def test_a_store_that_cannot_overflow_is_left_alone() -> None:
    store = Store(10 * MIB, 100 * MIB)
    with store.watcher(limit=10 * MIB) as watcher:
        store.used = 10 * MIB
        wait_for(lambda: watcher.peak == 10 * MIB)
        time.sleep(0.05)
    assert store.asked == []


def test_overflow_is_noted_and_the_peak_kept() -> None:
    store = Store(10 * MIB, 0)
    with store.watcher() as watcher:
        store.used = 6 * MIB
        wait_for(lambda: watcher.peak == 6 * MIB)
        store.used = 11 * MIB
        wait_for(lambda: watcher.overflowed)
    watcher.check()
    assert watcher.peak == 6 * MIB


@pytest.mark.parametrize(
    "error", [DeviceError("the daemon is gone"), OSError("pipe"), MemoryError("none"), KeyError(1)]
)
def test_any_error_ends_the_watching_and_is_raised_by_check(error: Exception) -> None:
    """Were it lost, the backup would go on with nobody to extend its store."""
    store = Store(10 * MIB, 0)
    with store.watcher() as watcher:
        store.broken = error
        wait_for(lambda: store.refused)
    with pytest.raises(type(error)) as caught:
        watcher.check()
    assert caught.value is error


def test_what_cannot_be_started_leaves_ctrl_z_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"), Store(MIB, 0).watcher():
            pass
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTSTP, before)


PROGRAM = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from ulvm.backup.watch import CowStatus, CowWatcher

    def extend(size):
        Path("suspended").touch()
        time.sleep(1)
        Path("resumed").touch()
        return 2 * size

    def status():
        return CowStatus(90, 200 if Path("resumed").exists() else 100, True)

    with CowWatcher(status, extend, limit=1000, say=print):
        while not Path("go").exists():
            time.sleep(0.01)
    """
)


def start(program: str, directory: Path, *, orphan: bool = False) -> subprocess.Popen[bytes]:
    """`orphan`: nobody could let it go on if it were stopped, as below `ssh -t`."""
    return subprocess.Popen(
        ["env", "--default-signal=TSTP", sys.executable, "-c", program],
        cwd=directory,
        process_group=None if orphan else 0,
        start_new_session=orphan,
        stdout=subprocess.DEVNULL,
    )


def test_ctrl_z_does_not_stop_it_while_it_extends(tmp_path: Path) -> None:
    """The origin is suspended then."""
    process = start(PROGRAM, tmp_path)
    try:
        wait_for((tmp_path / "suspended").exists)
        process.send_signal(signal.SIGTSTP)
        assert os.waitpid(process.pid, os.WUNTRACED)[1] & 0xFF == 0x7F
        assert (tmp_path / "resumed").exists()
        (tmp_path / "go").touch()
    finally:
        process.send_signal(signal.SIGCONT)
        assert process.wait(20) == 0


def test_ctrl_z_is_passed_over_where_nobody_could_let_it_go_on(tmp_path: Path) -> None:
    process = start(PROGRAM, tmp_path, orphan=True)
    try:
        for file in ("suspended", "resumed"):
            wait_for((tmp_path / file).exists)
            process.send_signal(signal.SIGTSTP)
            time.sleep(0.2)
        (tmp_path / "go").touch()
        assert os.waitpid(process.pid, os.WUNTRACED)[1] == 0
    finally:
        process.kill()
        process.wait()


BUSY_PROGRAM = textwrap.dedent(
    """
    import signal, threading, time
    from pathlib import Path
    from ulvm.backup.watch import CowStatus, CowWatcher

    screen = threading.Lock()
    suspended = threading.Event()
    total = 100

    def extend(size):
        global total
        suspended.set()
        with screen:
            total = 2 * size
        return total

    def status():
        return CowStatus(90, total, True)

    signal.alarm(20)
    with screen, CowWatcher(status, extend, limit=1000, say=print):
        suspended.wait()
        signal.raise_signal(signal.SIGTSTP)
        screen.release()
        while total == 100 or not Path("go").exists():
            time.sleep(0.01)
        screen.acquire()
    """
)


def test_ctrl_z_waits_for_nothing_that_needs_what_the_main_thread_holds(tmp_path: Path) -> None:
    """A progress bar is drawn when it comes, and the watcher has something to say."""
    process = start(BUSY_PROGRAM, tmp_path)
    try:
        assert os.waitpid(process.pid, os.WUNTRACED)[1] & 0xFF == 0x7F
        (tmp_path / "go").touch()
    finally:
        process.send_signal(signal.SIGCONT)
        assert process.wait(20) == 0
