"""Signals at chosen moments of a backup, to the function call: what is left is what is said.

The backup runs in this process, on a real daemon. A profile function sees every call of Python
code in the main thread, which is where Python looks for signals.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import NamedTuple

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.effort import amount, rng, tally
from ulvm.backup.interrupts import Interrupted
from ulvm.backup.job import BackupRequest, backup
from ulvm.backup.leftovers import RESTORING_TAG
from ulvm.backup.pipeline import Progress
from ulvm.backup.restoring import restore, verify_backup
from ulvm.blockdev.base import BlockDevice
from ulvm.errors import RefusedError
from ulvm.lvm.session import Session
from ulvm.vgstore.host import Host

pytestmark = needs.fuse


class Heard:
    """Messages, warnings kept."""

    verbosity = 0

    def __init__(self) -> None:
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def verbose(self, text: str) -> None:
        pass

    def ask(self, question: str) -> bool:
        return False


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    host.run(f"pvcreate {host.image('pv', '64M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n a -L 16M vg")
    with host.path("vg/a").open("r+b", buffering=0) as file:
        file.write(rng("interrupts").randbytes(8 << 20))
    (host.base / "out").mkdir()
    return host


@contextmanager
def at_calls(due: Callable[[], bool]) -> Iterator[None]:
    """SIGINT at each call of Python code for which `due()` is true, while the program handles the
    signal itself."""
    outside = signal.getsignal(signal.SIGINT)

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if event != "call" or handler is outside or frame.f_code is handler.__code__:
            return
        if due():
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


class Ended(NamedTuple):
    """How a backup ended: the error's kind and what it says of the outcome. The error itself would
    keep alive what it interrupted."""

    kind: type[BaseException] | None
    outcome: str | None
    heard: Heard


def run(host: UlvmHost, progress: Progress) -> Ended:
    """A backup of vg/a into out."""
    heard = Heard()
    session = Session(Host.from_environment(host.env), heard)

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        yield progress

    outside = signal.getsignal(signal.SIGINT)
    ended = Ended(None, None, heard)
    try:
        backup(session, BackupRequest("vg/a", directory=host.base / "out"), stage=stage)
    except Interrupted as error:
        ended = Ended(Interrupted, error.outcome, heard)
    except RefusedError:
        ended = Ended(RefusedError, None, heard)
    session.close()
    gc.collect()
    assert signal.getsignal(signal.SIGINT) is outside
    return ended


def nothing(_done: int, _total: int) -> None:
    """A progress that nobody watches."""


def check(host: UlvmHost, ended: Ended) -> None:
    """No snapshot is left; no files, or a whole backup, and the interrupt says which."""
    assert ended.heard.warned == []
    session = Session(Host.from_environment(host.env), Heard())
    assert [lv.name for lv in session.find_vg("vg").lvs] == ["a"]
    assert len(session.dm.devices()) == 1
    assert list((host.run_dir / "lock").glob("B_*")) == []
    session.close()
    files = sorted((host.base / "out").iterdir())
    if not files:
        assert ended[:2] in (
            (RefusedError, None),
            (Interrupted, "no backup was made, and nothing is left of it."),
        )
        return
    assert len(files) == 2
    assert ended[:2] in (
        (None, None),
        (Interrupted, f"the backup {files[0]} is complete."),
    )
    session = Session(Host.from_environment(host.env), Heard())
    verify_backup(session, files[0])
    session.close()
    for file in files:
        file.unlink()


@pytest.mark.parametrize("written", [False, True])
def test_an_interrupted_restore_leaves_the_tag_once_it_has_written(
    vg: UlvmHost, written: bool
) -> None:
    """The next one needs --force just as long as the old content is there."""
    vg.run("backup vg/a --to out")
    vg.run("lvcreate -n b -L 16M vg")
    old, new = rng("old").randbytes(16 << 20), vg.path("vg/a").read_bytes()
    vg.path("vg/b").open("r+b", buffering=0).write(old)
    session = Session(Host.from_environment(vg.env), Heard())

    def stop(_done: int, _total: int) -> None:
        signal.raise_signal(signal.SIGINT)

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        if not written:
            signal.raise_signal(signal.SIGINT)
        yield stop

    with pytest.raises(Interrupted):
        restore(session, vg.base / "out", "vg/b", force=True, stage=stage)
    session.close()
    tags = vg.run("lvs --noheadings -o tags vg/b").stdout.split()
    assert tags == ([RESTORING_TAG] if written else [])
    assert (vg.path("vg/b").read_bytes() == old) == (not written)
    vg.run("restore out vg/b", rc=0 if written else 5)
    assert vg.path("vg/b").read_bytes() == (new if written else old)
    assert vg.run("lvs --noheadings -o tags vg/b").stdout.split() == []


def test_a_storm_of_signals_does_not_disturb_the_cleaning_up(vg: UlvmHost) -> None:
    """One interrupts the copying, and then there is one at every single call."""
    storm = []

    def progress(_done: int, _total: int) -> None:
        storm.append(True)
        signal.raise_signal(signal.SIGINT)

    with at_calls(lambda: bool(storm)):
        ended = run(vg, progress)
    assert ended.kind is Interrupted
    check(vg, ended)
    assert list((vg.base / "out").iterdir()) == []


def calls_of(host: UlvmHost, progress: Progress, begun: list[bool]) -> int:
    """How many calls there are from the time on that something stands in `begun`."""
    count = 0

    def due() -> bool:
        nonlocal count
        count += bool(begun)
        return False

    with at_calls(due):
        ended = run(host, progress)
    check(host, ended)
    return count


@pytest.mark.parametrize("failing", [False, True])
def test_a_signal_at_any_call(vg: UlvmHost, failing: bool) -> None:
    """In a backup that goes well, and in the cleaning up of one that fails."""
    begun: list[bool] = []

    def fail(_done: int, _total: int) -> None:
        begun.append(True)
        raise RefusedError("enough")

    progress = fail if failing else nothing
    if not failing:
        begun.append(True)
    total = calls_of(vg, progress, begun)
    choose = rng("a signal at any call", failing)
    images = amount(8, 150)
    for _ in range(images):
        left = choose.randrange(total)
        if failing:
            begun.clear()

        def due() -> bool:
            nonlocal left
            left -= bool(begun)
            return left == -1

        with at_calls(due):
            ended = run(vg, progress)
        check(vg, ended)
    tally("signals at a call of a backup", images)


def test_a_signal_at_any_call_of_a_restore(vg: UlvmHost) -> None:
    """There is no volume, or a whole one; the interrupt says which. No lock is left."""
    vg.run("backup vg/a --to out")

    def attempt(due: Callable[[], bool]) -> str | None:
        heard = Heard()
        session = Session(Host.from_environment(vg.env), heard)
        outcome: str | None = "none came"
        try:
            with at_calls(due):
                restore(session, vg.base / "out", "vg/b")
        except Interrupted as error:
            outcome = error.outcome
        session.close()
        gc.collect()
        assert heard.warned == []
        assert [path for path in (vg.run_dir / "lock").iterdir() if path.name[0] in "RU"] == []
        whole = ["a"] if outcome is None else ["a", "b"]
        assert vg.run("lvs --noheadings -o lv_name,lv_tags vg").stdout.split() == whole
        if outcome is not None:
            assert outcome in ("none came", "vg/b is restored, read back and verified.")
            assert vg.path("vg/b").read_bytes() == vg.path("vg/a").read_bytes()
            vg.run("lvremove -f vg/b")
        return outcome

    total = 0

    def count() -> bool:
        nonlocal total
        total += 1
        return False

    attempt(count)
    choose = rng("a signal at any call of a restore")
    images = amount(8, 150)
    for _ in range(images):
        left = choose.randrange(total)

        def due() -> bool:
            nonlocal left
            left -= 1
            return left == -1

        attempt(due)
    tally("signals at a call of a restore", images)


def test_a_signal_as_a_connection_of_a_restore_is_opened(
    vg: UlvmHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vg.run("backup vg/a --to out")
    device_for = Session.device_for

    def signalled(self: Session, vg_name: str, lv_name: str, *, write: bool) -> BlockDevice:
        device = device_for(self, vg_name, lv_name, write=write)
        signal.raise_signal(signal.SIGINT)
        return device

    monkeypatch.setattr(Session, "device_for", signalled)
    heard = Heard()
    session = Session(Host.from_environment(vg.env), heard)
    with closing(session), pytest.raises(Interrupted):
        restore(session, vg.base / "out", "vg/b")
    assert heard.warned == []
    assert vg.run("lvs --noheadings -o lv_name vg").stdout.split() == ["a"]


def test_a_restore_that_is_interrupted_at_its_end_says_that_it_is_whole(vg: UlvmHost) -> None:
    class Interrupting(Heard):
        def say(self, text: str) -> None:
            if text.startswith("Restored "):
                signal.raise_signal(signal.SIGINT)

    vg.run("backup vg/a --to out")
    session = Session(Host.from_environment(vg.env), Interrupting())
    with closing(session), pytest.raises(Interrupted) as caught:
        restore(session, vg.base / "out", "vg/b")
    assert caught.value.outcome == "vg/b is restored, read back and verified."


def test_a_restore_that_is_interrupted_waits_for_its_volume_to_be_closed(vg: UlvmHost) -> None:
    """The daemon notices that later than we, the busier the later."""
    vg.run("backup vg/a --to out")
    device: list[BlockDevice] = []
    heard = Heard()
    session = Session(Host.from_environment(vg.env), heard)

    def stop(_done: int, _total: int) -> None:
        device.append(session.device_for("vg", "b", write=False))
        threading.Timer(1, device[0].close).start()
        signal.raise_signal(signal.SIGINT)

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        yield stop

    with closing(session), pytest.raises(Interrupted):
        restore(session, vg.base / "out", "vg/b", stage=stage)
    assert heard.warned == []
    assert vg.run("lvs --noheadings -o lv_name vg").stdout.split() == ["a"]
