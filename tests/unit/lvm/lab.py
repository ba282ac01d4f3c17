"""Library calls on a host in one process: PVs in memory, the real engine instead of the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage_file import StageSettings
from ulvm.lvm import vg as lvm_vg
from ulvm.lvm.session import Session
from ulvm.metadata import edit
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.commit import prepare
from ulvm.vgstore.host import Host
from ulvm.vgstore.pv import as_member, create_pv
from ulvm.vgstore.scan import scan

KIB, MIB = 1 << 10, 1 << 20
EXTENT = 128
"""Sectors: 64 KiB."""
SMALL_AREA = PvOptions(metadata_size=80, data_alignment=8)


@dataclass
class Heard:
    """`Messages` that are kept. `answer` to every question."""

    answer: bool = False
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    verbosity: int = 1

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def verbose(self, text: str) -> None:
        self.told.append(text)

    def ask(self, question: str) -> bool:
        self.asked.append(question)
        return self.answer


class LocalSession(Session):
    """A session whose daemon is a mapper in this process."""

    mapper: LocalMapper

    @property
    def dm(self):  # type: ignore[no-untyped-def,override]
        return self.mapper

    @property
    def dm_if_running(self):  # type: ignore[no-untyped-def,override]
        return self.mapper


def renamed_at_the_next_lock(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group vg becomes wg in the moment before somebody has its lock."""
    lock = lab.session.lock

    def renaming(name: str) -> AbstractContextManager[None]:
        monkeypatch.setattr(lab.session, "lock", lock)
        lvm_vg.rename(lab.session, "vg", "wg")
        return lock(name)

    monkeypatch.setattr(lab.session, "lock", renaming)


class Kept(FaultDevice):
    """Stays open: a record goes on over many opens."""

    def close(self) -> None:
        pass


class Lab:
    """`images`: what the PVs hold; new ones are made in a VG if none are given. `stage`: bytes for
    each device."""

    def __init__(
        self,
        folder: Path,
        *,
        names: tuple[str, ...] = ("a", "b"),
        size: int = 2 * MIB,
        images: Mapping[str, bytes] | None = None,
        stage: int = 0,
    ) -> None:
        self.devices: dict[str, Kept] = {}
        for name in names:
            (folder / name).touch()
            path = str(folder / name)
            self.devices[path] = Kept(MemoryDevice(size))
            if images is not None:
                self.devices[path].write(0, images[path])
        self.host = Host(folder / "etc", folder / "run", opener=self.open)
        self.mapper = LocalMapper(open_file=self.open, stage=StageSettings(stage))
        self.heard = Heard()
        self.begin(self.host)
        if images is None:
            self._create()

    def begin(self, host: Host) -> None:
        """Another command, with the settings of `host`."""
        self.session = LocalSession(host, self.heard, command_line="test")
        self.session.mapper = self.mapper

    def open(self, path: str, writable: bool) -> BlockDevice:
        return self.devices[path]

    def _create(self) -> None:
        vg = edit.new_vg("vg", uuid=new_uuid(), extent_size=EXTENT)
        for path in self.devices:
            pv = create_pv(self.host, path, uuid=new_uuid(), options=SMALL_AREA)
            vg = edit.add_pv(vg, as_member(pv, EXTENT))
        prepare(self.host, scan(self.host), None, vg, command="vgcreate").commit()

    @property
    def vg(self) -> VolumeGroup:
        return scan(self.host).vg("vg")

    def contents(self) -> dict[str, bytes]:
        """All bytes of all PVs."""
        return {path: device.read(0, device.size) for path, device in self.devices.items()}

    def tables(self) -> list[tuple[str, bool, list[str]]]:
        """Every dm device: name, suspended, table."""
        return [
            (i.name, i.suspended, [str(line) for line in self.mapper.table(i.name)])
            for i in self.mapper.devices()
        ]

    def read(self, lv: str, offset: int, length: int) -> bytes:
        handle = self.mapper.mapped(f"vg-{lv}").open(write=False)
        try:
            return handle.read(offset, length)
        finally:
            handle.close()

    def write(self, lv: str, offset: int, data: bytes, *, flush: bool = True) -> None:
        handle = self.mapper.mapped(f"vg-{lv}").open(write=True)
        try:
            handle.write(offset, data)
            if flush:
                handle.flush()
        finally:
            handle.close()
