"""The power goes at every instant of a commit: the VG is the old one or the new one, whole.

Two PVs on devices that remember every write and flush (`blockdev.faults.PowerCut`). At each instant
each sector that was not yet flushed may be old or new, whatever its neighbours are.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import FaultDevice, PowerCut
from ulvm.blockdev.memory import MemoryDevice
from ulvm.metadata import edit
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.mda import next_offset
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.commit import prepare, remove_vg
from ulvm.vgstore.host import Host
from ulvm.vgstore.pv import as_member, create_pv
from ulvm.vgstore.scan import Scan, scan

MIB = 1 << 20
EXTENT = 256
SMALL_AREA = PvOptions(metadata_size=80, data_alignment=8, metadata_copies=2)
"""Areas of 40 KiB, so that texts soon go round the ring."""
CHOICES = 4
"""Images per instant."""


class _Kept(FaultDevice):
    """Stays open: the record goes on over many opens."""

    def close(self) -> None:
        pass


@dataclass
class Machine:
    """A host whose PVs are `names`, in memory; the paths only have to be there."""

    folder: Path
    names: tuple[str, ...] = ("a", "b")
    devices: dict[str, _Kept] = field(default_factory=dict)
    host: Host = field(init=False)

    def __post_init__(self) -> None:
        for name in self.names:
            (self.folder / name).touch()
            self.devices[str(self.folder / name)] = _Kept(MemoryDevice(2 * MIB))
        self.host = Host(self.folder / "etc", self.folder / "run", opener=self._open)

    def _open(self, path: str, writable: bool) -> BlockDevice:
        return self.devices[path]

    def create(self) -> VolumeGroup:
        vg = edit.new_vg("vg", uuid=new_uuid(), extent_size=EXTENT)
        for path in self.devices:
            pv = create_pv(self.host, path, uuid=new_uuid(), options=SMALL_AREA)
            if not path.endswith("spare"):
                vg = edit.add_pv(vg, as_member(pv, EXTENT))
        return prepare(self.host, self.scan(), None, vg, command="vgcreate").commit()

    def scan(self) -> Scan:
        return scan(self.host)

    def change(self, old: VolumeGroup, name: str) -> VolumeGroup:
        new = edit.add_linear(old, name, 1, uuid=new_uuid(), now=1, host="h")
        return prepare(self.host, self.scan(), old, new, command="lvcreate").commit()

    def scan_images(self, images: dict[str, bytes]) -> Scan:
        """What the host would see of these."""
        after = Host(
            self.host.system_dir,
            self.host.run_dir,
            opener=lambda path, writable: MemoryDevice(images[path]),
        )
        return scan(after)

    def every_instant(self, act: Callable[[], None], check: Callable[[Scan], None]) -> int:
        """Do it once on record, then check what a power cut at each event would have left."""
        records: dict[str, PowerCut] = {p: d.record() for p, d in self.devices.items()}
        act()
        times = sorted(time for record in records.values() for time in record.times)
        choose = random.Random(1)
        for time in [*times, times[-1] + 1]:
            for _ in range(CHOICES):
                images = {
                    path: record.image_at(record.events_until(time), choose)
                    for path, record in records.items()
                }
                check(self.scan_images(images))
        return len(times)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def wraps_next(found: Scan) -> bool:
    """Whether the next text, a little longer than the last, goes over the end of an area."""
    header = found.pvs[0].mdas[0].header
    assert header is not None
    start = next_offset(header.size, header.current)
    return start + header.committed.size > header.size


@pytest.mark.parametrize("where", ["first", "later", "over the end of the ring"])
def test_a_change_is_there_or_not(machine: Machine, where: str) -> None:
    vg = machine.create()
    if where == "later":
        vg = machine.change(vg, "earlier")
    while where == "over the end of the ring" and not wraps_next(machine.scan()):
        vg = machine.change(vg, f"l{vg.seqno}")
    old = machine.scan().vg("vg")
    states = []

    def check(found: Scan) -> None:
        vg = found.vg("vg")
        assert found.broken == {}
        assert not vg.partial
        if vg == old:
            states.append("old")
        else:
            assert (vg.seqno, vg.lv("new") is not None) == (old.seqno + 1, True)
            states.append("new")

    def act() -> None:
        machine.change(old, "new")

    assert machine.every_instant(act, check) > 20
    first_new = states.index("new")
    assert "old" in states[:first_new]
    assert states[-CHOICES:] == ["new"] * CHOICES


def test_a_revert_leaves_the_old_one_at_any_instant(machine: Machine) -> None:
    old = machine.change(machine.create(), "first")
    old = machine.scan().vg("vg")

    def act() -> None:
        new = edit.add_linear(old, "new", 1, uuid=new_uuid(), now=1, host="h")
        prepare(machine.host, machine.scan(), old, new, command="lvcreate").revert()

    def check(found: Scan) -> None:
        assert found.vg("vg") == old

    machine.every_instant(act, check)


def test_a_damaged_area_is_mended_or_still_damaged(machine: Machine) -> None:
    machine.create()
    path = next(iter(machine.devices))
    area = machine.scan().pv(path).mdas[0].offset
    machine.devices[path].write(area, bytes(4))
    old = machine.scan().vg("vg")
    seen = set()

    def act() -> None:
        prepare(machine.host, machine.scan(), old, old, command="vgck", mend=True).commit()

    def check(found: Scan) -> None:
        assert not found.vg("vg").partial
        first = found.pv(path).mdas[0]
        assert first.vg is None or first.vg.seqno == old.seqno + 1
        seen.add((found.vg("vg").seqno - old.seqno, first.good))

    machine.every_instant(act, check)
    assert seen == {(0, False), (1, False), (1, True)}


def test_a_pv_that_joins_is_never_free_and_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path, names=("a", "spare"))
    machine.create()
    old = machine.scan().vg("vg")
    spare = machine.scan().pv(str(tmp_path / "spare"))
    new = edit.add_pv(old, as_member(spare, EXTENT))

    def act() -> None:
        prepare(machine.host, machine.scan(), old, new, command="vgextend").commit()

    def check(found: Scan) -> None:
        vg = found.vg("vg")
        assert not vg.partial
        pv = found.by_uuid(spare.uuid)
        assert pv is not None
        if vg.pv(spare.uuid) is not None:
            assert pv.in_use
            assert pv.vg_name == "vg"

    machine.every_instant(act, check)


def test_a_pv_that_leaves_is_never_named_and_free(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.create()
    old = machine.scan().vg("vg")
    gone = old.pvs[1].uuid

    def act() -> None:
        new = edit.remove_pv(old, gone)
        prepare(machine.host, machine.scan(), old, new, command="vgreduce").commit()

    def check(found: Scan) -> None:
        vg = found.vg("vg")
        assert not vg.partial
        outdated = {pv.uuid: pv for pv in found.outdated}
        pv = found.by_uuid(gone) or outdated[gone]
        if vg.pv(gone) is not None or gone in outdated:
            assert pv.in_use

    machine.every_instant(act, check)


def test_vgremove_leaves_the_vg_or_none_of_it(machine: Machine) -> None:
    machine.create()
    old = machine.scan().vg("vg")

    def act() -> None:
        remove_vg(machine.host, machine.scan(), old, command="vgremove")

    def check(found: Scan) -> None:
        assert found.broken == {}
        assert len(found.pvs) == 2
        if found.vgs:
            assert found.vg("vg") == old
            assert not found.vg("vg").partial
            assert all(pv.in_use for pv in found.pvs)

    machine.every_instant(act, check)
    assert machine.scan().vgs == ()


@pytest.mark.parametrize("change", ["uuid", "fewer areas", "more areas"])
def test_a_group_is_one_group_while_its_uuid_or_its_areas_change(
    machine: Machine, change: str
) -> None:
    machine.create()
    old = machine.scan().vg("vg")
    if change == "more areas":
        fewer = old._replace(metadata_copies=1)
        prepare(machine.host, machine.scan(), old, fewer, command="vgchange").commit()
        old = machine.scan().vg("vg")
    new = {
        "uuid": old._replace(uuid=new_uuid()),
        "fewer areas": old._replace(metadata_copies=1),
        "more areas": old._replace(metadata_copies=3),
    }[change]
    seen = []

    def act() -> None:
        prepare(machine.host, machine.scan(), old, new, command="vgchange").commit()

    def check(found: Scan) -> None:
        assert len(found.vgs) == 1
        vg = found.vg("vg")
        assert not vg.partial
        assert (vg.uuid, vg.metadata_copies) in (
            (old.uuid, old.metadata_copies),
            (new.uuid, new.metadata_copies),
        )
        seen.append(vg.seqno)

    machine.every_instant(act, check)
    assert seen[-1] == old.seqno + 1
    used = [mda for pv in machine.scan().pvs for mda in pv.mdas if not mda.ignored]
    assert len(used) == {"uuid": 4, "fewer areas": 1, "more areas": 3}[change]
