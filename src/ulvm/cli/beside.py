"""Programs beside LVM2's own that scripts use together with it, made to know our volumes.

    lsblk   calls the system's and shows a volume that is mounted by a loop device as what it is, in
            JSON: {"name": "vg-lv", "path": "/dev/mapper/vg-lv", "type": "lvm"}
    fsadm   calls lvm2's on a block device: the loop device by which the volume is mounted, whose
            size is brought up to the volume's, else one for the time of the call

For the directory of command links; under the name `ulvm` they are no use to anybody.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ulvm.activation.names import dm_name
from ulvm.cli.context import Context
from ulvm.errors import NotFoundError, UsageError
from ulvm.lvm.names import split_volume
from ulvm.vgstore.host import Host

if TYPE_CHECKING:
    from ulvm.mounts import AttachedLoop

__all__ = ["fsadm", "lsblk"]

_PASSES = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_SBIN = ":/usr/sbin:/sbin"


def _system(context: Context, name: str) -> str:
    """The program of this name that is not ours; NotFoundError."""
    for directory in (context.environ.get("PATH", "") + _SBIN).split(":"):
        path = Path(directory) / name
        if os.access(path, os.X_OK) and path.resolve() != Path(sys.argv[0]).resolve():
            return str(path)
    raise NotFoundError(f"{name} is not installed.")


@click.command(context_settings=_PASSES, hidden=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def lsblk(context: Context, words: tuple[str, ...]) -> int:
    """The system's lsblk, with mounted volumes shown as such where it writes JSON."""
    argv = [_system(context, "lsblk"), *words]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=False)
    text = done.stdout
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and _relabel(found.get("blockdevices"), context.host):
        text = json.dumps(found, indent=3).encode() + b"\n"
    sys.stdout.buffer.write(text)
    return done.returncode


def _relabel(devices: Any, host: Host) -> bool:
    """Whether one of these, or of their children, is a volume of ours."""
    changed = False
    for device in devices if isinstance(devices, list) else ():
        changed |= _relabel(device.get("children"), host)
        name = _volume_below(device.get("path") or device.get("name") or "", host.run_dir)
        if name is None:
            continue
        changed = True
        path = str(host.dev_dir / "mapper" / name)
        if not os.path.lexists(path):
            path = str(host.run_dir / "dev" / "mapper" / name)
        shown = {"name": name, "path": path, "type": "lvm"}
        if str(device.get("name")).startswith("/"):
            shown["name"] = path
        device.update({key: value for key, value in shown.items() if key in device})
    return changed


def _volume_below(device: str, run_dir: Path) -> str | None:
    """The dm name of the volume that a loop device stands on."""
    from ulvm.mounts import loop_named

    loop = loop_named(Path(device).name)
    if loop is None or not loop.backing_file.startswith(f"{run_dir}/dev/"):
        return None
    try:
        vg, lv = split_volume(loop.backing_file, run_dir)
    except UsageError:
        return None
    return None if lv is None else dm_name(vg, lv)


@click.command(context_settings=_PASSES, hidden=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def fsadm(context: Context, words: tuple[str, ...]) -> int:
    """lvm2's fsadm, on a loop device over the volume that is named."""
    program = _system(context, "fsadm")
    run_dir = context.host.run_dir
    shown = list(words)
    held: AbstractContextManager[object] = nullcontext()
    for number, word in enumerate(words):
        path = _file_of(word, run_dir)
        if path is not None:
            held = device = _block_device(path)
            shown[number] = device.path
            break
    with held:
        return subprocess.run([program, *shown], check=False).returncode


def _file_of(word: str, run_dir: Path) -> Path | None:
    """The file of the FUSE tree that a word of the command line means."""
    try:
        vg, lv = split_volume(word, run_dir)
    except UsageError:
        return None
    path = run_dir / "dev" / vg / (lv or "")
    return path if lv is not None and path.exists() else None


def _block_device(path: Path) -> AttachedLoop:
    """A loop device over the volume, held: programs may unmount what is on it, and mount it."""
    from ulvm.mounts import attach, one_at_a_time
    from ulvm.mounts.loop import grow, hold

    with one_at_a_time(path):
        there = hold(path)
        if there is None:
            return attach(path)
        grow(there.path)
        return there
