"""What is done for many of a thing costs in proportion to their number, counted in calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from tests.unit.activation.lab import Lab
from ulvm.daemon.state import STATE_FILE, StateKeeper, read_state
from ulvm.dm.mapper import LocalMapper
from ulvm.dm_ioctl import TableLine
from ulvm.metadata.allocate import free_areas
from ulvm.metadata.model import Area, LogicalVolume, PhysicalVolume, StripedSegment, VolumeGroup
from ulvm.metadata.tree import parse
from ulvm.vgstore.read import Texts


def calls(work: Callable[[], object]) -> int:
    """How many functions of Python's it enters."""
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def group(volumes: int) -> VolumeGroup:
    """So many volumes of an extent, of which each has a PV of its own, and one PV that is gone."""
    pvs = [PhysicalVolume(f"p{n}", f"/dev/{n}", 1 << 20, 2048, 100) for n in range(volumes)]
    lvs = [
        LogicalVolume(f"lv{n}", f"u{n}", (StripedSegment(0, 1, (Area(f"p{n}", 5),)),))
        for n in range(volumes)
    ]
    gone = frozenset({"p0"})
    return VolumeGroup("vg", "v", 8192, pvs=tuple(pvs), lvs=tuple(lvs), missing_uuids=gone)


REPORTED: dict[str, Callable[[VolumeGroup, int], object]] = {
    "visible volumes": lambda vg, n: len(vg.visible_lvs()),
    "free extents": lambda vg, n: vg.free_count,
    "extents in use": lambda vg, n: vg.allocated(f"p{n}"),
    "free areas": lambda vg, n: free_areas(vg, vg.pvs[n]),
    "a PV": lambda vg, n: vg.pv(f"p{n}"),
    "a volume": lambda vg, n: vg.lv_by_uuid(f"u{n}"),
    "what is missing": lambda vg, n: vg.partial,
    "what a volume lacks": lambda vg, n: vg.is_partial(vg.lvs[n]),
}


@pytest.mark.parametrize("what", REPORTED)
def test_each_row_of_a_report_costs_the_same(what: str) -> None:
    def report(rows: int) -> int:
        vg = group(rows)
        return calls(lambda: [REPORTED[what](vg, n) for n in range(rows)])

    assert report(400) < 2.2 * report(200)


def test_a_text_that_was_parsed_is_not_kept() -> None:
    text = "vg {\n\tseqno = 1\n}\n"
    before = sys.getrefcount(text)
    assert parse(text) == {"vg": {"seqno": 1}}
    assert sys.getrefcount(text) == before


def test_a_text_is_parsed_once_for_all_looks_of_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    def parsed(text: bytes) -> VolumeGroup:
        asked.append(text)
        return group(1)

    monkeypatch.setattr("ulvm.vgstore.read.vg_from_text", parsed)
    texts = Texts()
    for after in (b"b\0", b"b\0", b"c\0", b"b\0"):
        texts.next_scan()
        assert texts.parsed(b"a\0") is texts.parsed(b"a\0")
        texts.parsed(after)
    assert asked == [b"a", b"b", b"c", b"b"]  # The scan before is all that is known.


@pytest.fixture
def mapper(tmp_path: Path) -> LocalMapper:
    with (tmp_path / "disk").open("xb") as disk:
        disk.truncate(1 << 24)
    return LocalMapper()


def test_a_change_of_one_device_does_not_describe_the_tables_of_others(
    tmp_path: Path, mapper: LocalMapper
) -> None:
    keeper = StateKeeper(tmp_path, lambda: mapper.snapshot_state()["devices"])
    mapper.on_change.append(keeper.save)
    lines = [TableLine(n, 1, "linear", f"{tmp_path}/disk {2 * n}") for n in range(2000)]
    mapper.create("long")
    mapper.load("long", lines)
    mapper.resume("long")
    assert calls(lambda: mapper.create("other")) < 1000
    mapper.shutdown()


def test_the_state_follows_the_names_of_lower_devices(tmp_path: Path, mapper: LocalMapper) -> None:
    for name, below in (("low", f"{tmp_path}/disk"), ("top", "low")):
        mapper.create(name)
        mapper.load(name, [TableLine(0, 8, "linear", f"{below} 0")])
        mapper.resume(name)
    assert mapper.snapshot_state()["devices"][1]["table"] == [[0, 8, "linear", "low 0"]]
    mapper.rename("low", "lower")
    assert mapper.snapshot_state()["devices"][1]["table"] == [[0, 8, "linear", "lower 0"]]
    mapper.shutdown()


def test_a_state_that_is_as_it_was_is_not_written_again(tmp_path: Path) -> None:
    devices = [{"name": "a", "uuid": "", "minor": 0}]
    keeper = StateKeeper(tmp_path, lambda: devices)
    path = tmp_path / STATE_FILE
    keeper.save()
    first = path.stat().st_ino
    with path.open("rb"):  # its inode is not used again
        keeper.save()
        assert path.stat().st_ino == first
        devices[0]["minor"] = 1
        keeper.save()
        assert path.stat().st_ino != first
    keeper.drop()
    keeper.save()
    state = read_state(tmp_path)
    assert state is not None
    assert state["devices"] == devices


def test_a_deactivation_asks_once_for_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path)
    lab.pv()
    lab.linear("a", 1)
    lab.activator.activate(lab.vg, "a")
    asked = []
    devices = lab.dm.devices
    monkeypatch.setattr(lab.dm, "devices", lambda: asked.append(1) or devices())
    lab.activator.deactivate(lab.vg, "a")
    assert len(asked) == 1
