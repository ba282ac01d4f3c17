"""A volume and its file system resized together (--resizefs, what fsadm(8) is to LVM2).

    grow    check, volume, file system          cut    check, file system, volume

Crash argument. The volume is at every moment at least as long as the file system says it is. Cut
short between two steps, it is longer: `lvextend -r` to the same size, or `lvreduce -r`, is refused
or done as if the first had not been, and nothing of the file system is lost. A program of a file
system that is killed leaves what it leaves, and resize2fs has no way back; so Ctrl-C waits for it
and for the step behind it. From the unmounting for a cut all signals wait until it is mounted
again; but Ctrl-C at a terminal reaches e2fsck, which knows how to stop, and with it the cut.

A file system that is not mounted where this command sees it is resized only while nobody has the
volume open: programs for block devices learn of a mount from the kernel, which knows none of a
client of NBD.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ulvm.errors import BusyError, NotSupportedError, RefusedError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import resize
from ulvm.lvm.resize import Resize, Target
from ulvm.lvm.session import Session
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.mounts.filesystem_size import SizedFileSystem
from ulvm.units import SECTOR

__all__ = ["resize_with"]


class _Job(NamedTuple):
    session: Session
    vg: VolumeGroup
    lv: LogicalVolume
    asked: Resize
    wanted: Target

    def resize(self) -> None:
        resize.apply(*self)


def resize_with(
    session: Session,
    vg: VolumeGroup,
    lv: LogicalVolume,
    asked: Resize,
    wanted: Target,
    *,
    check: bool,
) -> None:
    """Resize the volume, which is active, and what is on it. The VG's lock is held."""
    name = f"{vg.name}/{lv.name}"
    job = _Job(session, vg, lv, asked, wanted)
    if vg.is_cow(lv.name):
        session.say(f"Ignoring --resizefs as volume {name} does not have a filesystem.")
        job.resize()
        return
    state = lvm_lv.states(session, vg).get(lv.name)
    if state is None:
        raise RefusedError(f"Logical volume {name} must be activated before resizing filesystem.")
    if state.info.read_only:
        raise RefusedError(f"Logical volume {name} is read-only: so is its filesystem.")
    tree = session.host.run_dir / "dev"
    path = tree / vg.name / lv.name
    if not path.exists():
        raise NotSupportedError(f"There is no {path}: the daemon runs without FUSE.")
    names = [Path("mapper", state.info.name), Path(vg.name, lv.name)]
    others = [root / name for root in (tree, session.host.dev_dir) for name in names]
    found = SizedFileSystem(path, session.say, others)
    if not found.mounts:
        _check_unused(job)
    if wanted.wanted > wanted.have:
        found.may_grow()
    if session.host.trial:
        job.resize()
    elif wanted.wanted > wanted.have:
        _grow(job, found, check=check)
    else:
        _cut(job, found, check=check)


def _check_unused(job: _Job) -> None:
    """BusyError while somebody has the volume open. Whoever mounted it out of sight, by NBD or in
    another mount namespace, must not have his file system changed under him."""
    name = job.lv.name
    state = lvm_lv.states_at_rest(job.session, job.vg, [name], always=True).get(name)
    if state is not None and state.open_count:
        raise BusyError(
            f"Logical volume {job.vg.name}/{name} in use.\n"
            "Its filesystem is not mounted here, and cannot be resized while others have it open."
        )


def _grow(job: _Job, found: SizedFileSystem, *, check: bool) -> None:
    if check:
        found.check()
    job.session.hold_signals()
    job.resize()
    vg = job.session.scan().vg(job.vg.name)
    grown = lvm_lv.get(vg, job.lv.name)
    found.grow(vg.lv_sectors(grown) * SECTOR, force=not check)


def _cut(job: _Job, found: SizedFileSystem, *, check: bool) -> None:
    session, vg, lv = job.session, job.vg, job.lv
    if vg.is_origin(lv.name):
        raise RefusedError("Snapshot origin volumes cannot be reduced in size yet.")
    found.may_shrink()
    mounts = found.mounts
    if mounts and not session.ask(f'Do you want to unmount "{mounts[0].mount_point}" ?'):
        raise RefusedError(f"Logical volume {vg.name}/{lv.name} NOT reduced.")
    session.hold_signals()  # Those whose action is to end the command would leave it unmounted.
    try:
        if mounts:
            found.unmount()
        _check_unused(job)
        if check:
            found.check()
        found.shrink(job.wanted.wanted * vg.extent_size * SECTOR, force=not check)
        job.resize()
    except BaseException:
        try:
            found.mount_again()
        except UlvmError as error:
            session.warn(error.message)
        raise
    found.mount_again()
