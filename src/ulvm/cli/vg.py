"""vgcreate, vgextend, vgreduce, vgremove, vgchange, vgrename, vgscan, vgcfgbackup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ulvm.cli.arguments import (
    POLICY,
    YES_NO,
    Number,
    OneOf,
    each,
    no_such_syntax,
    wants_active,
)
from ulvm.cli.context import Context, common_options
from ulvm.cli.lv import remove_one
from ulvm.cli.pv import layout_options, pv_options
from ulvm.errors import RefusedError, UsageError
from ulvm.lvm import missing as lvm_missing
from ulvm.lvm import vg as lvm_vg
from ulvm.lvm.names import new_vg_name, vg_name
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import parse_sectors
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_tag
from ulvm.vgstore.archive import backup_vg

__all__ = [
    "vgcfgbackup",
    "vgchange",
    "vgcreate",
    "vgextend",
    "vgreduce",
    "vgremove",
    "vgrename",
    "vgscan",
]


@click.command()
@click.argument("name", metavar="VG")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-s", "--physicalextentsize", help="Size of an extent (default 4m).")
@click.option("-l", "--maxlogicalvolumes", type=Number(), default=0, help="0: no limit.")
@click.option("-p", "--maxphysicalvolumes", type=Number(), default=0, help="0: no limit.")
@click.option("--addtag", multiple=True, help="Tag of the volume group.")
@click.option("--alloc", type=POLICY, default="normal", help="Allocation policy.")
@click.option("-f", "--force", count=True, help="Do not ask about what is on the devices.")
@layout_options
@common_options
@click.pass_obj
def vgcreate(
    context: Context,
    /,
    name: str,
    paths: tuple[str, ...],
    physicalextentsize: str | None,
    maxlogicalvolumes: int,
    maxphysicalvolumes: int,
    addtag: tuple[str, ...],
    alloc: str,
    force: int,
    **layout: Any,
) -> None:
    """Create a volume group of disks or plain files, which become physical volumes."""
    session = context.session()
    extent = 2 * session.host.config.get_int("allocation/physical_extent_size", 4096)
    if physicalextentsize is not None:
        extent = parse_sectors(physicalextentsize, "--physicalextentsize")
    lvm_vg.create(
        session,
        new_vg_name(name, session.host.run_dir),
        paths,
        extent_size=extent,
        max_lv=maxlogicalvolumes,
        max_pv=maxphysicalvolumes,
        tags=[check_tag(tag) for tag in addtag],
        policy=alloc,
        options=pv_options(layout, session.host.config),
        force=force,
    )
    session.say(f'Volume group "{name}" successfully created')


@click.command()
@click.argument("name", metavar="VG")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-f", "--force", count=True, help="Do not ask about what is on the devices.")
@click.option(
    "--restoremissing", is_flag=True, help="Take back PVs that were missing; their content counts."
)
@layout_options
@common_options
@click.pass_obj
def vgextend(
    context: Context,
    /,
    name: str,
    paths: tuple[str, ...],
    force: int,
    restoremissing: bool,
    **layout: Any,
) -> None:
    """Add disks or plain files to a volume group."""
    session = context.session()
    group = vg_name(name, session.host.run_dir)
    if restoremissing:
        lvm_missing.restore(session, group, paths)
    else:
        lvm_vg.extend(
            session, group, paths, options=pv_options(layout, session.host.config), force=force
        )
    session.say(f'Volume group "{group}" successfully extended')


@click.command()
@click.argument("name", metavar="VG")
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("-a", "--all", "unused", is_flag=True, help="All that hold nothing, but the last.")
@click.option("--removemissing", is_flag=True, help="The PVs that are not there.")
@click.option(
    "-f", "--force", is_flag=True, help="With --removemissing: and the volumes that need them."
)
@common_options
@click.pass_obj
def vgreduce(
    context: Context,
    name: str,
    paths: tuple[str, ...],
    unused: bool,
    removemissing: bool,
    force: bool,
) -> int:
    """Take unused physical volumes out of a volume group."""
    if bool(paths) + unused + removemissing != 1:
        raise no_such_syntax("vgreduce")
    session = context.session()
    group = vg_name(name, session.host.run_dir)
    if removemissing:
        return 0 if lvm_missing.remove(session, group, force=force) else 5
    return 5 if lvm_vg.reduce(session, group, paths, unused=unused) else 0


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="VG...")
@click.option("-f", "--force", count=True, help="Do not ask about logical volumes.")
@common_options
@click.pass_obj
def vgremove(context: Context, names: tuple[str, ...], force: int) -> int:
    """Remove volume groups, with their logical volumes if that is confirmed."""
    session = context.session()

    def remove(name: str) -> None:
        group = vg_name(name, session.host.run_dir)
        with session.lock_global(), session.lock(group):
            _remove_volumes(session, session.vg_for_change(group), force > 0)
            lvm_vg.remove(session, group)
        session.say(f'Volume group "{group}" successfully removed')

    return each(session, names, remove)


def _remove_volumes(session: Session, vg: VolumeGroup, force: bool) -> None:
    volumes = vg.visible_lvs()
    if not volumes:
        return
    question = (
        f'Do you really want to remove volume group "{vg.name}" containing '
        f"{len(volumes)} logical volumes?"
    )
    if not force and not session.ask(question):
        raise RefusedError(f'Volume group "{vg.name}" not removed')
    # Snapshots first: each in its turn is asked about if it is active.
    for lv in sorted(volumes, key=lambda v: vg.is_origin(v.name)):
        remove_one(session, f"{vg.name}/{lv.name}", force=force)


@click.command()
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-a", "--activate", help="y or n.")
@click.option("--refresh", is_flag=True, help="Bring devices to the metadata; resume them.")
@click.option("--addtag", multiple=True, help="Add a tag.")
@click.option("--deltag", multiple=True, help="Remove a tag.")
@click.option("--alloc", type=POLICY, help="Allocation policy.")
@click.option("-x", "--resizeable", type=YES_NO, help="Whether PVs may be added.")
@click.option("-P", "--partial", is_flag=True, help="Activate also with missing PVs.")
@click.option(
    "--activationmode",
    type=OneOf("partial", "degraded", "complete"),
    default="degraded",
    help="partial: also with missing PVs.",
)
@click.option("-K", "--ignoreactivationskip", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def vgchange(
    context: Context,
    names: tuple[str, ...],
    activate: str | None,
    refresh: bool,
    addtag: tuple[str, ...],
    deltag: tuple[str, ...],
    alloc: str | None,
    resizeable: str | None,
    partial: bool,
    activationmode: str,
    ignoreactivationskip: bool,
) -> int:
    """Change volume groups: activate and deactivate all their volumes, tags, policy."""
    if not (activate or refresh or addtag or deltag or alloc or resizeable):
        raise no_such_syntax("vgchange")
    session = context.session()
    wanted = None if activate is None else wants_active(activate)
    groups = [vg_name(n, session.host.run_dir) for n in names]
    if not groups:
        groups = [vg.name for vg in session.scan().vgs]
    as_partial = partial or activationmode == "partial"
    if as_partial:
        session.warn("PARTIAL MODE. Incomplete logical volumes will be processed.")

    def change(name: str) -> None:
        session.find_vg(name)
        if wanted is not None:
            _activation(session, name, wanted, as_partial)
        if refresh:
            lvm_vg.refresh(session, name)
        if addtag or deltag or alloc or resizeable:
            session.change_vg(
                name,
                lambda vg: _changed(vg, addtag, deltag, alloc, resizeable),
                allow_missing=not (alloc or resizeable),
            )
            session.say(f'Volume group "{name}" successfully changed')

    return each(session, groups, change)


def _activation(session: Session, name: str, wanted: bool, partial: bool) -> None:
    if wanted:
        activity = lvm_vg.activate(session, name, partial=partial)
    else:
        activity = lvm_vg.deactivate(session, name)
    text = f'{activity.active} logical volume(s) in volume group "{name}" now active'
    if not activity.failed:
        session.say(text)
    elif wanted:
        raise RefusedError(text)
    else:
        raise RefusedError(
            f'Can\'t deactivate volume group "{name}" with {activity.active} open logical volume(s)'
        )


def _changed(
    vg: VolumeGroup,
    addtag: tuple[str, ...],
    deltag: tuple[str, ...],
    alloc: str | None,
    resizeable: str | None,
) -> VolumeGroup:
    drop = {check_tag(tag) for tag in deltag}
    tags = [tag for tag in vg.tags if tag not in drop] + [check_tag(tag) for tag in addtag]
    vg = replace(vg, tags=tuple(dict.fromkeys(tags)))
    if alloc is not None:
        if alloc == vg.allocation_policy:
            raise RefusedError(f"Volume group allocation policy is already {alloc}")
        vg = replace(vg, allocation_policy=alloc)
    if resizeable is not None:
        if (resizeable == "y") == ("RESIZEABLE" in vg.status):
            word = "resizeable" if resizeable == "y" else "not resizeable"
            raise RefusedError(f'Volume group "{vg.name}" is already {word}')
        status = vg.status - {"RESIZEABLE"}
        vg = replace(vg, status=status | {"RESIZEABLE"} if resizeable == "y" else status)
    return vg


@click.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@common_options
@click.pass_obj
def vgrename(context: Context, old: str, new: str) -> None:
    """Rename a volume group, also while its volumes are in use."""
    session = context.session()
    run_dir = session.host.run_dir
    first = vg_name(old, run_dir)
    try:
        second = new_vg_name(new, run_dir)
    except UsageError as error:
        raise RefusedError(error.message) from None
    lvm_vg.rename(session, first, second)
    session.say(f'Volume group "{first}" successfully renamed to "{second}"')


@click.command()
@common_options
@click.pass_obj
def vgscan(context: Context) -> None:
    """List all volume groups."""
    session = context.session()
    for vg in session.scan().vgs:
        kind = "exported volume group" if "EXPORTED" in vg.status else "volume group"
        session.say(f'Found {kind} "{vg.name}" using metadata type lvm2')


@click.command()
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-f", "--file", "path", help="Write to this file; %s becomes the VG's name.")
@common_options
@click.pass_obj
def vgcfgbackup(context: Context, names: tuple[str, ...], path: str | None) -> None:
    """Write the metadata of volume groups to text files."""
    session = context.session()
    named = [session.find_vg(vg_name(n, session.host.run_dir)) for n in names]
    groups = named or list(session.scan().vgs)
    if path is not None and "%s" not in path and len(groups) > 1:
        raise UsageError("With more than one volume group the file's name needs a %s.")
    for vg in groups:
        target = None if path is None else Path(path.replace("%s", vg.name)).absolute()
        found = session.last_scan.as_found(vg)
        backup_vg(session.host, found, session.command_line, path=target, force=True)
        session.say(f'Volume group "{vg.name}" successfully backed up.')
