"""Suspend, resume and the handover of exceptions."""

from __future__ import annotations

import threading

import pytest

from tests.unit.dm.lab import SECTOR, Lab, store_records
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError, TableError


@pytest.fixture
def pair(lab: Lab) -> tuple[str, str]:
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    lab.fill_pattern(origin, 8192)
    lab.device("org", f"0 8192 snapshot-origin {origin}")
    lab.device("snap", f"0 8192 snapshot {origin} {cow} P 8")
    lab.write("org", 80, 8)
    return origin, cow


def test_reload_of_the_same_device_hands_over(lab: Lab, pair: tuple[str, str]) -> None:
    origin, cow = pair
    lab.dm.load("snap", parse_table(f"0 8192 snapshot {origin} {cow} PO 32"))
    assert lab.dm.table("snap", inactive=True)[0].params.endswith("PO 0")
    lab.dm.resume("snap")
    assert lab.table("snap").endswith("PO 8")
    assert lab.status("snap") == "24/4096 16"
    lab.write("org", 160, 8)
    assert lab.status("snap") == "32/4096 16"
    assert int.from_bytes(lab.read("snap", 160, 1)[:8], "little") == 160
    assert store_records(cow, 8) == [(10, 2), (20, 3)]


def test_destination_needs_a_suspended_source(lab: Lab, pair: tuple[str, str]) -> None:
    origin, cow = pair
    lab.dm.create("other")
    lab.dm.load("other", parse_table(f"0 8192 snapshot {origin} {cow} P 8"))
    with pytest.raises(TableError, match="until source is suspended") as caught:
        lab.dm.resume("other")
    assert caught.value.errno == 22
    # As the kernel: the new table is live, the device stays suspended.
    info = lab.dm.info("other")
    assert info.suspended
    assert info.live_table
    assert lab.status("other") == "0/4096 0"
    lab.dm.suspend("snap")
    with pytest.raises(TableError, match="Unable to resume snapshot source"):
        lab.dm.resume("snap")
    lab.dm.resume("other")
    assert lab.status("other") == "24/4096 16"
    lab.dm.resume("snap")
    assert lab.status("snap") == "Invalid"


def test_a_third_snapshot_of_the_pair_is_refused(lab: Lab, pair: tuple[str, str]) -> None:
    origin, cow = pair
    for name in ("two", "three"):
        lab.dm.create(name)
    lab.dm.load("two", parse_table(f"0 8192 snapshot {origin} {cow} P 8"))
    with pytest.raises(TableError, match="pairing for exception table handover failed"):
        lab.dm.load("three", parse_table(f"0 8192 snapshot {origin} {cow} P 8"))


def test_removing_the_source_cancels_the_handover(lab: Lab, pair: tuple[str, str]) -> None:
    origin, cow = pair
    lab.dm.create("other")
    lab.dm.load("other", parse_table(f"0 8192 snapshot {origin} {cow} P 8"))
    lab.dm.remove("snap")
    assert any("Cancelling snapshot handover." in m for m in lab.messages)
    lab.dm.resume("other")
    assert lab.status("other") == "Invalid"
    lab.dm.remove("other")
    lab.device("snap", f"0 8192 snapshot {origin} {cow} P 8")
    assert lab.status("snap") == "24/4096 16"


def test_a_snapshot_copies_out_from_its_first_resume(lab: Lab) -> None:
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    lab.device("org", f"0 8192 snapshot-origin {origin}")
    lab.dm.create("snap")
    lab.dm.load("snap", parse_table(f"0 8192 snapshot {origin} {cow} P 8"))
    lab.write("org", 0, 8)
    lab.dm.resume("snap")
    assert lab.status("snap") == "16/4096 16"
    lab.dm.suspend("snap")
    lab.write("org", 8, 8)
    lab.dm.resume("snap")
    assert lab.status("snap") == "24/4096 16"


def test_suspend_holds_requests_back(lab: Lab, pair: tuple[str, str]) -> None:
    lab.dm.suspend("org")
    assert lab.dm.info("org").suspended
    done = threading.Event()

    def writer() -> None:
        lab.write("org", 1000, 8, 0x31)
        done.set()

    thread = threading.Thread(target=writer)
    thread.start()
    assert not done.wait(0.2)
    assert int.from_bytes(lab.read("snap", 1000, 1)[:8], "little") == 1000
    assert lab.status("snap") == "24/4096 16"
    lab.dm.resume("org")
    thread.join(10)
    assert done.is_set()
    assert lab.status("snap") == "32/4096 16"


def test_requests_held_back_fail_when_the_device_goes(lab: Lab) -> None:
    disk = lab.file("disk", 64)
    lab.device("dev", f"0 64 linear {disk} 0")
    device = lab.dm.mapped("dev")
    lab.dm.suspend("dev")
    errors: list[int] = []

    def reader() -> None:
        try:
            device.read(0, SECTOR)
        except DeviceError as error:
            errors.append(error.errno)

    thread = threading.Thread(target=reader)
    thread.start()
    lab.dm.remove("dev")
    thread.join(10)
    assert errors == [6]


def test_first_writes_of_many_threads(lab: Lab) -> None:
    """Eight writers on an origin with two snapshots: every snapshot keeps every old byte."""
    origin = lab.file("origin", 8192)
    a, b = lab.file("a.cow", 40000), lab.file("b.cow", 40000)
    before = lab.fill_pattern(origin, 8192)
    lab.device("org", f"0 8192 snapshot-origin {origin}")
    lab.device("a", f"0 8192 snapshot {origin} {a} P 8")
    lab.device("b", f"0 8192 snapshot {origin} {b} P 32")
    problems: list[str] = []

    def work(number: int) -> None:
        for n in range(number, 8192 // 4, 8):
            lab.write("org", n * 4, 4, 0x80 + number)
            if lab.read("a", n * 4, 4) != before[n * 4 * SECTOR : (n + 1) * 4 * SECTOR]:
                problems.append(f"a at {n * 4}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []
    assert lab.read("a", 0, 8192) == before
    assert lab.read("b", 0, 8192) == before
    assert len(store_records(a, 8)) == 1024
    assert sorted(old for old, _ in store_records(b, 32)) == list(range(256))


def test_state_is_restored_elsewhere(lab: Lab, pair: tuple[str, str]) -> None:
    origin, _cow = pair
    lab.device("lin", f"0 100 linear {origin} 0")
    lab.device("over", "0 50 linear lin 10")
    lab.device("tr", f"0 8192 snapshot {origin} {lab.file('n.cow', 4096)} N 8")
    state = lab.dm.snapshot_state()
    lab.dm.shutdown()
    again = Lab(lab.folder)
    assert again.dm.restore_state(state) == []
    assert again.status("snap") == "24/4096 16"
    assert again.status("tr") == "Invalid"
    assert again.table("over").startswith("253:2 10")
    assert [d.minor for d in again.dm.devices()] == [0, 1, 2, 3, 4]
    again.dm.shutdown()
    (lab.folder / "cow").unlink()
    third = Lab(lab.folder)
    problems = third.dm.restore_state(state)
    assert [problem.partition(":")[0] for problem in problems] == ["snap", "org"]
    assert problems[0].startswith("snap:")
    third.dm.shutdown()


def test_an_origin_waits_for_a_snapshot_that_has_anothers_name(
    lab: Lab, pair: tuple[str, str]
) -> None:
    """In a state that nobody of ours wrote: the second of a name is not brought back."""
    origin, _cow = pair
    lab.device("twin", f"0 8192 snapshot {origin} {lab.file('twin.cow', 4096)} P 8")
    state = lab.dm.snapshot_state()
    lab.dm.shutdown()
    next(d for d in state["devices"] if d["name"] == "twin")["name"] = "snap"
    again = Lab(lab.folder)
    problems = again.dm.restore_state(state)
    assert [problem.partition(":")[0] for problem in problems] == ["snap", "org"]
    assert again.dm.table("org") == []
    again.dm.shutdown()
