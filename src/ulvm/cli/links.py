"""`ulvm links`: LVM2's commands as links to this program, for a directory that is first in PATH."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.errors import NotFoundError, RefusedError

__all__ = ["link_names", "links"]

_PREFIXES = ("pv", "vg", "lv")
_OTHERS = ("lvm", "dmsetup", "blkdeactivate", "lsblk", "fsadm")


def link_names() -> list[str]:
    """The names under which scripts call LVM2 and what belongs to it."""
    from ulvm.cli.main import COMMANDS

    names = [name for name in COMMANDS if name.startswith(_PREFIXES)]
    return [*names, *(name for name in _OTHERS if name == "lvm" or name in COMMANDS)]


@click.command()
@click.argument("directory", metavar="DIRECTORY")
@click.option("--remove", is_flag=True, help="Remove the links again.")
@own_options
@click.pass_obj
def links(context: Context, directory: str, remove: bool) -> None:
    """Make links of LVM2's names to ulvm in DIRECTORY.

    With that directory first in PATH, scripts that know only LVM2 work with ulvm: lvs, lvcreate and
    the others, lvm, dmsetup, blkdeactivate, lsblk and fsadm. What is there under such a name and is
    no link to ulvm stays, and is told of.
    """
    target = _program()
    folder = Path(directory).absolute()
    if not remove:
        folder.mkdir(parents=True, exist_ok=True)
    foreign = []
    for name in link_names():
        link = folder / name
        if link.is_symlink() and _same(link, target):
            if remove:
                link.unlink()
        elif os.path.lexists(link):
            foreign.append(str(link))
        elif not remove:
            link.symlink_to(target)
    if foreign:
        raise RefusedError(
            "\n".join(f"{path} is not a link to ulvm; it stays." for path in foreign)
        )
    if not remove:
        context.console.say(f'To use them: PATH="{folder}:$PATH"')


def _same(link: Path, target: Path) -> bool:
    return os.path.realpath(link) == os.path.realpath(target)


def _program() -> Path:
    """The installed program `ulvm`. NotFoundError."""
    started = Path(sys.argv[0])
    found = [started] if started.name in ("ulvm", *link_names()) else []
    found.append(Path(sys.executable).parent / "ulvm")
    for path in found:
        absolute = Path(os.path.realpath(path))
        if absolute.name == "ulvm" and os.access(absolute, os.X_OK):
            return absolute
    other = shutil.which("ulvm")
    if other is None:
        raise NotFoundError("The program ulvm is not installed.")
    return Path(other).absolute()
