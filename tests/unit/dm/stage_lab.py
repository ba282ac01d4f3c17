"""A lab whose devices have stages, as those of a daemon."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.dm.lab import Lab
from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.file import FileDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage import Stage
from ulvm.dm.stage_file import PAGE, StageSettings
from ulvm.dm.targets.origin import OriginTarget
from ulvm.dm.targets.snapshot import SnapshotTarget

__all__ = ["BIG", "SECTORS", "SMALL", "StageLab", "Watched", "killed", "killed_anywhere"]

SECTORS = 4096
BIG = 1 << 20
SMALL = 16 * PAGE


class Watched(FaultDevice):
    """`look` is called before each write and flush, `seen` behind each read."""

    look: Callable[[], None] = staticmethod(lambda: None)
    seen: Callable[[], None] = staticmethod(lambda: None)

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        super().readinto(offset, buffer)
        self.seen()

    def _write(self, offset: int, data: Buffer, *, fua: bool) -> None:
        self.look()
        super()._write(offset, data, fua=fua)

    def flush(self) -> None:
        self.look()
        super().flush()


class StageLab(Lab):
    """As `Lab`, but nothing is settled behind a write. `faults` by file name."""

    def __init__(
        self, folder: Path, size: int = BIG, *, kept: bool = False, durability: str = "host"
    ) -> None:
        super().__init__(folder)
        self.stages = folder / "stage"
        self.faults: dict[str, Watched] = {}
        self.dm = LocalMapper(
            log=self.messages.append,
            open_file=self._open,
            durability=durability,
            stage=StageSettings(size, self.stages if kept else None),
        )

    def _open(self, path: str, writable: bool) -> BlockDevice:
        device = self.faults[Path(path).name] = Watched(FileDevice(path, writable=writable))
        return device

    def pair(self, chunk: int = 8, cow_sectors: int = 20_000) -> None:
        """org over origin, snap over it and cow."""
        origin = self.file("origin", SECTORS)
        self.fill_pattern(origin, SECTORS)
        self.file("cow", cow_sectors)
        self.tables(chunk)

    @classmethod
    def staged(cls, folder: Path) -> StageLab:
        """A lab in a new folder below, with a page of 0x11 that waits in the stage of `org`."""
        (folder / "first").mkdir()
        lab = cls(folder / "first", kept=True)
        lab.pair()
        lab.still()
        lab.put(0, 8, 0x11)
        return lab

    def tables(self, chunk: int = 8) -> None:
        self.snapshot(chunk)
        self.device("org", f"0 {SECTORS} snapshot-origin {self.folder}/origin")

    def snapshot(self, chunk: int = 8) -> None:
        self.device(
            "snap", f"0 {SECTORS} snapshot {self.folder}/origin {self.folder}/cow P {chunk}"
        )

    def put(self, sector: int, count: int, fill: int) -> None:
        self.dm.mapped("org").write(sector * 512, bytes([fill]) * (count * 512))

    def on_disk(self, sector: int, count: int) -> bytes:
        return (self.folder / "origin").read_bytes()[sector * 512 : (sector + count) * 512]

    def stage(self, name: str) -> Stage:
        target = self.dm.mapped(name).targets[0]
        if isinstance(target, OriginTarget):
            stage = target._origin.stage
        else:
            assert isinstance(target, SnapshotTarget)
            own = target._writes()  # as a first write does
            assert own is not None
            stage = own.stage
        assert stage is not None
        return stage

    def still(self, *names: str) -> None:
        """No commit but those that are asked for: the thread's would make tests depend on time."""
        for name in names or ("org",):
            self.stage(name)._thread = threading.current_thread()


def saved(lab: StageLab) -> dict[str, Any]:
    """The state as it is read from a file."""
    found = json.loads(json.dumps(lab.dm.snapshot_state()))
    assert isinstance(found, dict)
    return found


def killed(
    lab: StageLab,
    folder: Path,
    size: int = BIG,
    *,
    stopped: bool = False,
    kind: type[StageLab] | None = None,
) -> StageLab:
    """Another process on what the files held, the stage's among them, and its mapper, a lab of this
    kind; `stopped`: the one before was not killed, and saved its state as a daemon does."""
    state = saved(lab)

    def save() -> None:
        nonlocal state
        now = saved(lab)
        if len(now["devices"]) == len(state["devices"]):
            state = now

    if stopped:
        lab.dm.on_change.append(save)
        lab.dm.shutdown()
    folder.mkdir()
    (folder / "stage").mkdir()
    for file in [*lab.folder.iterdir(), *lab.stages.iterdir()]:
        if file.is_file():
            copy = folder / file.relative_to(lab.folder)
            copy.write_bytes(file.read_bytes())
    for device in state["devices"]:
        for line in device.get("table", ()):
            line[3] = line[3].replace(str(lab.folder), str(folder))
    again = (kind or type(lab))(folder, size, kept=True)
    assert again.dm.restore_state(state) == []
    return again


def killed_anywhere(
    lab: StageLab, folder: Path, act: Callable[[], None], check: Callable[[StageLab, bool], None]
) -> int:
    """`check` what another process makes of it when this one is killed between any two requests of
    `act` to the disks, and what a third one has flushed after one more kill (True). How many."""
    seen = 0

    def look() -> None:
        nonlocal seen
        seen += 1
        again = killed(lab, folder / f"again{seen}")
        check(again, False)
        third = killed(again, folder / f"third{seen}")
        for name in ("org", "snap"):
            third.dm.mapped(name).flush()
        check(third, True)
        third.dm.shutdown()
        again.dm.shutdown()

    for disk in lab.faults.values():
        disk.look = look  # type: ignore[method-assign]
    act()
    for disk in lab.faults.values():
        disk.look = Watched.look  # type: ignore[method-assign]
    return seen
