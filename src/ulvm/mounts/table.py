"""What is mounted where: /proc/self/mountinfo, and which of it stands on a given file.

Paths are compared as text and nothing below a mount point is touched, so that the process that
serves the volumes by FUSE may ask too (it would wait for itself). A path must therefore come
without symbolic links.

Source of the formats: proc_pid_mountinfo(5), proc_pid_fdinfo(5),
Documentation/ABI/testing/sysfs-block.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulvm.mounts.loop import Loop

__all__ = ["Mount", "is_open_in", "mount_at", "mount_table", "mounts_of", "parse_mountinfo"]

_MOUNTINFO = Path("/proc/self/mountinfo")
_SYS_BLOCK = Path("/sys/block")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_MOUNT_ID = re.compile(rb"^mnt_id:\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `root` is the directory of the file system that is mounted."""

    mount_id: int
    major: int
    minor: int
    root: str
    mount_point: str
    options: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]

    @property
    def device(self) -> tuple[int, int]:
        """(major, minor) of the file system: the same for every mount of it."""
        return self.major, self.minor

    @property
    def read_only(self) -> bool:
        """True if the file system itself is read-only, not merely this mount of it."""
        return "ro" in self.super_options

    @property
    def is_fuse(self) -> bool:
        return self.fs_type in ("fuse", "fuseblk") or self.fs_type.startswith("fuse.")


def _unescape(word: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes((int(match[1], 8),)), word))


def _parse_line(line: bytes) -> Mount:
    """36 35 98:0 /root /mnt rw,noatime shared:1 - ext3 /dev/root rw,errors=continue"""
    before, _, after = line.partition(b" - ")
    mount_id, _parent, device, root, mount_point, options = before.split(b" ")[:6]
    fs_type, source, super_options = [*after.split(b" "), b"", b""][:3]
    major, minor = device.split(b":")
    return Mount(
        int(mount_id),
        int(major),
        int(minor),
        _unescape(root),
        _unescape(mount_point),
        tuple(_unescape(options).split(",")),
        _unescape(fs_type),
        _unescape(source),
        tuple(_unescape(super_options).split(",")),
    )


def parse_mountinfo(text: bytes) -> list[Mount]:
    """The lines of a mountinfo file, in order: a later mount hides an earlier one. A name may hold
    any other end of a line (a carriage return) as it is."""
    return [_parse_line(line) for line in text.split(b"\n") if line]


def mount_table() -> list[Mount]:
    """The mounts that this process sees."""
    return parse_mountinfo(_MOUNTINFO.read_bytes())


def mount_at(mount_point: str | os.PathLike[str]) -> Mount | None:
    """The mount on top at exactly this mount point."""
    wanted = os.path.abspath(mount_point)
    found = [mount for mount in mount_table() if mount.mount_point == wanted]
    return found[-1] if found else None


def is_open_in(descriptor: int, mount: Mount) -> bool:
    """Whether what is open lies in this mount: a path leads elsewhere where another mount lies over
    it, or over what is above it."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        found = _MOUNT_ID.search(file.read())
    return found is None or int(found[1]) == mount.mount_id


def _device_number(directory: Path) -> tuple[int, int]:
    major, minor = (directory / "dev").read_text().strip().split(":")
    return int(major), int(minor)


def _stacked_on(directory: Path) -> Iterable[tuple[str, tuple[int, int]]]:
    """(name, number) of a block device, its partitions, and what holds them (dm, md)."""
    try:
        yield directory.name, _device_number(directory)
        entries = sorted(directory.iterdir())
        holders = sorted((directory / "holders").iterdir())
    except FileNotFoundError:  # gone meanwhile
        return
    for entry in entries:
        if (entry / "partition").exists():
            yield from _stacked_on(entry)
    for holder in holders:
        yield from _stacked_on(holder.resolve())


def _node(mount: Mount) -> tuple[int, int] | None:
    """The block device that a btrfs stands on. Its own number is no device's, and its source is the
    name that mount(8) was given, /dev/mapper/NAME say: a node, none of our files."""
    if mount.fs_type != "btrfs":
        return None
    try:
        number = os.stat(mount.source).st_rdev
    except OSError:  # renamed meanwhile
        return None
    return os.major(number), os.minor(number)


def mounts_of(
    path: str | os.PathLike[str],
    *,
    every: bool = False,
    former: bool = False,
    loops: Iterable[Loop] | None = None,
    names: Iterable[str | os.PathLike[str]] = (),
    sys_block: Path = _SYS_BLOCK,
) -> list[Mount]:
    """The mounts whose data lie in the file `path`, one for each file system, in order; `every`:
    each place where these are mounted; `former`: by loop devices over the file that had the name;
    `loops`: by these, instead of those that are over a file of that name; `names`: others of the
    file, by one of which fuse2fs may have been told of it.

    A file system stands on the file if its source is the file itself (fuse2fs), or a loop device
    over it, a partition of that, or a device-mapper device on top of these (LUKS).
    """
    from ulvm.mounts.loop import loops_on

    wanted = os.path.abspath(path)
    sources: set[str] = set() if former else {wanted}
    served = {os.path.abspath(name) for name in names}
    numbers: set[tuple[int, int]] = set()
    if loops is None:
        loops = loops_on(wanted, former=former, sys_block=sys_block)
    for loop in loops:
        for name, number in _stacked_on(sys_block / loop.name):
            sources.add(f"/dev/{name}")
            numbers.add(number)
    found: dict[tuple[int, int], Mount] = {}
    table = mount_table()
    for mount in table:
        if (
            mount.device in numbers
            or mount.source in sources
            or (mount.is_fuse and mount.source in served)
            or _node(mount) in numbers
        ):
            found.setdefault(mount.device, mount)
    return [mount for mount in table if mount.device in found] if every else list(found.values())
