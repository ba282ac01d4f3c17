"""Mounts and loop devices: finding them, making them, freezing what is on them. Needs errors only.

table            what is mounted where, and on which file      mount_at, mounts_of
loop             loop devices                                  loops_over, attach
freeze           FIFREEZE and FITHAW                           FrozenMounts
unmount          umount2(2) or fusermount3                     unmount
volume           a volume on a directory                       mount_volume, unmount_volume
filesystem_size  checked, grown and cut with its volume        SizedFileSystem
"""

from ulvm.mounts.freeze import FrozenMounts
from ulvm.mounts.loop import (
    AttachedLoop,
    Loop,
    attach,
    loop_named,
    loops_on,
    loops_over,
)
from ulvm.mounts.table import Mount, mount_at, mount_table, mounts_of
from ulvm.mounts.unmount import unmount
from ulvm.mounts.volume import (
    FileSystem,
    MountedVolume,
    mount_volume,
    one_at_a_time,
    probe,
    unmount_volume,
)

__all__ = [
    "AttachedLoop",
    "FileSystem",
    "FrozenMounts",
    "Loop",
    "Mount",
    "MountedVolume",
    "attach",
    "loop_named",
    "loops_on",
    "loops_over",
    "mount_at",
    "mount_table",
    "mount_volume",
    "mounts_of",
    "one_at_a_time",
    "probe",
    "unmount",
    "unmount_volume",
]
