"""Nothing is committed that devices cannot follow, as a disk refuses what was written before."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.activation.lab import EXTENT, Lab
from tests.waiting import until
from ulvm.activation.activate import Activator
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.file import FileDevice
from ulvm.dm.commit import settle
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.errors import DeviceError, TableError, UlvmError
from ulvm.metadata.model import StripedSegment, VolumeGroup

OLD, NEW, LATER = (bytes([fill]) * 4096 for fill in (0, 7, 9))
BASE, COW = 0, 8
"""The first extents of base, and of its snapshot s1."""


class StageLab(Lab):
    """As `Lab`, with stages. base and s1, 8 extents each, are active."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "pv0.img").touch()
        self.disk = FaultDevice(FileDevice(str(folder / "pv0.img"), writable=True))
        self.dm = LocalMapper(
            log=self.log.append, open_file=self._open, stage=StageSettings(1 << 20, None)
        )
        self.activator = Activator(self.dm, self.paths.get)
        self.pv()
        self.linear("base", 8)
        self.snapshot("base", "s1", 8)
        self.activator.activate(self.vg, "base")

    def _open(self, path: str, writable: bool) -> BlockDevice:
        return self.disk

    def refuse(self, extent: int) -> None:
        """The disk is full where the volume that begins there is."""
        start = (2048 + extent * EXTENT) * 512
        self.disk.fail_range("write", start, 8 * EXTENT * 512, error=errno.ENOSPC)

    def committed(self, new: VolumeGroup, old: VolumeGroup, **options: bool) -> bool:
        """Whether a swap came to its commit; it fails."""
        commits: list[int] = []
        with pytest.raises(UlvmError):
            self.activator.swap(old, new, lambda: commits.append(1), **options)
        return bool(commits)

    def on_disk(self, sector: int) -> bytes:
        return self.disk.read((2048 + sector) * 512, 4096)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[StageLab]:
    lab = StageLab(tmp_path)
    yield lab
    lab.disk.clear()
    lab.dm.shutdown()


@pytest.fixture
def stuck(lab: StageLab) -> StageLab:
    """A write to the origin was answered, and the disk has no room for it."""
    lab.refuse(BASE)
    lab.write("base", 0, 7)
    return lab


CHANGES: dict[str, Callable[[StageLab], VolumeGroup]] = {
    "the last snapshot goes": lambda lab: lab.without("s1"),
    "a merge begins": lambda lab: lab.merging("s1"),
    "a snapshot comes": lambda lab: lab.snapshot("base", "s2", 4),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_refused_before_the_commit(stuck: StageLab, change: str) -> None:
    old, before, names = stuck.vg, stuck.tables(), [d.name for d in stuck.dm.devices()]
    new = CHANGES[change](stuck)
    assert not stuck.committed(new, old, start_merge=True)
    assert (stuck.tables(), [d.name for d in stuck.dm.devices()]) == (before, names)
    assert not stuck.suspended()
    assert not any(d.inactive_table for d in stuck.dm.devices())
    assert (stuck.read("base", 0), stuck.read("s1", 0)) == (NEW, OLD)
    stuck.disk.clear()
    stuck.swap(new, old, start_merge=True)
    if "merge" in change:
        until(lambda: stuck.on_disk(0) == OLD)
    else:
        assert stuck.on_disk(0) == NEW


def test_the_refusal_names_the_volume(stuck: StageLab) -> None:
    with pytest.raises(DeviceError, match=r"^Logical volume vg/base stays as it is: what was"):
        stuck.swap(stuck.without("s1"), stuck.vg)


def test_a_snapshot_that_comes_after_all_is_of_that_moment(stuck: StageLab) -> None:
    old = stuck.vg
    new = stuck.snapshot("base", "s2", 4)
    assert not stuck.committed(new, old)
    stuck.disk.clear()
    stuck.swap(new, old)
    stuck.write("base", 0, 9)
    assert [stuck.read(name, 0) for name in ("base", "s1", "s2")] == [LATER, OLD, NEW]


def test_a_merge_waits_for_what_was_written_to_the_snapshot(lab: StageLab) -> None:
    """Its exception is durable, and the COW does not take the data."""
    target = lab.dm.mapped("vg-s1").targets[0]
    assert isinstance(target, SnapshotTarget)
    own = target._writes()  # as a first write does
    assert own is not None
    own.stage._thread = threading.current_thread()  # no commit but those that are asked for
    lab.write("s1", 0, 7)
    settle([target.snapshot.commit])
    lab.refuse(COW)
    before = lab.tables()
    assert not lab.committed(lab.merging("s1"), lab.vg, start_merge=True)
    assert (lab.tables(), lab.suspended()) == (before, [])
    assert lab.read("s1", 0) == NEW
    lab.disk.clear()
    lab.swap(lab.merging("s1"), lab.vg, start_merge=True)
    until(lambda: lab.on_disk(0) == NEW)


ALLOWED: dict[str, Callable[[StageLab], VolumeGroup]] = {
    "another snapshot goes": lambda lab: lab.without("s2"),
    "its COW grows": lambda lab: _grown(lab, "s2"),
    "the origin grows": lambda lab: _grown(lab, "base"),
}


def _grown(lab: StageLab, name: str) -> VolumeGroup:
    lv = lab.vg.lv(name)
    assert lv is not None
    more = lab.linear("more", 8)
    segment = more.segments[0]
    assert isinstance(segment, StripedSegment)
    behind = segment._replace(start_extent=lv.extent_count)
    return lab.without("more").with_lv(lv._replace(segments=(*lv.segments, behind)))


@pytest.mark.parametrize("change", ALLOWED)
def test_what_loses_nothing_is_not_refused(lab: StageLab, change: str) -> None:
    old = lab.vg
    lab.swap(lab.snapshot("base", "s2", 4), old)
    lab.refuse(BASE)
    lab.write("base", 0, 7)
    old = lab.vg
    lab.swap(ALLOWED[change](lab), old)
    lab.activator.refresh(lab.vg)
    assert not lab.suspended()
    assert (lab.read("base", 0), lab.read("s1", 0)) == (NEW, OLD)


def test_an_origin_does_not_go_on_without_a_snapshot_that_is_committed(stuck: StageLab) -> None:
    """The command that took it died with the origin suspended."""
    stuck.dm.suspend("vg-base")
    new = stuck.snapshot("base", "s2", 4)
    with pytest.raises(TableError, match="cannot reach it"):
        stuck.activator.refresh(new)
    assert "vg-base" in stuck.suspended()
    stuck.disk.clear()
    stuck.activator.refresh(new)
    assert not stuck.suspended()
    stuck.write("base", 0, 9)
    assert [stuck.read(name, 0) for name in ("base", "s1", "s2")] == [LATER, OLD, NEW]
