"""A daemon in this process: what is kept for the next one, and the order of a stop, in which a
failure does not hinder the rest."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.dm.stage_lab import StageLab
from tests.waiting import until
from ulvm.blockdev.file import FileDevice
from ulvm.daemon.client import CONTROL_SOCKET, connect
from ulvm.daemon.service import STAGE_DIR, Service
from ulvm.daemon.state import STATE_FILE, read_state, write_state
from ulvm.dm.device import MappedDevice
from ulvm.dm.exceptions.persistent import PersistentStore
from ulvm.dm_ioctl import TableLine
from ulvm.errors import DeviceError, NotSupportedError, RefusedError
from ulvm.vgstore.host import Host


@pytest.fixture
def service(short_tmp: Path) -> Iterator[Service]:
    """One device, a state file, all doors."""
    for name in ("etc", "run"):
        (short_tmp / name).mkdir()
    service = Service(Host(short_tmp / "etc", short_tmp / "run"))
    service.start()
    service.mapper.create("zeros")
    service.mapper.load("zeros", [TableLine(0, 8, "zero")])
    service.mapper.resume("zeros")
    assert (short_tmp / "run" / STATE_FILE).exists()
    yield service
    service.stop()


@pytest.mark.parametrize(
    ("settings", "barriers", "slots"),
    [
        ("", True, 16384),
        ('ulvm { durability = "process" }', False, 16384),
        ("ulvm { stage_size = 0 }", True, 0),
        ("ulvm { stage_size = 1024 }", True, 256),
    ],
)
def test_the_mapper_has_the_settings_of_the_host(
    short_tmp: Path, settings: str, barriers: bool, slots: int
) -> None:
    """`slots`: pages of 4 KiB."""
    for name in ("etc", "run"):
        (short_tmp / name).mkdir()
    (short_tmp / "etc" / "ulvm.conf").write_text(settings)
    service = Service(Host(short_tmp / "etc", short_tmp / "run").with_settings(""))
    service.start()
    try:
        mapper = service.mapper
        assert (mapper._barriers, mapper._stage.slots) == (barriers, slots)
        assert mapper._stage.directory == short_tmp / "run" / STAGE_DIR
    finally:
        service.stop()


def test_the_daemon_asks_to_be_an_io_flusher() -> None:
    """PR_SET_IO_FLUSHER, in a process of its own. The kernel says yes to CAP_SYS_RESOURCE."""
    program = (
        "from unittest.mock import Mock; from ulvm.daemon import process;"
        "process._libc = libc = Mock(); libc().prctl.return_value = 0;"
        "process.prepare(); print(libc().prctl.call_args.args)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(57, 1, 0, 0, 0)\n"


def test_without_libfuse_it_serves_all_the_same(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise NotSupportedError("FUSE needs libfuse3: there is none.")

    monkeypatch.setattr("ulvm.exports.fuse.load_mfusepy", absent)
    (short_tmp / "run").mkdir()
    service = Service(Host(short_tmp / "etc", short_tmp / "run"))
    service.start()
    try:
        client = connect(short_tmp / "run", start=False)
        assert client is not None
        assert client.daemon_status()["fuse_problem"] == "FUSE needs libfuse3: there is none."
        client.create("zeros")
        client.close()
    finally:
        service.stop()


@pytest.mark.parametrize("shortage", [RuntimeError("can't start new thread"), MemoryError()])
def test_without_a_thread_for_the_tree_it_serves_all_the_same(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, shortage: Exception
) -> None:
    """Where a killed daemon's mount is to be asked whether anybody serves it."""

    def ask(place: Path) -> None:
        raise shortage

    monkeypatch.setattr("ulvm.exports.fuse_session.clear_stale", ask)
    (short_tmp / "run").mkdir()
    service = Service(Host(short_tmp / "etc", short_tmp / "run"))
    service.start()
    try:
        assert service._status()["fuse_problem"] == (str(shortage) or "MemoryError()")
    finally:
        service.stop()


def test_no_command_reaches_the_daemon_once_its_doors_close(
    service: Service, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, seen = service._nbd.stop, []

    def look_and_stop() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            seen.append(sock.connect_ex(str(short_tmp / "run" / CONTROL_SOCKET)))
        stop()

    monkeypatch.setattr(service._nbd, "stop", look_and_stop)
    service.stop()
    assert 0 not in seen
    assert len(seen) == 1


@pytest.mark.parametrize("door", ["_control", "_monitor", "_nbd", "_fuse"])
def test_a_failure_does_not_hinder_the_rest_of_the_stop(
    service: Service, short_tmp: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    def fail() -> None:
        raise OSError("no")

    with monkeypatch.context() as failing:
        failing.setattr(getattr(service, door), "stop", fail)
        service.stop()
    assert service.mapper.all_mapped() == []
    assert not (short_tmp / "run" / STATE_FILE).exists()


def test_of_two_changes_at_once_the_later_one_has_its_link(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("etc", "run", "links"):
        (short_tmp / name).mkdir()
    settings = f'ulvm {{ device_links = 1 }} devices {{ dir = "{short_tmp}/links" }}'
    (short_tmp / "etc/ulvm.conf").write_text(settings)
    service = Service(Host(short_tmp / "etc", short_tmp / "run").with_settings(""))
    service.start()
    mapper = service.mapper

    def activate(name: str) -> None:
        mapper.create(name)
        mapper.load(name, [TableLine(0, 8, "zero")])
        mapper.resume(name)

    second = threading.Thread(target=activate, args=("second",))
    all_mapped = mapper.all_mapped

    def look_late() -> list[MappedDevice]:
        found = all_mapped()
        if any(device.live for device in found) and second.ident is None:
            second.start()
            second.join(1)  # it is through then, or waits for us
        return found

    try:
        monkeypatch.setattr(mapper, "all_mapped", look_late)
        # It looks at the devices as well, under a lock of its own.
        mapper.on_change.remove(service._state.save)
        activate("first")
        second.join()
        assert sorted(p.name for p in (short_tmp / "links/mapper").iterdir()) == ["first", "second"]
    finally:
        service.stop()


def test_a_change_during_the_stop_leaves_no_link(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told of it looks at the devices, and makes the links behind their removal."""
    for name in ("etc", "run", "links"):
        (short_tmp / name).mkdir()
    settings = f'ulvm {{ device_links = 1 }} devices {{ dir = "{short_tmp}/links" }}'
    (short_tmp / "etc/ulvm.conf").write_text(settings)
    service = Service(Host(short_tmp / "etc", short_tmp / "run").with_settings(""))
    service.start()
    service.mapper.create("first")
    service.mapper.load("first", [TableLine(0, 8, "zero")])
    late, go = threading.Event(), threading.Event()
    all_mapped = service.mapper.all_mapped

    def look_late() -> list[MappedDevice]:
        found = all_mapped()
        if threading.current_thread() is changing and found[0].live:
            late.set()
            go.wait(1)  # the stop waits for us, or is through
        return found

    def remove_links() -> None:
        unlink()
        go.set()

    unlink = service._unlink
    changing = threading.Thread(target=service.mapper.resume, args=("first",))
    monkeypatch.setattr(service, "_unlink", remove_links)
    monkeypatch.setattr(service.mapper, "all_mapped", look_late)
    service.mapper.on_change.remove(service._state.save)  # it looks at the devices as well
    changing.start()
    assert late.wait(20)
    service._unlink()
    changing.join()
    left = [path for path in (short_tmp / "links").rglob("*") if path.is_symlink()]
    monkeypatch.undo()
    service.stop()
    assert left == []


def kept(run_dir: Path) -> list[str]:
    state = read_state(run_dir)
    return [] if state is None else [device["name"] for device in state["devices"]]


def test_a_state_that_could_not_be_written_is_written_a_little_later(
    service: Service, short_tmp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing changes any more: it is the time alone that brings it. No older one is there
    meanwhile."""
    run_dir = short_tmp / "run"
    (run_dir / "state.new").mkdir()  # a file cannot be made there
    service.mapper.create("more")
    assert not (run_dir / STATE_FILE).exists()
    time.sleep(0.3)
    (run_dir / "state.new").rmdir()
    until(lambda: "the state file is written again" in caplog.messages)  # behind the file
    assert kept(run_dir) == ["zeros", "more"]
    said = caplog.messages
    assert [line.split(",")[0] for line in said if "state file" in line] == [
        "cannot write the state file",
        "the state file is written again",
    ]


def test_no_memory_for_the_state_is_no_other_fault(
    service: Service, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as failing:
        failing.setattr(json, "dump", fail)
        service.mapper.create("more")
    until(lambda: kept(short_tmp / "run") == ["zeros", "more"])


def test_what_changes_in_a_stop_is_there_for_the_next_one(
    service: Service, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a snapshot does that turns invalid, where the rest cannot be taken down."""

    def shutdown() -> list[str]:
        service.mapper.rename("zeros", "other")
        return ["it stays"]

    with monkeypatch.context() as once:
        once.setattr(service.mapper, "shutdown", shutdown)
        service.stop()
    assert kept(short_tmp / "run") == ["other"]


def test_nothing_is_written_behind_the_stop(service: Service, short_tmp: Path) -> None:
    run_dir = short_tmp / "run"
    (run_dir / "state.new").mkdir()
    service.mapper.create("more")
    service.stop()
    (run_dir / "state.new").rmdir()
    assert not service._state._thread.is_alive()
    service._state.save()
    assert not (run_dir / STATE_FILE).exists()


def test_what_is_lost_without_a_state_is_said(
    short_tmp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (short_tmp / "lab").mkdir()
    lab = StageLab(short_tmp / "lab", kept=True)
    lab.pair()
    lab.still()
    lab.put(0, 8, 0x11)
    lab.put(16, 8, 0x11)
    for name in ("etc", "run"):
        (short_tmp / name).mkdir()
    stages = short_tmp / "run" / STAGE_DIR
    shutil.copytree(lab.stages, stages)
    lab.dm.shutdown()
    (held,) = stages.iterdir()
    service = Service(Host(short_tmp / "etc", short_tmp / "run"))
    service.start()
    service.stop()
    assert [record.message for record in caplog.records if "lost" in record.message] == [
        "up to 8192 bytes that were written and not flushed are lost: "
        f"no device takes up {held} (no UUID)"
    ]
    assert list(stages.iterdir()) == []


def left_behind(folder: Path) -> Path:
    """The run directory of a killed daemon: its state, and a stage with what is on no disk."""
    (folder / "lab").mkdir()
    lab = StageLab(folder / "lab", kept=True)
    lab.pair()
    lab.still()
    lab.put(0, 8, 0x11)
    run_dir = folder / "run"
    run_dir.mkdir()
    shutil.copytree(lab.stages, run_dir / STAGE_DIR)
    write_state(run_dir, lab.dm.snapshot_state()["devices"])
    lab.dm.shutdown()
    return run_dir


def test_a_state_of_another_version_keeps_what_was_written(short_tmp: Path) -> None:
    run_dir = left_behind(short_tmp)
    files = [run_dir / STATE_FILE, *(run_dir / STAGE_DIR).iterdir()]
    state = json.loads(files[0].read_text())
    files[0].write_text(json.dumps({**state, "version": state["version"] + 1}))
    before = [file.read_bytes() for file in files]
    with pytest.raises(RefusedError, match="another version"):
        Service(Host(short_tmp, run_dir)).start()
    assert [file.read_bytes() for file in files] == before


def test_a_state_that_cannot_be_read_keeps_what_was_written(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = left_behind(short_tmp)
    files = [run_dir / STATE_FILE, *(run_dir / STAGE_DIR).iterdir()]
    before = [file.read_bytes() for file in files]
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == files[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path)

    with monkeypatch.context() as failing:
        failing.setattr(Path, "read_bytes", refuse)
        assert read_state(run_dir) is None
        with pytest.raises(RefusedError, match="cannot be read: Input/output error"):
            Service(Host(short_tmp, run_dir)).start()
    assert [file.read_bytes() for file in files] == before


def test_a_clock_that_is_set_does_not_change_how_long_it_runs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 0.0)
        assert 0 <= service._status()["uptime"] < 60


def killed(lab: StageLab, folder: Path) -> tuple[Service, Path]:
    """Another daemon that will bring back what there was, and the disks that it will find."""
    run_dir, disks = folder / "run", folder / "disks"
    run_dir.mkdir()
    shutil.copytree(lab.stages, run_dir / STAGE_DIR)
    shutil.copytree(lab.folder, disks)
    devices = json.dumps(lab.dm.snapshot_state()["devices"])
    write_state(run_dir, json.loads(devices.replace(str(lab.folder), str(disks))))
    lab.dm.shutdown()
    return Service(Host(folder, run_dir)), disks


def lost(run_dir: Path) -> list[list[str]]:
    """Of the devices of which the file has the tables."""
    state = read_state(run_dir)
    assert state is not None
    return [device["lost"] for device in state["devices"] if "table" in device]


def test_what_turns_invalid_at_a_start_is_invalid_behind_another_kill(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk takes no mark, and what waited in the stage is written to the origin. The other kill
    may come before all devices are back, so it is in the state before that is written."""
    (short_tmp / "lab").mkdir()
    lab = StageLab(short_tmp / "lab", kept=True)
    lab.pair(cow_sectors=64)
    lab.still()
    lab.put(0, 512, 0x11)
    service, _ = killed(lab, short_tmp)
    written: list[list[list[str]]] = []
    write = FileDevice.write_each

    def look(device: FileDevice, pieces: Sequence[tuple[int, memoryview]]) -> None:
        written.append(lost(short_tmp / "run"))
        write(device, pieces)

    def refuse(store: PersistentStore) -> None:
        raise DeviceError("no", errno=errno.EIO)

    def restore(state: dict[str, Any]) -> list[str]:
        problems = bring_back(state)
        until(lambda: bool(written))
        return problems

    bring_back = service.mapper.restore_state
    monkeypatch.setattr(PersistentStore, "mark_invalid", refuse)
    monkeypatch.setattr(FileDevice, "write_each", look)
    monkeypatch.setattr(service.mapper, "restore_state", restore)
    service.start()
    try:
        assert written[0] == lost(short_tmp / "run") == [["invalid"], []]
    finally:
        service.stop()


def test_what_overflows_at_a_start_is_in_the_state(short_tmp: Path) -> None:
    """Its COW has less room than there was."""
    (short_tmp / "lab").mkdir()
    lab = StageLab(short_tmp / "lab", kept=True)
    origin, cow = lab.file("origin", 4096), lab.file("cow", 64)
    lab.device("snap", f"0 4096 snapshot {origin} {cow} PO 8")
    lab.still("snap")
    lab.dm.mapped("snap").write(0, b"x" * (4 * 4096))
    service, disks = killed(lab, short_tmp)
    os.truncate(disks / "cow", 32 * 512)
    service.start()
    try:
        assert service.mapper.status("snap")[0].params == "Overflow"
        assert lost(short_tmp / "run") == [["overflow"]]
    finally:
        service.stop()
