"""vgcreate, vgextend, vgreduce, vgremove, vgrename."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ulvm.cli.arguments import YES_NO, Number, OneOf, no_such_syntax, select_option
from ulvm.cli.choose import each_vg
from ulvm.cli.common_options import (
    backup_option,
    common_options,
    metadata_profile_option,
    udev_option,
)
from ulvm.cli.context import Context
from ulvm.cli.lv import remove_one
from ulvm.cli.pv import check_label_sector, layout_options, pv_options
from ulvm.cli.words import ALLOC, COPIES
from ulvm.errors import RefusedError, UlvmError, UsageError
from ulvm.lvm import missing as lvm_missing
from ulvm.lvm import vg as lvm_vg
from ulvm.lvm.names import given_vg, new_vg_name, plain_name
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import parse_sectors
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_tag
from ulvm.vgstore.system_id import checked_system_id

__all__ = ["vgcreate", "vgextend", "vgreduce", "vgremove", "vgrename"]

_LONGEST_PATH = 121
"""Of a VG's name behind /dev/, as LVM2 has it."""

_F = TypeVar("_F", bound=Callable[..., Any])


def _on_new_devices(function: _F) -> _F:
    """Options for devices that are to become PVs."""
    options = [
        click.option("-f", "--force", count=True, help="Do not ask about what is on the devices."),
        click.option("-Z", "--zero", type=YES_NO, expose_value=False, hidden=True),
        click.option(
            "-M", "--metadatatype", type=OneOf("lvm2", "2"), expose_value=False, hidden=True
        ),
        layout_options,
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@click.argument("name", metavar="VG")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-s", "--physicalextentsize", help="Size of an extent (default 4m).")
@click.option("-l", "--maxlogicalvolumes", type=Number(), default=0, help="0: no limit.")
@click.option("-p", "--maxphysicalvolumes", type=Number(), default=0, help="0: no limit.")
@click.option("--addtag", multiple=True, help="Tag of the volume group.")
@click.option("--alloc", type=ALLOC, default="normal", help="Allocation policy.")
@click.option(
    "--vgmetadatacopies", type=COPIES, help="Metadata areas to use (default all)."
)  # fmt: skip
@click.option("--setautoactivation", type=YES_NO, help="n: -aay leaves its volumes alone.")
@click.option("--systemid", metavar="ID", help="The host that owns the group.")
@click.option("--locktype", type=OneOf("sanlock", "dlm", "none"), hidden=True)
@click.option("--shared", is_flag=True, hidden=True)
@click.option("-c", "--clustered", type=YES_NO, hidden=True)
@_on_new_devices
@backup_option
@metadata_profile_option
@common_options
@click.pass_obj
def vgcreate(context: Context, /, name: str, paths: tuple[str, ...], **asked: Any) -> None:
    """Create a volume group of disks or plain files, which become physical volumes."""
    _no_cluster(asked)
    session = context.session()
    check_label_sector(asked)
    extent = 2 * session.host.config.get_int("allocation/physical_extent_size", 4096)
    if asked["physicalextentsize"] is not None:
        extent = parse_sectors(asked["physicalextentsize"], "--physicalextentsize", zero=True)
    if extent == 0:
        raise UsageError("Physical extent size may not be zero")
    if extent >= 1 << 32:
        raise UsageError("Physical extent size must be smaller than <2.00 TiB.")
    if asked["alloc"] == "inherit":
        raise UsageError("Volume Group allocation policy cannot inherit from anything")
    name = new_vg_name(name, session.host.run_dir)
    system_id = _system_id(session, asked["systemid"])
    copies = asked["vgmetadatacopies"]
    if copies is None:
        copies = session.host.config.get_int("metadata/vgmetadatacopies", 0)
    lvm_vg.create(
        session,
        name,
        paths,
        extent_size=extent,
        max_lv=asked["maxlogicalvolumes"],
        max_pv=asked["maxphysicalvolumes"],
        tags=[check_tag(tag) for tag in asked["addtag"]],
        policy=asked["alloc"],
        options=pv_options(asked, session.host.config),
        force=asked["force"],
        metadata_copies=max(copies, 0),
        profile=context.settings.metadata_profile,
        autoactivation=asked["setautoactivation"] != "n",
        system_id=system_id,
    )
    owner = f" with system ID {system_id}" if system_id else ""
    session.say(f'Volume group "{name}" successfully created{owner}')


def _system_id(session: Session, asked: str | None) -> str:
    """That of a new VG: this host's unless another is asked for, which is warned of. UsageError
    for what is none."""
    local = session.host.system_id
    if asked is None:
        return local
    if not asked:
        session.warn(
            "WARNING: Empty system ID supplied.\n"
            "WARNING: A VG without a system ID allows unsafe access from other hosts."
        )
        return ""
    found = checked_system_id(asked, session.warn)
    if not found:
        raise UsageError("Run `vgcreate --help' for more information.")
    if local and found != local:
        session.warn(
            f"VG with system ID {found} might become inaccessible as local system ID is {local}"
        )
    return found


def _no_cluster(asked: dict[str, Any]) -> None:
    """UsageError for what needs a cluster's lock manager."""
    if asked["clustered"] is not None:
        raise UsageError("The clustered option is deprecated, see --shared.")
    if asked["shared"]:
        raise UsageError("Using a shared lock type requires lvmlockd (lvm.conf use_lvmlockd.)")
    if asked["locktype"] not in (None, "none"):
        raise UsageError("Using a shared lock type requires lvmlockd.")


@click.command()
@click.argument("name", metavar="VG")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--restoremissing", is_flag=True, help="Take back PVs that were missing; their content counts."
)
@_on_new_devices
@backup_option
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
    group = given_vg(name, session.host.run_dir)
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
@click.option("--mirrorsonly", is_flag=True, hidden=True)
@click.option(
    "-f", "--force", count=True, help="With --removemissing: and the volumes that need them."
)
@backup_option
@common_options
@click.pass_obj
def vgreduce(
    context: Context,
    name: str,
    paths: tuple[str, ...],
    unused: bool,
    removemissing: bool,
    mirrorsonly: bool,
    force: int,
) -> int:
    """Take unused physical volumes out of a volume group."""
    if paths and (unused or removemissing):
        raise UsageError(f"Command does not accept argument: {paths[0]}.")
    if bool(paths) + unused + removemissing != 1:
        raise no_such_syntax("vgreduce")
    session = context.session()
    group = given_vg(name, session.host.run_dir)
    if removemissing:
        return 0 if lvm_missing.remove(session, group, force=force > 0, mirrors=mirrorsonly) else 5
    return 5 if lvm_vg.reduce(session, group, paths, unused=unused) else 0


@click.command()
@click.argument("names", nargs=-1, metavar="VG|@TAG...")
@click.option("-f", "--force", count=True, help="Do not ask about logical volumes.")
@select_option
@udev_option
@common_options
@click.pass_obj
def vgremove(context: Context, names: tuple[str, ...], force: int, select: str | None) -> int:
    """Remove volume groups, with their logical volumes if that is confirmed."""
    if not names and select is None:
        raise no_such_syntax("vgremove")
    session = context.session()

    def remove(group: str) -> None:
        with session.lock_global(), session.lock(group):
            vg = session.vg_for_change(group)
            _remove_volumes(session, vg, force > 0)
            lvm_vg.remove(session, group, incomplete=force > 0)
        session.say(f'Volume group "{group}" successfully removed')

    return each_vg(session, names, remove, select=select, exported=False)


def _remove_volumes(session: Session, vg: VolumeGroup, force: bool) -> None:
    volumes = vg.visible_lvs()
    if not volumes:
        return
    if vg.partial and not force:
        count = len(vg.all_missing)
        session.warn(f"WARNING: {count} physical volumes are currently missing from the system.")
    question = (
        f'Do you really want to remove volume group "{vg.name}" containing '
        f"{len(volumes)} logical volumes?"
    )
    if not force and not session.ask(question):
        raise RefusedError(f'Volume group "{vg.name}" not removed')
    for lv in volumes:
        remove_one(session, f"{vg.name}/{lv.name}", force=force, uuid=lv.uuid)


@click.command()
@click.argument("old", metavar="OLD|UUID")
@click.argument("new", metavar="NEW")
@click.option("-f", "--force", count=True, expose_value=False, hidden=True)
@backup_option
@common_options
@click.pass_obj
def vgrename(context: Context, old: str, new: str) -> None:
    """Rename a volume group, also while its volumes are in use."""
    session = context.session()
    run_dir = session.host.run_dir
    try:
        second = new_vg_name(new, run_dir)
    except UlvmError as error:
        raise RefusedError(error.message) from None
    if len(second) > _LONGEST_PATH:
        raise RefusedError(f"New volume group path exceeds maximum length of {_LONGEST_PATH}!")
    lvm_vg.rename(session, old, second)
    session.say(f'Volume group "{plain_name(old, run_dir)}" successfully renamed to "{second}"')
