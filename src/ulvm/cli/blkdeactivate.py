"""`blkdeactivate`: deactivate volumes and mapped devices, unmounting what stands on them."""

from __future__ import annotations

import click

from ulvm.cli.context import Context
from ulvm.errors import NotFoundError
from ulvm.lvm.takedown import TakeDown, take_down

__all__ = ["blkdeactivate"]

_FAILED = 1
"""blkdeactivate(8) knows no other exit code."""


@click.command()
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
@click.option("-u", "--umount", is_flag=True, help="Unmount what is mounted first.")
@click.option("-e", "--errors", is_flag=True, help="Say why something is skipped.")
@click.option("-v", "--verbose", count=True, help="The same.")
@click.option(
    "-d",
    "--dmoptions",
    default="",
    metavar="retry,force",
    help="For mapped devices that are no volumes: try again for a while; put errors in "
    "the place of their data.",
)
@click.option(
    "-l",
    "--lvmoptions",
    default="",
    metavar="retry,wholevg",
    help="For volumes: try again; deactivate a whole group at once.",
)
@click.option("-m", "--mpathoptions", hidden=True)
@click.option("-r", "--mdraidoptions", hidden=True)
@click.option("-o", "--vdooptions", hidden=True)
@click.pass_obj
def blkdeactivate(
    context: Context,
    devices: tuple[str, ...],
    umount: bool,
    errors: bool,
    verbose: int,
    dmoptions: str,
    lvmoptions: str,
    mpathoptions: str | None,
    mdraidoptions: str | None,
    vdooptions: str | None,
) -> int:
    """Deactivate the named volumes, groups and mapped devices, or all.

    A volume goes with its snapshots. What is mounted is skipped, or unmounted with -u; what is in
    use otherwise is skipped.
    """
    dm = _options(dmoptions, ("retry", "force"), "DM")
    lvm = _options(lvmoptions, ("retry", "wholevg"), "LVM")
    if dm is None or lvm is None:
        return _FAILED
    wanted = TakeDown(
        unmount=umount,
        retry="retry" in lvm,
        whole_vg="wholevg" in lvm,
        force="force" in dm,
        retry_devices="retry" in dm,
        explain=errors or verbose > 0,
    )
    try:
        take_down(context.session(), devices, wanted)
    except NotFoundError as error:
        click.echo(error.message, err=True)
        return _FAILED
    return 0


def _options(text: str, known: tuple[str, ...], kind: str) -> set[str] | None:
    words = set(filter(None, text.split(",")))
    for word in words.difference(known):
        click.echo(f"{word}: unknown {kind} option", err=True)
        return None
    return words
