"""Control operations that come together: who waited finds the device as the others left it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.unit.dm.lab import SECTOR, Lab
from ulvm.dm import state
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import Table, parse_table
from ulvm.errors import BusyError, NotFoundError, TableError

OPERATIONS: dict[str, Callable[[LocalMapper, str], object]] = {
    "load": lambda dm, name: dm.load(name, parse_table("0 8 zero")),
    "clear": lambda dm, name: dm.clear(name),
    "suspend": lambda dm, name: dm.suspend(name),
    "resume": lambda dm, name: dm.resume(name),
    "remove": lambda dm, name: dm.remove(name),
    "remove --force": lambda dm, name: dm.remove(name, force=True),
}


class Contended:
    """A device's `control` that another operation had first: `other` runs before it is given."""

    def __init__(self, lab: Lab, name: str, other: Callable[[], object]) -> None:
        self._inner: Any = lab.dm.mapped(name).control
        self._other = other
        lab.dm.mapped(name).control = self  # type: ignore[assignment]

    def __enter__(self) -> None:
        other, self._other = self._other, lambda: None
        other()
        self._inner.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, error, trace)


@pytest.mark.parametrize("word", ["x", "LVM-x", "253:0"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_who_waited_for_a_removed_device_leaves_a_new_one_alone(
    lab: Lab, operation: str, word: str
) -> None:
    lab.dm.create("x", "LVM-x")
    lab.reload("x", "0 8 zero")
    gone = lab.dm.mapped("x")

    def replace() -> None:
        lab.dm.remove("x")
        lab.dm.create("x", "LVM-x")
        lab.reload("x", f"0 16 linear {lab.file('disk', 16)} 0")
        lab.dm.load("x", parse_table("0 4 zero"))

    Contended(lab, "x", replace)
    with pytest.raises(NotFoundError):
        OPERATIONS[operation](lab.dm, word)
    (new,) = lab.dm.devices()
    assert (new.name, new.uuid, new.size) == ("x", "LVM-x", 16)
    assert (new.suspended, new.live_table, new.inactive_table) == (False, True, True)
    assert (gone.live, gone.inactive) == (None, None)
    assert lab.read("x", 0, 16) == bytes(16 * SECTOR)


def test_of_two_removals_one_finds_nothing(lab: Lab) -> None:
    lab.device("x", "0 8 zero")
    Contended(lab, "x", lambda: lab.dm.remove("x"))
    with pytest.raises(NotFoundError):
        lab.dm.remove("x")
    assert lab.dm.devices() == []


def test_a_removal_goes_on_with_the_device_that_was_renamed_meanwhile(lab: Lab) -> None:
    """And with force puts the errors there, not on a new device of its old name."""
    lab.device("x", "0 8 zero")
    handle = lab.dm.mapped("x").open(write=False)

    def rename() -> None:
        lab.dm.rename("x", "y")
        lab.device("x", "0 16 zero")

    Contended(lab, "x", rename)
    with pytest.raises(BusyError):
        lab.dm.remove("x", force=True)
    assert [str(lab.dm.table(name)[0]) for name in ("x", "y")] == ["0 16 zero ", "0 8 error "]
    handle.close()
    Contended(lab, "y", lambda: lab.dm.rename("y", "z"))
    lab.dm.remove("y")
    assert [info.name for info in lab.dm.devices()] == ["x"]


def test_many_removals_and_makers_of_one_name(lab: Lab) -> None:
    """Whatever they find of each other, every refusal is one that the operation knows."""
    unknown: list[BaseException] = []

    def work(number: int) -> None:
        path = lab.file(f"disk{number}", 16)
        for _ in range(60):
            for act in (
                lambda: lab.dm.create("x"),
                lambda: lab.dm.load("x", parse_table(f"0 16 linear {path} 0")),
                lambda: lab.dm.resume("x"),
                lambda: lab.dm.remove("x", force=number % 2 == 0),
                lab.dm.snapshot_state,
            ):
                try:
                    act()
                except (NotFoundError, BusyError, TableError):
                    pass
                except BaseException as error:
                    unknown.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unknown == []
    for info in lab.dm.devices():
        lab.dm.remove(info.name)
    assert not [
        name
        for fd in Path("/proc/self/fd").iterdir()
        if fd.is_symlink() and (name := os.readlink(fd)).startswith(str(lab.folder))
    ]


# -- what is saved -----------------------------------------------------------------------------


def refuse_size(lab: Lab) -> None:
    """The file becomes too short for the table between load and resume."""
    disk = lab.file("disk", 16)
    lab.dm.load("x", parse_table(f"0 16 linear {disk} 0"))
    os.truncate(disk, 8 * SECTOR)
    with pytest.raises(TableError, match="too small"):
        lab.dm.resume("x")


def refuse_handover(lab: Lab) -> None:
    """The source of a handover is not suspended."""
    snapshot = f"0 16 snapshot {lab.file('origin', 16)} {lab.file('cow', 64)} P 8"
    lab.device("source", snapshot)
    lab.dm.load("x", parse_table(snapshot))
    with pytest.raises(TableError, match="until source is suspended"):
        lab.dm.resume("x")


def refuse_removal(lab: Lab) -> None:
    """A forced one of a device in use leaves it with a table of errors."""
    handle = lab.dm.mapped("x").open(write=False)
    with pytest.raises(BusyError):
        lab.dm.remove("x", force=True)
    handle.close()


@pytest.mark.parametrize("refuse", [refuse_size, refuse_handover, refuse_removal])
def test_a_refusal_half_way_tells_of_what_it_has_changed(
    lab: Lab, refuse: Callable[[Lab], None]
) -> None:
    lab.device("x", "0 8 zero")
    before = lab.dm.snapshot_state()
    saved: list[dict[str, Any]] = []
    lab.dm.on_change.append(lambda: saved.append(lab.dm.snapshot_state()))
    refuse(lab)
    assert saved[-1] == lab.dm.snapshot_state() != before


def test_a_device_below_that_is_renamed_while_the_state_is_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are kept by the names that they hold, not by those of a moment later."""
    lab.device("below", "0 8 zero")
    lab.device("above", "0 8 linear below 0")
    lines_now = state._lines_now

    def renamed(mapper: LocalMapper, table: Table) -> list[list[Any]]:
        found = lines_now(mapper, table)
        if table is lab.dm.mapped("above").live:
            monkeypatch.undo()
            lab.dm.rename("below", "under")
        return found

    monkeypatch.setattr(state, "_lines_now", renamed)
    told = []
    for _ in range(2):
        devices = {device["name"]: device for device in lab.dm.snapshot_state()["devices"]}
        told.append(devices["above"]["table"][0][3])
    assert told == ["below 0", "under 0"]
