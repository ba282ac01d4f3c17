"""`ulvm mount` and `ulvm umount`: a volume's file system on a directory, and off again."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.errors import BusyError, NotFoundError, NotSupportedError
from ulvm.lvm import lv_change
from ulvm.mounts import loops_on, lost_loops, mount_volume, unmount, unmount_volume

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
    vg_name, lv_name = session.resolve_lv(volume)
    if not directory.is_dir():
        raise NotFoundError(f"Mount point {directory} is not a directory.")
    state = lv_change.use(session, vg_name, lv_name)
    path = session.host.run_dir / "dev" / vg_name / lv_name
    if not path.exists():
        raise NotSupportedError(
            f"There is no {path}, since this daemon runs without FUSE; "
            "`ulvm daemon status' says why."
        )
    if state is not None and not state.info.read_only and state.open_count:
        _check_in_sight(path, session.host.run_dir / "dev")
    mounted = mount_volume(
        path,
        directory,
        read_only=read_only,
        device_read_only=state is not None and state.info.read_only,
        options=words,
    )
    for note in mounted.notes:
        session.warn(note)
    session.say(f"{vg_name}/{lv_name} is mounted on {mounted.mount.mount_point}.")


def _check_in_sight(path: Path, tree: Path) -> None:
    """BusyError if a volume that is open may be mounted under a name that it had before: a second
    loop device would be a second file system on it."""
    lost = lost_loops(tree)
    if lost and not loops_on(path):
        raise BusyError(
            f"{path} is open, and may be mounted under the name that it had: "
            f"{lost[0].path} stands on {lost[0].backing_file}."
        )


@click.command()
@click.argument("target", metavar="DIRECTORY|VG/LV", type=str)
@click.option("-l", "--lazy", is_flag=True, help="Now, though in use; it ends with its last user.")
@click.option("-f", "--force", is_flag=True, help="Also let fail what its users ask for by FUSE.")
@own_options
@click.pass_obj
def umount(context: Context, target: str, lazy: bool, force: bool) -> None:
    """Unmount a volume, named by its directory or its name. Nothing stays behind."""
    session = context.session()
    if lazy or force:
        # Nothing of it is looked at: it may stand on a volume that fails, or hang.
        unmount(os.path.abspath(target), lazy=lazy, force=force)
        return
    if not Path(target).is_dir():
        vg_name, lv_name = session.resolve_lv(target)
        target = str(session.host.run_dir / "dev" / vg_name / lv_name)
    unmount_volume(target)
