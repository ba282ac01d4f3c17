"""The most that a restore may put into a COW."""

from __future__ import annotations

from ulvm.activation.states import LvState
from ulvm.activation.status import SnapshotStatus
from ulvm.backup.cow_room import Short, short_of_room
from ulvm.dm_ioctl import DeviceInfo
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    PhysicalVolume,
    SnapshotSegment,
    StripedSegment,
    VolumeGroup,
)

MIB = 1 << 20
CHUNK = 8


def group(cow_extents: int) -> VolumeGroup:
    """An origin of 64 MiB, 16 extents of 4 MiB, and its snapshot `s`."""
    pv = PhysicalVolume("pv", "/dev/sda", 1 << 20, 2048, 100)
    lvs = (
        LogicalVolume("db", "uuid-1", (StripedSegment(0, 16, (Area("pv", 0),)),)),
        LogicalVolume("s", "uuid-2", (StripedSegment(0, cow_extents, (Area("pv", 16),)),)),
        LogicalVolume("snapshot0", "uuid-3", (SnapshotSegment(0, 16, CHUNK, "db", "s"),)),
    )
    return VolumeGroup("vg", "vg-uuid", 8192, pvs=(pv,), lvs=lvs)


def states(status: SnapshotStatus) -> dict[str, LvState]:
    info = DeviceInfo("vg-s", "LVM-s", 253, 0, 0, 0, False, True, False, False, 1, 64 * MIB)
    return {"s": LvState(info, status)}


def held(mib: int) -> dict[str, LvState]:
    """The COW holds so much data."""
    return states(SnapshotStatus(mib * 2048 + 16, 1 << 20, 16))


def test_what_is_written_has_to_fit_on_an_origin_and_on_a_snapshot() -> None:
    vg = group(cow_extents=4)
    for name in ("db", "s"):
        assert short_of_room(vg, name, held(0), 15 * MIB) == []
        assert short_of_room(vg, name, held(0), 16 * MIB) == [Short("s", 4, 5)]


def test_what_it_holds_may_be_other_chunks() -> None:
    assert short_of_room(group(cow_extents=4), "db", held(8), 7 * MIB) == []
    assert short_of_room(group(cow_extents=4), "db", held(8), 8 * MIB) == [Short("s", 4, 5)]


def test_it_never_holds_more_than_all_chunks() -> None:
    assert short_of_room(group(cow_extents=17), "db", held(64), 64 * MIB) == []
    assert short_of_room(group(cow_extents=16), "db", held(64), 64 * MIB) == [Short("s", 16, 17)]


def test_nothing_is_lost_with_one_that_overflowed() -> None:
    for status in (SnapshotStatus(invalid=True), SnapshotStatus(overflow=True)):
        assert short_of_room(group(cow_extents=1), "db", states(status), 64 * MIB) == []


def test_one_that_cannot_be_asked_may_hold_anything() -> None:
    assert short_of_room(group(cow_extents=16), "db", {}, MIB) == [Short("s", 16, 17)]
