"""A device mapper that tells each step, in the words of LVM2's -v."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ulvm.dm_ioctl import DeviceInfo, DeviceMapper, TableLine

__all__ = ["ToldMapper"]


class ToldMapper:
    """`dm`, with `say` called before each change of a device. Devices are known by what `create`
    and `devices` have answered."""

    def __init__(self, dm: DeviceMapper, say: Callable[[str], None]) -> None:
        self._dm = dm
        self._say = say
        self._known: dict[str, DeviceInfo] = {}
        self.table = dm.table
        self.status = dm.status
        self.deps = dm.deps
        self.message = dm.message
        self.wait = dm.wait
        self.targets = dm.targets
        self.device_name = dm.device_name
        self.clear = dm.clear
        self.set_uuid = dm.set_uuid
        self.info = dm.info

    def devices(self) -> list[DeviceInfo]:
        found = self._dm.devices()
        self._known = {key: info for info in found for key in (info.name, info.uuid)}
        return found

    def create(
        self, name: str, uuid: str = "", *, minor: int | None = None, read_only: bool = False
    ) -> DeviceInfo:
        self._say(f"Creating {name}")
        info = self._dm.create(name, uuid, minor=minor, read_only=read_only)
        self._known[name] = self._known[uuid] = info
        return info

    def load(
        self, device: str, table: Sequence[TableLine], *, read_only: bool = False
    ) -> DeviceInfo:
        self._say(f"Loading table for {self._named(device)}.")
        return self._dm.load(device, table, read_only=read_only)

    def suspend(self, device: str, *, lockfs: bool = True, flush: bool = True) -> DeviceInfo:
        how = " with filesystem sync" * lockfs + " with device flush" * flush
        self._say(f"Suspending {self._named(device)}{how}")
        return self._dm.suspend(device, lockfs=lockfs, flush=flush)

    def resume(self, device: str) -> DeviceInfo:
        self._say(f"Resuming {self._named(device)}.")
        return self._dm.resume(device)

    def remove(self, device: str, *, force: bool = False, retry: bool = False) -> None:
        self._say(f"Removing {self._named(device)}")
        self._dm.remove(device, force=force, retry=retry)

    def rename(self, device: str, new_name: str) -> DeviceInfo:
        self._say(f"Renaming {self._named(device)} to {new_name}")
        return self._dm.rename(device, new_name)

    def _named(self, device: str) -> str:
        info = self._known.get(device)
        return device if info is None else f"{info.name} ({info.major}:{info.minor})"
