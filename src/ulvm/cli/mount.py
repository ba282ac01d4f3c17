"""`ulvm mount` and `ulvm umount`: a volume's file system on a directory, and off again."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import click

from ulvm.activation.names import dm_name
from ulvm.backup.leftovers import check_restored
from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.errors import NotFoundError, NotSupportedError, UsageError
from ulvm.lvm import lv_change
from ulvm.lvm.session import Session
from ulvm.lvm.takedown import mounted_on
from ulvm.mounts import Mount, mount_at, mount_volume, unmount, unmount_volume

__all__ = ["mount", "umount"]


@click.command()
@click.argument("volume", metavar="VG/LV")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "--options", "words", default="", help="Mount options, as for mount(8).")
@click.option("-r", "--read-only", is_flag=True, help="The same as -o ro.")
@own_options
@click.pass_obj
def mount(
    context: Context,
    volume: str,
    directory: Path,
    words: str,
    read_only: bool,
) -> None:
    """Mount a volume on DIRECTORY.

    By a loop device as root, by fuse2fs (ext2, 3 and 4) otherwise. An inactive volume is activated.
    """
    session = context.session()
    session.check_touches()
    vg_name, lv_name = session.resolve_lv(volume)
    if not directory.is_dir():
        raise NotFoundError(f"Mount point {directory} is not a directory.")
    vg = session.last_scan.vg(vg_name)
    check_restored(vg, vg.volume(lv_name))
    lv_change.use(session, vg_name, lv_name)
    path = session.host.run_dir / "dev" / vg_name / lv_name
    if not path.exists():
        raise NotSupportedError(
            f"There is no {path}, since this daemon runs without FUSE, or where that is not seen; "
            "`ulvm daemon status' says why."
        )
    mounted = mount_volume(
        path,
        directory,
        read_only=read_only,
        device_read_only=_is_read_only(path),
        options=words,
    )
    for note in mounted.notes:
        session.warn(note)
    session.say(f"{vg_name}/{lv_name} is mounted on {mounted.mount.mount_point}.")


def _is_read_only(path: Path) -> bool:
    """The volume, or the disk that it is on."""
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return error.errno == errno.EROFS
    return False


@click.command()
@click.argument("target", metavar="DIRECTORY|VG/LV", type=str)
@click.option("-l", "--lazy", is_flag=True, help="Now, though in use; it ends with its last user.")
@click.option("-f", "--force", is_flag=True, help="Also let fail what its users ask for by FUSE.")
@own_options
@click.pass_obj
def umount(context: Context, target: str, lazy: bool, force: bool) -> None:
    """Unmount a volume, named by its directory or its name. Nothing stays behind."""
    session = context.session()
    if session.host.trial:
        session.check_touches()
    at_once = lazy or force
    # What is to go at once is not looked at: it may stand on a volume that fails, or hang.
    place = os.path.abspath(target) if at_once else os.path.realpath(target)
    mounts: Sequence[Mount | str] = [place]
    if mount_at(place) is None:
        mounts = _mounts_of_volume(session, target, look=not at_once)
    for mount in mounts:
        if at_once:
            unmount(mount, lazy=lazy, force=force)
        else:
            unmount_volume(mount)


def _mounts_of_volume(session: Session, target: str, *, look: bool) -> Sequence[Mount | str]:
    """Those of a volume, the last one first. NotFoundError if there are none; but without `look`
    nothing is touched, and what is no volume's name is taken for a place."""
    try:
        vg_name, lv_name = session.resolve_lv(target)
    except (NotFoundError, UsageError):
        if not look:
            return [os.path.abspath(target)]
        if Path(target).is_dir():
            raise NotFoundError(f"{target} is not mounted.") from None
        raise
    if mounts := mounted_on(session, dm_name(vg_name, lv_name), look=look):
        return mounts
    raise NotFoundError(f"{vg_name}/{lv_name} is not mounted.")
