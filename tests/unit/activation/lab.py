"""Volume groups in memory on PV files, activated in a real mapper."""

from __future__ import annotations

from pathlib import Path

from ulvm.activation.activate import Activator
from ulvm.dm.mapper import LocalMapper
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    PhysicalVolume,
    SnapshotSegment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.metadata.uuid import new_uuid

EXTENT = 64  # sectors


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[str] = []
        self.dm = LocalMapper(log=self.log.append)
        self.paths: dict[str, str] = {}
        self.activator = Activator(self.dm, self.paths.get)
        self.vg = VolumeGroup("vg", new_uuid(), EXTENT)
        self._next = 0

    def pv(self, extents: int = 1000) -> str:
        path = self.folder / f"pv{len(self.paths)}.img"
        with open(path, "wb") as stream:
            stream.truncate((2048 + extents * EXTENT) * 512)
        uuid = new_uuid()
        self.paths[uuid] = str(path)
        pv = PhysicalVolume(uuid, str(path), 2048 + extents * EXTENT, 2048, extents)
        self.vg = self.vg._replace(pvs=(*self.vg.pvs, pv))
        return uuid

    def linear(self, name: str, extents: int) -> LogicalVolume:
        area = Area(self.vg.pvs[0].uuid, self._next)
        self._next += extents
        lv = LogicalVolume(name, new_uuid(), (StripedSegment(0, extents, (area,)),))
        self.vg = self.vg.with_lv(lv)
        return lv

    def snapshot(self, origin: str, name: str, extents: int, chunk: int = 8) -> VolumeGroup:
        """The VG with this snapshot; `self.vg` becomes it."""
        cow = self.linear(name, extents)
        self.vg = self.vg.with_lv(cow._replace(status=frozenset({"READ", "WRITE"})))
        size = self.vg.lv(origin).extent_count
        segment = SnapshotSegment(0, size, chunk, origin, name)
        number = len(list(self.vg.snapshot_segments()))
        self.vg = self.vg.with_lv(LogicalVolume(f"snapshot{number}", new_uuid(), (segment,)))
        return self.vg

    def without(self, *names: str) -> VolumeGroup:
        lvs = tuple(
            v
            for v in self.vg.lvs
            if v.name not in names and not (v.snapshot_segment and v.snapshot_segment.cow in names)
        )
        return self.vg._replace(lvs=lvs)

    def merging(self, cow: str) -> VolumeGroup:
        lvs = tuple(
            v._replace(segments=(v.snapshot_segment._replace(merging=True),))
            if v.snapshot_segment and v.snapshot_segment.cow == cow
            else v
            for v in self.vg.lvs
        )
        return self.vg._replace(lvs=lvs)

    def swap(self, new: VolumeGroup, old: VolumeGroup, **options: bool) -> list[str]:
        """The names that a table line was live for when the commit came."""
        seen: list[str] = []
        self.activator.swap(old, new, lambda: seen.extend(self.suspended()), **options)
        self.vg = new
        return seen

    def suspended(self) -> list[str]:
        return [d.name for d in self.dm.devices() if d.suspended and d.live_table]

    def tables(self) -> dict[str, str]:
        """What `dmsetup table` shows, by name, with names in place of numbers."""
        return {
            d.name: "; ".join(str(line) for line in self.dm.table(d.name))
            for d in self.dm.devices()
        }

    def write(self, lv: str, sector: int, fill: int, sectors: int = 8) -> None:
        self.dm.mapped(f"vg-{lv}").write(sector * 512, bytes([fill]) * (sectors * 512))

    def read(self, lv: str, sector: int, sectors: int = 8) -> bytes:
        return self.dm.mapped(f"vg-{lv}").read(sector * 512, sectors * 512)
