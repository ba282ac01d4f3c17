"""The mapped devices as exports, and the names under which doors and tables know them.

`mapper/<dm name>` is every device with a table; `<vg>/<lv>` every logical volume, told by its dm
UUID (`LVM-` and no layer). The same names are paths under `<run_dir>/dev`.
"""

from __future__ import annotations

import re
from pathlib import Path

from ulvm.activation.names import dm_name, is_top_level, split_dm_name
from ulvm.blockdev.base import BlockDevice
from ulvm.dm.device import Frozen, MappedDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.errors import FormatError, NotFoundError
from ulvm.exports.source import ExportInfo
from ulvm.mounts import FrozenMounts, Mount, mount_table, mounts_of

__all__ = ["DEV_DIR", "MapperExports", "MountFreezer", "export_names", "name_of_path"]

DEV_DIR = "dev"
_MAPPER = "mapper"
_NOT_NAMES = ".", ".."
"""Which dmsetup lets stand in a dm name; as paths they lead elsewhere."""
_RESERVED = re.compile(r"pvmove\d+(_mimage_\d+)?$")
"""Volumes that pvmove makes, and nobody else is to use."""


def export_names(device: MappedDevice) -> list[str]:
    """All names of one device; the first is the one to show."""
    return _names(device.name, device.uuid)


def _names(name: str, uuid: str) -> list[str]:
    names = [f"{_MAPPER}/{name}"]
    if is_top_level(uuid):
        try:
            vg, lv, layer = split_dm_name(name)
        except FormatError:
            return names
        named = vg not in (_MAPPER, *_NOT_NAMES) and lv not in _NOT_NAMES
        if not layer and named and not _RESERVED.match(lv):
            names.insert(0, f"{vg}/{lv}")
    return names


def name_of_path(path: str, run_dir: Path) -> str | None:
    """The dm name that a path of ours stands for: under `<run_dir>/dev`, or /dev/<vg>/<lv>."""
    for root in (str(run_dir / DEV_DIR), "/dev"):
        words = path.removeprefix(f"{root}/").split("/")
        if path.startswith(f"{root}/") and len(words) == 2 and not set(words) & set(_NOT_NAMES):
            return words[1] if words[0] == _MAPPER else dm_name(words[0], words[1])
    return None


class MapperExports:
    """`ExportSource` over a mapper."""

    def __init__(self, mapper: LocalMapper) -> None:
        self._mapper = mapper

    def exports(self) -> list[ExportInfo]:
        found = [
            self._info(name, device)
            for device in self._mapper.all_mapped()
            if device.live is not None
            for name in export_names(device)
        ]
        return sorted(found, key=lambda info: info.name)

    def describe(self, name: str) -> ExportInfo:
        return self._info(name, self._find(name))

    def open(self, name: str, *, write: bool) -> BlockDevice:
        return self._find(name).open(write=write)

    def _find(self, name: str) -> MappedDevice:
        first, _, second = name.partition("/")
        wanted = second if first == _MAPPER else dm_name(first, second)
        if first and second:
            device = self._mapper.mapped_by_name(wanted)
            if device is not None and device.live is not None and name in export_names(device):
                return device
        raise NotFoundError(f"no volume named {name!r} is active")

    @staticmethod
    def _info(name: str, device: MappedDevice) -> ExportInfo:
        kinds = {target.type_name for target in device.targets}
        return ExportInfo(
            name,
            device.size,
            device.read_only,
            description=" ".join(sorted(kinds)),
            is_snapshot=kinds == {"snapshot"},
            device=device,
        )


class MountFreezer:
    """Freezes what is mounted on a device through the FUSE tree, while the device is suspended.

    Called by the thread of a control connection: freezing writes to the device, and other
    threads serve that.
    """

    def __init__(self, run_dir: Path, dev_dir: Path) -> None:
        """With the directory of the links to the tree."""
        self._root = run_dir / DEV_DIR
        self._links = dev_dir
        self._mapper: LocalMapper | None = None

    def attach(self, mapper: LocalMapper) -> None:
        self._mapper = mapper

    def mounts(self, name: str) -> list[Mount]:
        """Each place where something is mounted on the dm device of this name."""
        assert self._mapper is not None
        device = self._mapper.mapped(name)
        found: dict[tuple[int, int], Mount] = {}
        for export in export_names(device):
            for mount in mounts_of(self._root / export, names=[self._links / export]):
                found.setdefault(mount.device, mount)
        # What is mounted stays so through a rename, by a loop device that has the name of before.
        for former in device.former_names:
            for export in _names(former, device.uuid):
                for mount in mounts_of(self._root / export, former=True):
                    found.setdefault(mount.device, mount)
        return [mount for mount in mount_table() if mount.device in found]

    def mount_points(self, name: str) -> list[tuple[str, bool]]:
        """Of `mounts`, the last one first, and whether it is on top there."""
        mounts = self.mounts(name)
        top = {mount.mount_point: mount.mount_id for mount in mount_table()}
        return [(m.mount_point, top.get(m.mount_point) == m.mount_id) for m in reversed(mounts)]

    def freeze(self, name: str) -> FrozenMounts | None:
        mounts = self.mounts(name)
        return FrozenMounts(mounts).__enter__() if mounts else None

    def thaw(self, token: Frozen) -> None:
        assert isinstance(token, FrozenMounts)
        token.__exit__(None, None, None)
