"""mirror: what is copied when, the table and status of the kernel, failing legs."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from tests.unit.dm.lab import SECTOR, Lab
from tests.unit.dm.test_failures import FaultyLab
from ulvm.dm.device import MappedDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.state import describe, restore
from ulvm.dm.table import parse_table
from ulvm.dm.targets.mirror import MirrorTarget
from ulvm.errors import DeviceError, TableError

SECTORS = 8192
LINE = "0 8192 mirror core 1 1024 2 {0} 0 {1} 64"


def wait_status(lab: Lab, name: str, *wanted: str) -> None:
    deadline = time.monotonic() + 20
    while lab.status(name) not in wanted:
        assert time.monotonic() < deadline, lab.status(name)
        time.sleep(0.002)


def test_all_is_copied_and_writes_reach_both(lab: Lab) -> None:
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS + 64)
    content = bytearray(lab.fill_pattern(source, SECTORS))
    lab.device("m", LINE.format(source, target))
    assert lab.table("m") == "core 1 1024 2 240:0 0 240:1 64"
    wait_status(lab, "m", "2 240:0 240:1 8/8 1 AA 1 core")
    deadline = time.monotonic() + 20
    while not lab.dm.info("m").event_nr:
        assert time.monotonic() < deadline, "the end is an event"
    lab.write("m", 1000, 100, 0x77)
    content[1000 * SECTOR : 1100 * SECTOR] = b"\x77" * (100 * SECTOR)
    assert lab.read("m", 0, SECTORS) == content
    assert Path(source).read_bytes() == content
    assert Path(target).read_bytes()[64 * SECTOR :] == content


def test_a_copy_under_writes_is_the_same_in_the_end(lab: Lab) -> None:
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS + 64)
    lab.fill_pattern(source, SECTORS)
    lab.device("m", LINE.format(source, target))

    def write(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(200):
            lab.write("m", choose.randrange(SECTORS - 64), choose.randrange(1, 64), seed)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    wait_status(lab, "m", "2 240:0 240:1 8/8 1 AA 1 core")
    lab.dm.suspend("m")
    assert Path(target).read_bytes()[64 * SECTOR :] == Path(source).read_bytes()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("core", "Insufficient mirror log arguments"),
        ("core x 8", "Invalid mirror log argument count"),
        ("core 3 8", "Insufficient mirror log arguments"),
        ("core 1 7 2 {0} 0 {1} 0", "Error creating mirror dirty log"),
        ("core 1 16384 2 {0} 0 {1} 0", "Error creating mirror dirty log"),
        ("disk 2 {0} 8 2 {0} 0 {1} 0", "Error creating mirror dirty log"),
        ("core 1 1024", "Invalid number of mirrors"),
        ("core 1 1024 1 {0} 0", "Invalid number of mirrors"),
        ("core 1 1024 2 {0} 0 {1}", "Too few mirror arguments"),
        ("core 1 1024 2 {0} 0 {1} x", "Invalid offset"),
        ("core 1 1024 2 {0} 0 {1} 0 2 handle_errors", "Not enough arguments"),
        ("core 1 1024 2 {0} 0 {1} 0 1 nonsense", "Unrecognised feature requested"),
        ("core 1 1024 2 {0} 0 {1} 0 1 keep_log", "keep_log feature requires"),
        ("core 1 1024 2 {0} 0 {1} 0 1 handle_errors more", "Too many mirror arguments"),
    ],
)
def test_lines_refused(lab: Lab, params: str, message: str) -> None:
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS)
    with pytest.raises(TableError, match=message):
        lab.device("m", f"0 {SECTORS} mirror {params.format(source, target)}")


def test_nosync_trusts_the_copy(lab: Lab) -> None:
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS)
    lab.device("m", f"0 {SECTORS} mirror core 2 512 nosync 2 {source} 0 {target} 0 1 handle_errors")
    assert lab.table("m") == "core 2 512 nosync 2 240:0 0 240:1 0 1 handle_errors"
    assert lab.status("m") == "2 240:0 240:1 16/16 1 AA 1 core"


def test_a_copy_that_fails_is_out_of_sync_and_no_writer_sees_it(tmp_path: Path) -> None:
    lab = FaultyLab(tmp_path)
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS + 64)
    lab.fill_pattern(source, SECTORS)
    lab.device("m", LINE.format(source, target))
    wait_status(lab, "m", "2 240:0 240:1 8/8 1 AA 1 core")
    lab.faults["target"].fail("write")
    lab.write("m", 1000, 100)  # over the border of two regions
    assert lab.status("m") == "2 240:0 240:1 6/8 1 AD 1 core"
    lab.faults["target"].clear()
    lab.dm.suspend("m")
    lab.dm.resume("m")
    wait_status(lab, "m", "2 240:0 240:1 8/8 1 AA 1 core")
    lab.faults["target"].fail("flush")
    lab.dm.suspend("m")
    assert lab.status("m") == "2 240:0 240:1 0/8 1 AF 1 core"
    lab.dm.shutdown()


def test_reads_go_to_the_copy_where_it_is_in_sync(tmp_path: Path) -> None:
    lab = FaultyLab(tmp_path)
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS + 64)
    content = lab.fill_pattern(source, SECTORS)
    lab.device("m", LINE.format(source, target))
    wait_status(lab, "m", "2 240:0 240:1 8/8 1 AA 1 core")
    lab.faults["source"].fail("read")
    assert lab.read("m", 500, 1000) == content[500 * SECTOR : 1500 * SECTOR]
    assert lab.status("m") == "2 240:0 240:1 8/8 1 RA 1 core"
    lab.faults["source"].fail("write")
    with pytest.raises(DeviceError):
        lab.write("m", 0, 8)
    lab.dm.shutdown()


def test_one_that_was_suspended_copies_nothing_when_it_is_brought_back(lab: Lab) -> None:
    """A pvmove was ended and its daemon killed: the second leg is in use for itself by then."""
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS + 64)
    lab.fill_pattern(source, SECTORS)
    lab.device("m", LINE.format(source, target))
    wait_status(lab, "m", "2 240:0 240:1 8/8 1 AA 1 core")
    lab.dm.suspend("m")
    state = describe(lab.dm)
    lab.dm.shutdown()
    newer = b"\x55" * ((SECTORS + 64) * SECTOR)
    Path(target).write_bytes(newer)
    again = LocalMapper()
    assert restore(again, state) == []
    assert again.info("m").suspended
    assert Path(target).read_bytes() == newer
    again.resume("m")
    deadline = time.monotonic() + 20
    while not again.status("m")[0].params.endswith("8/8 1 AA 1 core"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert Path(target).read_bytes()[64 * SECTOR :] == Path(source).read_bytes()
    again.shutdown()


def test_without_a_thread_nothing_is_copied_until_it_is_resumed(
    lab: Lab, no_threads: pytest.MonkeyPatch
) -> None:
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS + 64)
    lab.device("m", LINE.format(source, target))
    assert lab.status("m") == "2 240:0 240:1 0/8 1 SA 1 core"
    no_threads.undo()
    lab.dm.suspend("m")
    lab.dm.resume("m")
    wait_status(lab, "m", "2 240:0 240:1 8/8 1 AA 1 core")
    lab.dm.remove("m")


def test_want_of_memory_while_it_copies_is_seen(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise MemoryError

    monkeypatch.setattr(MirrorTarget, "_copy", fail)
    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS + 64)
    lab.device("m", LINE.format(source, target))
    wait_status(lab, "m", "2 240:0 240:1 0/8 1 SA 1 core")


def test_a_resume_that_fails_behind_its_beginning_leaves_nothing_copying(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that finds no place for what a killed process left."""

    def fail(_: MappedDevice) -> None:
        raise MemoryError

    source, target = lab.file("source", SECTORS), lab.file("target", SECTORS + 64)
    lab.dm.create("m")
    lab.dm.load("m", parse_table(LINE.format(source, target)))
    with monkeypatch.context() as once:
        once.setattr(MappedDevice, "opening", fail)
        with pytest.raises(MemoryError):
            lab.dm.resume("m")
    (mirror,) = lab.dm.mapped("m").targets
    assert isinstance(mirror, MirrorTarget)
    assert mirror._worker is None
    assert lab.dm.info("m").suspended
    lab.dm.resume("m")
    wait_status(lab, "m", "2 240:0 240:1 8/8 1 AA 1 core")
