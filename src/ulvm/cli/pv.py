"""pvcreate, pvremove, pvscan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ulvm.cli.arguments import each
from ulvm.cli.context import Context, common_options
from ulvm.errors import UsageError
from ulvm.lvm import pv as lvm_pv
from ulvm.lvm.sizes import parse_sectors
from ulvm.metadata.layout import PvOptions
from ulvm.units import SECTOR, display_size

__all__ = ["layout_options", "pv_options", "pvcreate", "pvremove", "pvscan"]

_F = TypeVar("_F", bound=Callable[..., Any])


def layout_options(function: _F) -> _F:
    """The options that shape a new PV, of pvcreate, vgcreate and vgextend."""
    options = [
        click.option("--metadatasize", help="Size of a metadata area (default: to 1 MiB)."),
        click.option("--pvmetadatacopies", "--metadatacopies", type=click.Choice(["0", "1", "2"]),
                     default="1", help="Metadata areas on the PV (default 1)."),
        click.option("--dataalignment", help="Align the first extent to this (default 1m)."),
        click.option("--dataalignmentoffset", help="Shift the first extent by this."),
        click.option("--bootloaderareasize", help="Space kept free before the first extent."),
        click.option("--labelsector", type=click.IntRange(0, 3), default=1, hidden=True),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def pv_options(values: dict[str, Any]) -> PvOptions:
    """`PvOptions` from the values of `layout_options`."""

    def sectors(name: str) -> int:
        text = values[name]
        return 0 if text is None else parse_sectors(text, f"--{name}")

    return PvOptions(
        metadata_size=sectors("metadatasize"),
        metadata_copies=int(values["pvmetadatacopies"]),
        data_alignment=sectors("dataalignment"),
        data_alignment_offset=sectors("dataalignmentoffset"),
        bootloader_area_size=sectors("bootloaderareasize"),
        label_sector=values["labelsector"],
    )


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-f", "--force", count=True, help="Do not ask; -ff: also a PV that a VG uses.")
@click.option("-u", "--uuid", help="Give the PV this UUID.")
@click.option("--norestorefile", is_flag=True, help="With --uuid: there is no backup to follow.")
@click.option("-Z", "--zero", type=click.Choice(["y", "n"]), default="y", hidden=True)
@click.option("-M", "--metadatatype", type=click.Choice(["lvm2", "2"]), hidden=True)
@layout_options
@common_options
@click.pass_obj
def pvcreate(
    context: Context,
    /,
    paths: tuple[str, ...],
    force: int,
    uuid: str | None,
    norestorefile: bool,
    zero: str,
    metadatatype: str | None,
    **layout: Any,
) -> int:
    """Make disks or plain files physical volumes.

    \b
    truncate -s 10G disk.img
    pvcreate disk.img
    """
    session = context.session()
    if uuid is not None and len(paths) != 1:
        raise UsageError("Can only set uuid on one volume at once")
    if uuid is not None and not norestorefile:
        raise UsageError("--restorefile is required with --uuid")
    options = pv_options(layout)

    def create(path: str) -> None:
        pv = lvm_pv.create(session, path, options=options, uuid=uuid, force=force)
        session.say(f'Physical volume "{pv.path}" successfully created.')

    return each(session, paths, create)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-f", "--force", count=True, help="-ff: also a PV that a VG uses.")
@common_options
@click.pass_obj
def pvremove(context: Context, paths: tuple[str, ...], force: int) -> int:
    """Wipe the labels of physical volumes."""
    session = context.session()

    def remove(path: str) -> None:
        lvm_pv.remove(session, path, force=force)
        session.say(f'Labels on physical volume "{path}" successfully wiped.')

    return each(session, paths, remove)


@click.command()
@common_options
@click.pass_obj
def pvscan(context: Context) -> None:
    """List all physical volumes."""
    session = context.session()
    scan = session.scan()
    if not scan.pvs:
        session.say("No matching physical volumes found")
        return
    width = max(len(pv.path) for pv in scan.pvs) + 2
    # LVM2 counts the group of PVs without a group, too: "#orphans_lvm2".
    names = max(13, *(len(pv.vg_name or "") for pv in scan.pvs)) + 2
    used, loose = [], []
    lines, loose_lines = [], []
    for pv in scan.pvs:
        if pv.vg_name is None or pv.vg_name in scan.broken:
            sectors = pv.size // SECTOR
            loose.append(sectors)
            loose_lines.append(
                f"PV {pv.path:<{width}} {'':<{names + 3}} lvm2 [{display_size(sectors)}]"
            )
            continue
        vg = scan.vg(pv.vg_name)
        member = vg.pv(pv.uuid)
        assert member is not None
        size = member.pe_count * vg.extent_size
        free = (member.pe_count - vg.allocated(pv.uuid)) * vg.extent_size
        used.append(size)
        lines.append(
            f"PV {pv.path:<{width}} VG {vg.name:<{names}} lvm2 "
            f"[{display_size(size)} / {display_size(free)} free]"
        )
    for line in (*lines, *loose_lines):
        session.say(line)
    session.say(
        f"Total: {len(scan.pvs)} [{display_size(sum(used) + sum(loose))}]"
        f" / in use: {len(used)} [{display_size(sum(used))}]"
        f" / in no VG: {len(loose)} [{display_size(sum(loose))}]"
    )
