"""Devices over a suspended one: they come back after a kill, and go down with it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from tests.unit.dm.lab import header
from tests.unit.dm.stage_lab import StageLab
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError, TableError

pytestmark = pytest.mark.timeout(20)

SECTORS = 256


def make(mapper: LocalMapper, name: str, line: str) -> None:
    mapper.create(name)
    mapper.load(name, parse_table(line))
    mapper.resume(name)


def stack(folder: Path) -> LocalMapper:
    """As LVM stacks a snapshot: linear devices for the origin's and the COW's extents."""
    mapper = LocalMapper()
    for name in ("real", "cow"):
        (folder / name).write_bytes(bytes(SECTORS * 512))
        make(mapper, name, f"0 {SECTORS} linear {folder / name} 0")
    make(mapper, "snap", f"0 {SECTORS} snapshot real cow P 8")
    make(mapper, "origin", f"0 {SECTORS} snapshot-origin real")
    return mapper


SUSPENDED = [("cow",), ("real",), ("snap", "cow"), ("origin", "snap", "cow", "real")]


@pytest.mark.parametrize("names", SUSPENDED)
def test_they_come_back_after_a_kill(tmp_path: Path, names: tuple[str, ...]) -> None:
    killed = stack(tmp_path)
    killed.mapped("origin").write(0, b"x" * 4096)
    for name in names:
        killed.suspend(name)
    state = killed.snapshot_state()
    killed.shutdown()
    mapper = LocalMapper()
    assert mapper.restore_state(state) == []
    assert sorted(d.name for d in mapper.all_mapped() if d.suspended) == sorted(names)
    for name in reversed(names):
        mapper.resume(name)
    assert mapper.mapped("snap").read(0, 4096) == bytes(4096)
    assert mapper.mapped("origin").read(0, 4096) == b"x" * 4096
    mapper.shutdown()


@pytest.mark.parametrize("names", SUSPENDED)
def test_they_go_down_with_it(tmp_path: Path, names: tuple[str, ...]) -> None:
    """And a write that waits at the gate is refused: the snapshot may not be there for it."""
    mapper = stack(tmp_path)
    mapper.mapped("origin").write(0, b"x" * 4096)
    for name in names:
        mapper.suspend(name)
    refused = []

    def wait() -> None:
        with pytest.raises(DeviceError) as raised:
            device.write(8192, b"y" * 512)
        refused.append(raised.value)

    device = mapper.mapped(names[0])
    writer = threading.Thread(target=wait)
    writer.start()
    assert device.suspended
    assert mapper.shutdown() == []
    writer.join(10)
    assert len(refused) == 1
    assert (tmp_path / "real").read_bytes()[:4096] == b"x" * 4096
    for name in ("real", "cow"):
        assert b"y" * 512 not in (tmp_path / name).read_bytes()


def test_a_merge_goes_down_over_it(tmp_path: Path) -> None:
    mapper = stack(tmp_path)
    mapper.mapped("origin").write(0, b"x" * 65536)
    mapper.remove("origin")
    mapper.suspend("snap")
    mapper.suspend("real")
    mapper.load("snap", parse_table(f"0 {SECTORS} snapshot-merge real cow P 8"))
    mapper.resume("snap")
    mapper.shutdown()
    again = LocalMapper()
    make(again, "m", f"0 {SECTORS} snapshot-merge {tmp_path / 'real'} {tmp_path / 'cow'} P 8")
    device = again.mapped("m")
    for _ in range(1000):
        if again.status("m")[0].params.startswith("16/256 16"):
            break
        device.wait_event(device.event_nr, 0.01)
    assert device.read(0, 65536) == bytes(65536)
    again.shutdown()


def test_no_origin_comes_back_beside_what_cannot_be_understood(tmp_path: Path) -> None:
    """It may have been a snapshot, which writes to the origin would leave behind."""
    killed = stack(tmp_path)
    state = killed.snapshot_state()
    killed.shutdown()
    (snap,) = [d for d in state["devices"] if d["name"] == "snap"]
    del snap["minor"]
    mapper = LocalMapper()
    problems = mapper.restore_state(state)
    assert len(problems) == 2, problems
    assert {d.name for d in mapper.all_mapped() if d.live} == {"real", "cow"}
    mapper.shutdown()


def invalid(folder: Path) -> LocalMapper:
    """A stack whose snapshot turned invalid, which its COW could not be told; that is suspended."""
    lab = StageLab(folder)
    for name in ("origin", "cow"):
        lab.device(f"{name}-below", f"0 {SECTORS} linear {lab.file(name, SECTORS)} 0")
    lab.device("snap", f"0 {SECTORS} snapshot origin-below cow-below P 8")
    lab.device("org", f"0 {SECTORS} snapshot-origin origin-below")
    lab.faults["cow"].fail("write")
    lab.dm.mapped("org").write(0, b"x" * 4096)
    lab.dm.mapped("org").flush()
    assert lab.status("snap") == "Invalid"
    lab.dm.suspend("cow-below")
    lab.faults["cow"].clear()
    return lab.dm


@pytest.mark.parametrize("name", ["snap", "org"])
def test_a_mark_does_not_wait_for_it(tmp_path: Path, name: str) -> None:
    """Who suspended it may be about to suspend its users, and resume it last."""
    mapper = invalid(tmp_path)
    mapper.suspend(name)
    mapper.resume(name)
    mapper.mapped("org").flush()
    assert header(f"{tmp_path}/cow")[1] == 1
    mapper.resume("cow-below")
    mapper.mapped(name).flush()
    assert header(f"{tmp_path}/cow")[1] == 0
    mapper.shutdown()


def test_nor_does_it_go_with_its_snapshot(tmp_path: Path) -> None:
    mapper = invalid(tmp_path)
    with pytest.raises(DeviceError, match="one of them is suspended") as refused:
        mapper.remove("snap")
    assert refused.value.errno == errno.EBUSY
    table = parse_table(f"0 {SECTORS} error")
    mapper.load("snap", table)
    with pytest.raises(TableError, match="keeps its table"):
        mapper.resume("snap")
    mapper.resume("cow-below")
    mapper.load("snap", table)
    mapper.resume("snap")
    assert header(f"{tmp_path}/cow")[1] == 0
    mapper.shutdown()
