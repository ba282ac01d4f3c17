"""Tables, orders and what is taken back. The minor numbers are those of the real LVM2."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.unit.activation.lab import EXTENT, Lab
from tests.waiting import until
from ulvm.activation.names import dm_uuid
from ulvm.activation.plan import plan_tree, root_of
from ulvm.activation.status import SnapshotStatus, parse_snapshot_status
from ulvm.dm_ioctl import TableLine
from ulvm.errors import BusyError, DeviceError, RefusedError, UlvmError
from ulvm.metadata.edit import rename_lv
from ulvm.metadata.model import Area, LogicalVolume, StripedSegment, VolumeGroup
from ulvm.metadata.move import start_move
from ulvm.metadata.segments import PvExtents
from ulvm.metadata.uuid import new_uuid


def test_a_plain_volume_is_one_device(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "base")
    assert lab.tables() == {"vg-base": "0 256 linear 240:0 2048"}
    assert lab.activator.is_active(lab.vg, "base")
    lab.activator.deactivate(lab.vg, "base")
    assert lab.dm.devices() == []


def test_a_snapshot_of_an_active_volume_makes_lvms_four_devices(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "base")
    old = lab.vg
    assert lab.swap(lab.snapshot("base", "snap", 2), old) == ["vg-base"]
    assert lab.tables() == {
        "vg-base": "0 256 snapshot-origin 253:1",
        "vg-base-real": "0 256 linear 240:0 2048",
        "vg-snap-cow": "0 128 linear 240:0 2304",
        "vg-snap": "0 256 snapshot 253:1 253:2 P 8",
    }
    assert not lab.suspended()


def test_the_snapshot_holds_what_was_there(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "base")
    lab.write("base", 16, 1)
    old = lab.vg
    lab.swap(lab.snapshot("base", "snap", 2), old)
    lab.write("base", 16, 2)
    assert lab.read("snap", 16) == b"\1" * 4096
    assert lab.read("base", 16) == b"\2" * 4096
    state = lab.activator.state(lab.vg, "snap")
    assert state is not None
    assert state.status == SnapshotStatus(24, 128, 16)


def test_activation_from_nothing_numbers_devices_as_lvm_does(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 2)
    lab.snapshot("base", "s2", 2, chunk=16)
    lab.activator.activate(lab.vg, "s2")
    assert {d.name: d.minor for d in lab.dm.devices()} == {
        "vg-base-real": 0,
        "vg-base": 1,
        "vg-s1-cow": 2,
        "vg-s1": 3,
        "vg-s2-cow": 4,
        "vg-s2": 5,
    }


def test_a_second_snapshot_suspends_the_origin_although_its_table_stays(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 2)
    lab.activator.activate(lab.vg, "base")
    old = lab.vg
    assert lab.swap(lab.snapshot("base", "s2", 2), old) == ["vg-base"]
    lab.write("base", 0, 7)
    assert lab.read("s1", 0) == lab.read("s2", 0) == bytes(4096)


def test_the_last_snapshot_takes_its_layers_with_it(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 2)
    lab.activator.activate(lab.vg, "base")
    lab.write("base", 0, 7)
    assert lab.swap(lab.without("s1"), lab.vg) == ["vg-base"]
    assert lab.tables() == {"vg-base": "0 256 linear 240:0 2048"}
    assert lab.read("base", 0) == b"\7" * 4096


def test_growing_a_cow_touches_the_cow_alone(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 1)
    lab.activator.activate(lab.vg, "base")
    cow = lab.vg.lv("s1")
    assert cow is not None
    grown = cow.segments[0]._replace(extent_count=3)
    assert lab.swap(lab.vg.with_lv(cow._replace(segments=(grown,))), lab.vg) == ["vg-s1-cow"]
    state = lab.activator.state(lab.vg, "s1")
    assert state is not None
    assert state.status is not None
    assert state.status.total == 3 * EXTENT


def test_a_rename_reaches_every_layer(lab: Lab) -> None:
    origin = lab.linear("base", 4)
    lab.snapshot("base", "s1", 1)
    lab.activator.activate(lab.vg, "base")
    new = lab.vg.with_lv(origin._replace(name="data"))._replace()
    hidden = next(v for v in new.lvs if v.snapshot_segment)
    new = new.with_lv(hidden._replace(segments=(hidden.snapshot_segment._replace(origin="data"),)))
    lab.swap(new, lab.vg)
    assert sorted(lab.tables()) == ["vg-data", "vg-data-real", "vg-s1", "vg-s1-cow"]


@pytest.mark.parametrize("name", ["a" * 121, "a-" * 45])
def test_a_name_too_long_for_a_device_is_refused_before_the_commit(lab: Lab, name: str) -> None:
    """vg-NAME-real, or with its dashes doubled."""
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 1)
    lab.activator.activate(lab.vg, "base")
    before = lab.tables()
    new = rename_lv(lab.vg, "base", name)
    with pytest.raises(RefusedError, match=f"{name} cannot have this name: .* would be too long"):
        lab.activator.swap(lab.vg, new, lambda: pytest.fail("It was committed."))
    assert lab.tables() == before
    assert lab.suspended() == []


@pytest.mark.parametrize("order", ["bca", "bac", "cba"])
def test_volumes_get_the_names_of_each_other(lab: Lab, order: str) -> None:
    """As vgcfgrestore may want it."""
    for number, name in enumerate("abc"):
        lab.linear(name, 1)
        lab.activator.activate(lab.vg, name)
        lab.write(name, 0, number)
    names = dict(zip("abc", order, strict=True))
    lvs = tuple(lv._replace(name=names[lv.name]) for lv in lab.vg.lvs)
    lab.swap(lab.vg._replace(lvs=lvs), lab.vg)
    for number, name in enumerate(order):
        assert lab.read(name, 0) == bytes([number]) * 4096


def test_names_that_were_given_half_way_are_given(lab: Lab) -> None:
    a, b = lab.linear("a", 1), lab.linear("b", 1)
    for name, fill in (("a", 1), ("b", 2)):
        lab.activator.activate(lab.vg, name)
        lab.write(name, 0, fill)
    lab.vg = lab.vg._replace(lvs=(a._replace(name="b"), b._replace(name="a")))
    lab.activator.refresh(lab.vg)
    assert (lab.read("a", 0)[:1], lab.read("b", 0)[:1]) == (b"\2", b"\1")
    lab.dm.rename("vg-a", dm_uuid(lab.vg.uuid, b.uuid))
    lab.activator.refresh(lab.vg)
    assert lab.read("a", 0)[:1] == b"\2"


def test_a_merge_runs_and_ends_in_one_plain_volume(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 2)
    lab.activator.activate(lab.vg, "base")
    lab.write("base", 0, 7)
    lab.write("s1", 64, 9)
    lab.swap(lab.merging("s1"), lab.vg, start_merge=True)
    assert lab.tables()["vg-base"] == "0 256 snapshot-merge 253:0 253:2 P 8"
    assert lab.tables()["vg-s1"] == "0 256 error "
    assert lab.read("base", 0) == bytes(4096)
    assert lab.read("base", 64) == b"\x09" * 4096
    state = lab.activator.state(lab.vg, "s1")
    assert state is not None
    assert state.status is not None
    assert state.status.merging
    lab.dm.suspend("vg-base")  # waits for the batch under way
    lab.dm.resume("vg-base")
    while not (status := lab.activator.state(lab.vg, "base")).status.merge_done:
        assert not status.status.merge_failed
    lab.swap(lab.without("s1"), lab.vg)
    assert lab.tables() == {"vg-base": "0 256 linear 240:0 2048"}
    assert lab.read("base", 0) == bytes(4096)
    assert lab.read("base", 64) == b"\x09" * 4096


def let_a_merge_wait(lab: Lab) -> None:
    """Of s1 into base, which was written since: sector 0 is to be zeros again."""
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 2)
    lab.activator.activate(lab.vg, "base")
    lab.write("base", 0, 7)
    lab.swap(lab.merging("s1"), lab.vg)


def test_a_merge_that_must_wait_starts_with_the_next_activation(lab: Lab) -> None:
    let_a_merge_wait(lab)
    assert "snapshot-origin" in lab.tables()["vg-base"]
    assert lab.read("base", 0) == b"\7" * 4096
    lab.activator.deactivate(lab.vg, "base")
    lab.activator.activate(lab.vg, "base")
    assert "snapshot-merge" in lab.tables()["vg-base"]
    assert lab.read("base", 0) == bytes(4096)


def test_a_merge_that_must_wait_starts_with_a_refresh_when_both_are_closed(lab: Lab) -> None:
    """As LVM2 2.03.16 and the kernel do it."""
    let_a_merge_wait(lab)
    lab.activator.refresh(lab.vg)  # one that mends what a dead command left begins none
    assert "snapshot-origin" in lab.tables()["vg-base"]
    for name in ("vg-base", "vg-s1"):
        handle = lab.dm.mapped(name).open(write=False)
        lab.activator.refresh(lab.vg, start_merges=["base"])
        assert "snapshot-origin" in lab.tables()["vg-base"], name
        handle.close()
    lab.activator.refresh(lab.vg, start_merges=["other"])
    assert "snapshot-origin" in lab.tables()["vg-base"], "of another volume"
    lab.activator.refresh(lab.vg, start_merges=["s1"])
    assert "snapshot-merge" in lab.tables()["vg-base"]
    assert lab.read("base", 0) == bytes(4096)


def test_a_merge_into_an_origin_that_is_read_only(lab: Lab) -> None:
    """The kernel lets dm-snapshot write to a read-only device below, with a warning (6.1)."""
    base = lab.linear("base", 4)
    lab.snapshot("base", "s1", 2)
    lab.activator.activate(lab.vg, "base")
    lab.write("base", 0, 7)
    lab.activator.deactivate(lab.vg, "base")
    lab.vg = lab.merging("s1").with_lv(base._replace(status=base.status - {"WRITE"}))
    lab.activator.activate(lab.vg, "base")
    until(lambda: lab.activator.state(lab.vg, "base").status.merge_done)
    assert lab.read("base", 0) == bytes(4096)
    with pytest.raises(DeviceError):
        lab.write("base", 0, 7)


def test_an_activation_begins_no_merge_under_an_open_snapshot(lab: Lab) -> None:
    """A deactivation was killed behind its first step, the origin's, with the snapshot open."""
    let_a_merge_wait(lab)
    with closing(lab.dm.mapped("vg-s1").open(write=False)) as handle:
        lab.dm.remove("vg-base")
        lab.activator.activate(lab.vg, "base")
        assert "snapshot-origin" in lab.tables()["vg-base"]
        assert handle.read(0, 4096) == bytes(4096)
    lab.activator.refresh(lab.vg, start_merges=["base"])
    assert "snapshot-merge" in lab.tables()["vg-base"]


def test_what_fails_before_the_commit_is_taken_back(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "base")
    before = lab.tables()
    old = lab.vg
    new = lab.snapshot("base", "snap", 2)

    def refuse() -> None:
        raise UlvmError("no")

    with pytest.raises(UlvmError, match="no"):
        lab.activator.swap(old, new, refuse)
    assert lab.tables() == before
    assert not lab.suspended()
    lab.write("base", 0, 3)
    assert lab.read("base", 0) == b"\3" * 4096


def test_a_store_that_does_not_load_leaves_the_origin_alone(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "base")
    old = lab.vg
    new = lab.snapshot("base", "snap", 2)
    path = lab.paths[lab.vg.pvs[0].uuid]
    with open(path, "r+b") as stream:
        stream.seek((2048 + 4 * EXTENT) * 512)
        stream.write(b"garbage!")
    committed: list[int] = []
    with pytest.raises(UlvmError):
        lab.activator.swap(old, new, lambda: committed.append(1))
    assert not committed
    assert lab.tables() == {"vg-base": "0 256 linear 240:0 2048"}


def test_refresh_finishes_what_a_dead_command_began(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "base")
    lab.snapshot("base", "snap", 2)
    lab.dm.suspend("vg-base")  # the command died here, its metadata committed
    lab.activator.refresh(lab.vg)
    assert not lab.suspended()
    lab.write("base", 0, 5)
    assert lab.read("snap", 0) == bytes(4096)


def test_refresh_finishes_what_died_after_loading(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "base")
    new = lab.snapshot("base", "snap", 2)
    for device in plan_tree(new, root_of(new, "base"), lab.paths.get):
        if device.name != "vg-base":
            lab.dm.create(device.name, device.uuid)
        lab.dm.load(device.name, device.table)
        if device.name in ("vg-base-real", "vg-snap-cow"):
            lab.dm.resume(device.name)
    lab.dm.suspend("vg-base")
    lab.activator.refresh(lab.vg)
    assert not lab.suspended()
    assert not any(info.inactive_table for info in lab.dm.devices())
    lab.write("base", 0, 5)
    assert lab.read("snap", 0) == bytes(4096)


def test_refresh_goes_back_to_the_old_metadata_if_they_count(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "base")
    old = lab.vg
    new = lab.snapshot("base", "snap", 2)
    planned = {d.name: d for d in plan_tree(new, root_of(new, "base"), lab.paths.get)}
    for name in ("vg-base-real", "vg-snap-cow"):
        lab.dm.create(name, planned[name].uuid)
        lab.dm.load(name, planned[name].table)
        lab.dm.resume(name)
    lab.dm.suspend("vg-base")
    lab.activator.refresh(old)
    assert lab.tables() == {"vg-base": "0 256 linear 240:0 2048"}
    assert not lab.suspended()


def test_an_open_volume_is_not_deactivated(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 1)
    lab.activator.activate(lab.vg, "base")
    before = lab.tables()
    with closing(lab.dm.mapped("vg-s1").open(write=False)):
        with pytest.raises(BusyError, match="Logical volume vg/s1 in use"):
            lab.activator.deactivate(lab.vg, "base")
        assert lab.tables() == before
        with pytest.raises(BusyError, match="Logical volume vg/s1 in use"):
            lab.activator.swap(lab.vg, lab.without("s1"), lambda: None)
        assert lab.tables() == before
    lab.activator.deactivate(lab.vg, "base")
    assert lab.dm.devices() == []


def test_an_origin_goes_before_its_snapshots(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that went on would change it without a copy for those that are gone."""
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 1)
    lab.snapshot("base", "s2", 1)
    lab.activator.activate(lab.vg, "base")
    removed = []
    remove = lab.dm.remove

    def note(uuid: str) -> None:
        removed.append(lab.dm.mapped(uuid).name)
        remove(uuid)

    monkeypatch.setattr(lab.dm, "remove", note)
    lab.activator.deactivate(lab.vg, "base")
    assert removed[0] == "vg-base"
    assert set(removed[1:3]) == {"vg-s1", "vg-s2"}


def test_a_partial_volume_is_refused_unless_asked_for(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.paths.clear()
    with pytest.raises(RefusedError, match="Refusing activation of partial LV vg/base"):
        lab.activator.activate(lab.vg, "base")
    assert lab.dm.devices() == []
    lab.activator.activate(lab.vg, "base", partial=True)
    assert lab.tables() == {
        "vg-base": "0 256 linear 253:1 0",
        "vg-base-missing_0_0": "0 256 error ",
    }
    lab.activator.deactivate(lab.vg, "base")
    assert lab.dm.devices() == []


def test_a_failed_activation_leaves_nothing(lab: Lab) -> None:
    lab.linear("base", 4)
    lab.snapshot("base", "s1", 1)
    path = lab.paths[lab.vg.pvs[0].uuid]
    with open(path, "r+b") as stream:
        stream.seek((2048 + 4 * EXTENT) * 512)
        stream.write(b"garbage!")
    with pytest.raises(UlvmError):
        lab.activator.activate(lab.vg, "base")
    assert lab.dm.devices() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24/4096 16", SnapshotStatus(24, 4096, 16)),
        ("Invalid", SnapshotStatus(invalid=True)),
        ("Overflow", SnapshotStatus(overflow=True)),
        ("Merge failed", SnapshotStatus(merge_failed=True)),
    ],
)
def test_status_lines(text: str, expected: SnapshotStatus) -> None:
    assert parse_snapshot_status(TableLine(0, 8, "snapshot", text)) == expected


def test_status_of_other_targets_is_none() -> None:
    assert parse_snapshot_status(TableLine(0, 8, "linear")) is None


def without_tables(lab: Lab, origin: str, cow: str, first_extent: int) -> None:
    """The tree as the daemon has it when it comes back and cannot read the COW."""
    for device in plan_tree(lab.vg, root_of(lab.vg, origin), lab.paths.get):
        lab.dm.create(device.name, device.uuid)
        if device.name in (f"vg-{origin}-real", f"vg-{cow}-cow"):
            lab.dm.load(device.name, device.table)
            lab.dm.resume(device.name)
    with open(lab.paths[lab.vg.pvs[0].uuid], "r+b") as stream:
        stream.seek((2048 + first_extent * EXTENT) * 512)
        stream.write(b"garbage!")


def test_a_tree_that_does_not_load_keeps_no_other_from_being_mended(lab: Lab) -> None:
    lab.linear("idle", 1)
    for name in ("a", "b"):
        lab.linear(name, 1)
        lab.snapshot(name, f"{name}s", 1)
    lab.linear("db", 4)
    lab.linear("base", 4)
    lab.activator.activate(lab.vg, "db")
    lab.activator.activate(lab.vg, "base")
    old = lab.vg
    lab.swap(lab.snapshot("base", "gone", 1), old)
    lab.vg = lab.without("gone")
    for extent, name in ((2, "a"), (4, "b")):
        without_tables(lab, name, f"{name}s", extent)
    lab.dm.suspend("vg-db")
    lab.dm.suspend("vg-base")  # lvremove vg/gone died here
    with pytest.raises(UlvmError) as caught:
        lab.activator.refresh(lab.vg)
    assert ["reload ioctl on vg-as" in t for t in caught.value.message.splitlines()] == [
        True,
        False,
    ]
    assert not lab.suspended()
    tables = lab.tables()
    assert [tables.pop(name) for name in ("vg-a", "vg-as", "vg-b", "vg-bs")] == [""] * 4
    assert sorted(tables) == [
        "vg-a-real", "vg-as-cow", "vg-b-real", "vg-base", "vg-bs-cow", "vg-db"
    ]  # fmt: skip
    assert tables["vg-base"].startswith("0 256 linear")


def partial(lab: Lab) -> str:
    """vg/p on two PVs, active; the second one's UUID."""
    first, second = lab.vg.pvs[0].uuid, lab.pv()
    segments = (
        StripedSegment(0, 2, (Area(first, 0),)),
        StripedSegment(2, 2, (Area(second, 0),)),
    )
    lab.linear("unused", 2)
    lab.vg = lab.without("unused").with_lv(LogicalVolume("p", new_uuid(), segments))
    lab.activator.activate(lab.vg, "p")
    return second


@pytest.mark.parametrize("committed", [False, True])
def test_a_partial_tree_is_resumed_with_the_table_of_the_metadata(
    lab: Lab, committed: bool
) -> None:
    """lvextend and lvreduce died around their commit; then a PV is away."""
    away = partial(lab)
    before = lab.dm.table("vg-p")
    more = TableLine(4 * EXTENT, EXTENT, "linear", f"240:0 {2048 + 2 * EXTENT}")
    lab.dm.load("vg-p", [*before, more])
    lab.dm.suspend("vg-p")
    lv = lab.vg.lv("p")
    assert lv is not None
    if committed:
        area = Area(lab.vg.pvs[0].uuid, 2)
        grown = lv._replace(segments=(*lv.segments, StripedSegment(4, 1, (area,))))
        lab.vg = lab.vg.with_lv(grown)
    lab.paths.pop(away)
    lab.activator.refresh(lab.vg._replace(missing_uuids=frozenset([away])))
    assert lab.dm.table("vg-p") == ([*before, more] if committed else before)
    assert not lab.suspended()
    assert not lab.dm.info("vg-p").inactive_table


def test_a_partial_origin_is_not_resumed_without_its_snapshot(lab: Lab) -> None:
    """lvcreate -s died after its commit; then a PV is away."""
    away = partial(lab)
    lab.write("p", 0, 1)
    lab.linear("unused", 2)
    lab.snapshot("p", "s", 1)
    lab.vg = lab.without("unused")
    for device in plan_tree(lab.vg, root_of(lab.vg, "p"), lab.paths.get):
        if device.name != "vg-p":
            lab.dm.create(device.name, device.uuid)
        lab.dm.load(device.name, device.table)
        if device.name in ("vg-p-real", "vg-s-cow"):
            lab.dm.resume(device.name)
    lab.dm.suspend("vg-p")
    lab.paths.pop(away)
    lab.activator.refresh(lab.vg._replace(missing_uuids=frozenset([away])))
    assert not lab.suspended()
    lab.write("p", 0, 2)
    assert lab.read("s", 0) == b"\1" * 4096
    assert lab.read("p", 0) == b"\2" * 4096


@pytest.mark.parametrize("side", [0, 1])
def test_an_atomic_move_keeps_its_sides_when_the_pv_of_one_is_away(lab: Lab, side: int) -> None:
    """pvmove died while all was suspended; then a PV is away."""
    lab.linear("a", 2)
    lab.pv()
    pvs = [pv.uuid for pv in lab.vg.pvs]
    lab.vg = start_move(
        lab.vg, PvExtents(pvs[0]), new_uuid=new_uuid, now=1, host="h", atomic=True
    ).vg
    lab.activator.activate(lab.vg, "a")
    lab.write("a", 0, 1)
    tables = lab.tables()
    assert sorted(tables) == ["vg-a", "vg-pvmove0", "vg-pvmove0_mimage_0", "vg-pvmove0_mimage_1"]
    for name in sorted(tables):
        lab.dm.suspend(name)
    lab.paths.pop(pvs[side])
    lab.activator.refresh(lab.vg._replace(missing_uuids=frozenset([pvs[side]])))
    left = lab.suspended()
    for name in left:
        lab.dm.resume(name)
    assert not left
    assert lab.tables() == tables
    assert lab.read("a", 0) == b"\1" * 4096


def renamed(lab: Lab, old: str, new: str) -> VolumeGroup:
    lv = lab.vg.lv(old)
    assert lv is not None
    return lab.vg.with_lv(lv._replace(name=new))


def test_a_name_that_another_device_has_is_refused_before_the_commit(lab: Lab) -> None:
    lab.linear("a", 1)
    lab.activator.activate(lab.vg, "a")
    lab.dm.create("vg-b")
    committed: list[int] = []
    with pytest.raises(BusyError, match=r"vg/b cannot have .* device vg-b already"):
        lab.activator.swap(lab.vg, renamed(lab, "a", "b"), lambda: committed.append(1))
    assert not committed
    assert sorted(lab.tables()) == ["vg-a", "vg-b"]


def test_names_go_round_when_a_dead_command_did_not_come_to_them(lab: Lab) -> None:
    """lvrename a c, then b a, both of which died right after their commits."""
    lab.linear("b", 1)
    lab.linear("a", 1)
    lab.snapshot("a", "s", 1)
    for name in ("a", "b"):
        lab.activator.activate(lab.vg, name)
        lab.write(name, 0, ord(name))
    hidden = next(v for v in lab.vg.lvs if v.snapshot_segment)
    lab.vg = renamed(lab, "a", "c")
    lab.vg = lab.vg.with_lv(
        hidden._replace(segments=(hidden.snapshot_segment._replace(origin="c"),))
    )
    lab.vg = renamed(lab, "b", "a")
    lab.activator.refresh(lab.vg)
    assert sorted(lab.tables()) == ["vg-a", "vg-c", "vg-c-real", "vg-s", "vg-s-cow"]
    assert lab.read("a", 0) == b"b" * 4096
    assert lab.read("c", 0) == b"a" * 4096
