"""lvmdevices and vgimportdevices: the devices file in LVM's words."""

from __future__ import annotations

import click

from ulvm.cli.arguments import no_such_syntax
from ulvm.cli.common_options import common_options
from ulvm.cli.context import Context
from ulvm.errors import RefusedError, UlvmError, UsageError
from ulvm.lvm import devices as lvm_devices
from ulvm.lvm.names import vg_name
from ulvm.metadata.uuid import parse_uuid

__all__ = ["lvmdevices", "vgimportdevices"]


@click.command()
@click.option("--adddev", metavar="PATH", help="Add a disk or file.")
@click.option("--deldev", metavar="PATH", help="Remove a disk or file.")
@click.option("--addpvid", metavar="PVID", help="Find the physical volume and add its device.")
@click.option("--delpvid", metavar="PVID", help="Remove the entry of the physical volume.")
@click.option("--check", is_flag=True, help="Tell which entries are wrong.")
@click.option("--update", is_flag=True, help="Put entries right that are wrong.")
@click.option(
    "--deviceidtype",
    metavar="TYPE",
    help="What the device is to be known by: sys_wwid, loop_file, devname, ...",
)
@common_options
@click.pass_obj
def lvmdevices(
    context: Context,
    adddev: str | None,
    deldev: str | None,
    addpvid: str | None,
    delpvid: str | None,
    check: bool,
    update: bool,
    deviceidtype: str | None,
) -> int:
    """Show and change the devices file: the disks and files that are looked at."""
    given = {
        "--adddev": adddev is not None,
        "--deldev": deldev is not None,
        "--addpvid": addpvid is not None,
        "--delpvid": delpvid is not None,
        "--check": check,
        "--update": update,
    }
    chosen = [option for option, is_given in given.items() if is_given]
    if len(chosen) > 1:
        raise UsageError(f"Command does not accept option: {chosen[1]}.")
    session = context.session()
    if adddev is not None:
        lvm_devices.add(session, adddev, deviceidtype or "")
    elif deldev is not None:
        _delete(context, deldev, deviceidtype)
    elif addpvid is not None:
        path = lvm_devices.add_pv(session, addpvid)
        session.say(f"Found PVID {addpvid.replace('-', '')} on {path}.")
    elif delpvid is not None:
        lvm_devices.remove_pv(session, delpvid)
    elif check:
        if lvm_devices.check(session):
            raise RefusedError("Updates needed for devices file.")
    elif update:
        if not lvm_devices.update(session):
            session.say("No update for devices file is needed.")
    else:
        _show(context)
    return 0


def _delete(context: Context, path: str, id_type: str | None) -> None:
    if id_type is not None:
        if path.startswith("/dev/"):
            context.console.warn(
                "WARNING: to remove a device by name, do not include --deviceidtype."
            )
        lvm_devices.remove_id(context.session(), id_type, path)
        return
    lvm_devices.remove(context.session(), [path], strict=True)


def _show(context: Context) -> None:
    for entry in lvm_devices.entries(context.session()):
        path = entry.path if lvm_devices.is_there(entry) else "none"
        pvid = parse_uuid(entry.pv_uuid) if entry.pv_uuid else "none"
        name = entry.id_name or entry.path
        part = f" PART={entry.part}" if entry.part else ""
        context.console.say(
            f"Device {path} IDTYPE={entry.id_type} IDNAME={name} "
            f"DEVNAME={entry.listed or entry.path} PVID={pvid}{part}"
        )


@click.command()
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-a", "--all", "everything", is_flag=True, help="All that can be found.")
@click.option("--foreign", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def vgimportdevices(
    context: Context, names: tuple[str, ...], everything: bool, foreign: bool
) -> int:
    """Add the devices of volume groups to the devices file, wherever they are found."""
    if everything == bool(names):
        raise no_such_syntax("vgimportdevices")
    session = context.session()
    run_dir = session.host.run_dir
    try:
        count = lvm_devices.import_groups(session, [vg_name(n, run_dir) for n in names])
    except UlvmError as error:
        raise type(error)(f"{error.message}\nNo devices file created or updated.") from None
    session.say(f"Added {count} devices to devices file.")
    return 0
