"""`lvmdump`: a bundle for the report of a fault."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ulvm.cli.context import Context
from ulvm.errors import RefusedError
from ulvm.lvm.dump import DumpOptions, dump_name, pack, write_dump

__all__ = ["lvmdump"]


@click.command()
@click.option("-a", "advanced", is_flag=True, help="Also what pvs, vgs, lvs and the scans say.")
@click.option(
    "-d",
    "directory",
    metavar="DIRECTORY",
    help="Leave the files in this new directory rather than in an archive.",
)
@click.option("-m", "metadata", is_flag=True, help="Also the metadata of each PV, byte by byte.")
@click.option("-s", "system", is_flag=True, help="Also what the system has to say: lsblk, journal.")
@click.option("-c", "nothing", is_flag=True, hidden=True)
@click.option("-l", "nothing", is_flag=True, hidden=True)
@click.option("-p", "nothing", is_flag=True, hidden=True)
@click.option("-u", "nothing", is_flag=True, hidden=True)
@click.pass_obj
def lvmdump(
    context: Context,
    advanced: bool,
    directory: str | None,
    metadata: bool,
    system: bool,
    nothing: bool,
) -> None:
    """Gather what the report of a fault should hold, in an archive in the home directory.

    Versions, settings, devices and their tables, metadata backups, the daemon's log. Nothing of
    the volumes' content is in it.
    """
    options = DumpOptions(advanced, metadata, system)
    name = dump_name(time.strftime("%Y%m%d%H%M%S"))
    home = Path(context.environ.get("HOME", "."))
    place = Path(directory) if directory is not None else home / name
    write_dump(context.host, place.absolute(), options, click.echo)
    if directory is not None:
        return
    archive = home / f"{name}.tgz"
    click.echo(f"Creating report tarball in {archive}...")
    try:
        pack(place, archive)
    except OSError as error:
        raise RefusedError(f"{archive}: {error.strerror}") from error
