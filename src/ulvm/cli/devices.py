"""`ulvm devices`: which disks and files are looked at (the devices file, lvmdevices(8))."""

from __future__ import annotations

import click

from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.lvm import devices as lvm_devices
from ulvm.vgstore.devices import read_devices

__all__ = ["devices"]


@click.group()
def devices() -> None:
    """List, add and remove the disks and files that are looked at.

    pvcreate and vgcreate add what they make. Add an image that holds physical volumes already, one
    that LVM2 wrote for instance.
    """


@devices.command("list")
@own_options
@click.pass_obj
def list_devices(context: Context) -> None:
    """List the devices file."""
    for entry in read_devices(context.host):
        context.console.say(f"{entry.path} {entry.pv_uuid or '-'}")


@devices.command("add")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@own_options
@click.pass_obj
def add_devices(context: Context, paths: tuple[str, ...]) -> None:
    """Add devices that hold physical volumes."""
    session = context.session()
    for pv in lvm_devices.adopt(session, paths):
        owner = f" of volume group {pv.vg_name}" if pv.vg_name else ""
        session.say(f"Added {pv.path}, PV {pv.uuid}{owner}.")


@devices.command("remove")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@own_options
@click.pass_obj
def remove_devices(context: Context, paths: tuple[str, ...]) -> None:
    """Forget devices; what is on them stays."""
    lvm_devices.remove(context.session(), paths)
