"""Who only reads never sees half of a change that another command is at."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from tests.unit.lvm.lab import Heard, Lab
from ulvm.blockdev.base import BlockDevice
from ulvm.lvm import settled
from ulvm.lvm.diskscan import candidates
from ulvm.lvm.session import Session
from ulvm.metadata import edit
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.commit import prepare
from ulvm.vgstore.locks import global_lock, vg_lock
from ulvm.vgstore.scan import scan


class Half:
    """A change of which one PV has the new state and the other the old one, until `finish`."""

    def __init__(self, lab: Lab) -> None:
        old = scan(lab.host).vg("vg")
        second = list(lab.devices.values())[1]
        before = second.read(0, second.size)
        new = edit.add_linear(old, "new", 1, uuid=new_uuid(), now=1, host="h")
        prepare(lab.host, scan(lab.host), old, new, command="lvcreate").commit()
        after = second.read(0, second.size)
        second.write(0, before)
        self.finish: Callable[[], None] = lambda: second.write(0, after)


@pytest.fixture
def half(lab: Lab) -> Half:
    return Half(lab)


def test_a_change_is_waited_for_where_it_shows(lab: Lab, half: Half) -> None:
    looked = threading.Semaphore(0)

    def opener(path: str, writable: bool) -> BlockDevice:
        looked.release()
        return lab.open(path, writable)

    heard = Heard()
    reader = Session(lab.host._replace(opener=opener), heard)
    found = []
    with vg_lock(lab.host, "vg", exclusive=True):
        thread = threading.Thread(target=lambda: found.append(reader.scan()))
        thread.start()
        for _ in range(5):  # two devices: it looks for the third time
            assert looked.acquire(timeout=60)
        half.finish()
    thread.join(timeout=60)
    assert (found[0].warnings, heard.warned) == ((), [])
    assert found[0].vg("vg").lv("new") is not None


def test_what_is_odd_and_nobody_is_at_is_told(lab: Lab, half: Half) -> None:
    heard = Heard()
    Session(lab.host, heard).scan()
    assert any("ignoring metadata seqno 1" in text for text in heard.warned)


def test_a_lock_that_is_held_for_long_hinders_no_reader(
    lab: Lab, half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settled, "_PATIENCE", 0.1)
    heard = Heard()
    with vg_lock(lab.host, "vg", exclusive=True):
        assert Session(lab.host, heard).scan().vg("vg").lv("new") is not None
    assert heard.warned


@pytest.mark.parametrize("what", ["nolocking", "wait_for_locks=0"])
def test_nobody_is_waited_for_where_that_is_not_wanted(lab: Lab, half: Half, what: str) -> None:
    host = lab.host
    if what == "nolocking":
        host = host._replace(locking=False)
    else:
        host = host._replace(config=host.config.with_overrides(f"global/{what}"))
    with vg_lock(lab.host, "vg", exclusive=True):
        assert Session(host, Heard()).scan().warnings


@pytest.mark.parametrize("shared", [False, True])
def test_who_holds_a_lock_does_not_wait_long_for_another(
    lab: Lab, half: Half, shared: bool
) -> None:
    """Which may be waiting for that lock: as long as both have patience nobody gets on."""
    session = Session(lab.host, Heard())
    began = time.monotonic()
    ours = session.quiet(["vg"]) if shared else session.lock("vg")
    with ours, global_lock(lab.host, exclusive=True):
        assert session.scan().warnings
    assert time.monotonic() - began < 5


def test_a_disk_that_goes_while_it_is_looked_at_is_no_error(lab: Lab) -> None:
    def opened(path: str, writable: bool) -> BlockDevice:
        os.unlink(path)
        return lab.devices[path]

    lab.begin(lab.host._replace(opener=opened))
    assert [found.path for found in candidates(lab.session)] == list(lab.devices)
