"""pvscan: list physical volumes, or note those that have come (`lvm.online`); lvmdiskscan."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from ulvm.cli.arguments import Number
from ulvm.cli.common_options import common_options, read_only_option, udev_option
from ulvm.cli.context import Context
from ulvm.errors import NotFoundError, UlvmError, UsageError
from ulvm.lvm import diskscan, online, vg_activation
from ulvm.lvm.online import Arrival
from ulvm.report import describe
from ulvm.report.rows import pv_rows
from ulvm.units import display_size
from ulvm.vgstore.pv import device_path

__all__ = ["lvmdiskscan", "pvscan"]


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("-s", "--short", is_flag=True, help="Only the paths.")
@click.option("-u", "--uuid", "uuids", is_flag=True, help="With the UUIDs.")
@click.option("-n", "--novolumegroup", is_flag=True, help="Only those in no volume group.")
@click.option("-e", "--exported", is_flag=True, help="Only those of exported volume groups.")
@click.option("--cache", is_flag=True, help="Take note that devices have come: these, or all.")
@click.option("-a", "--activate", help="ay: activate volume groups that are complete by that.")
@click.option("--listvg", is_flag=True, help="Of a device: its volume group.")
@click.option("--listlvs", is_flag=True, help="Of a device: the logical volumes on it.")
@click.option("--checkcomplete", is_flag=True, help="With --listvg: whether all devices are there.")
@click.option("--vgonline", is_flag=True, help="With --listvg: tell of a complete group once.")
@click.option("--udevoutput", is_flag=True, help="With --listvg: as variables of udev.")
@click.option("-j", "--major", type=Number(), help="With --minor: a device by its numbers.")
@click.option("--minor", type=Number(), help="See --major.")
@click.option("--autoactivation", hidden=True)
@click.option("--ignorelockingfailure", is_flag=True, hidden=True)
@read_only_option
@udev_option
@common_options
@click.pass_obj
def pvscan(
    context: Context,
    /,
    paths: tuple[str, ...],
    short: bool,
    uuids: bool,
    novolumegroup: bool,
    exported: bool,
    cache: bool,
    activate: str | None,
    listvg: bool,
    listlvs: bool,
    checkcomplete: bool,
    vgonline: bool,
    udevoutput: bool,
    major: int | None,
    minor: int | None,
    autoactivation: str | None,
    ignorelockingfailure: bool,
) -> int:
    """List all physical volumes, or take note of those that have come."""
    if (listvg or listlvs) and not paths:
        raise UsageError(f"Command does not accept option: --{'listvg' if listvg else 'listlvs'}.")
    if activate is not None and (activate not in ("ay", "aay") or not cache):
        raise UsageError(f"Command does not accept option: --activate {activate}.")
    if paths and not (cache or listvg or listlvs):
        raise UsageError(f"Command does not accept argument: {paths[0]}.")
    if (major is None) != (minor is None):
        raise UsageError("Both --major and --minor required to identify devices.")
    # As LVM2: where devices do not activate groups by coming, there is nothing to take note of.
    silent = not context.host.config.get_bool("global/event_activation", True)
    if silent and (listvg or listlvs or paths or major is not None or activate is not None):
        if udevoutput:
            print("LVM_EVENT_ACTIVATION=0")
        elif checkcomplete:
            context.console.say(
                f"pvscan[{os.getpid()}] Ignoring pvscan with --checkcomplete because "
                "event_activation is disabled."
            )
        return 0
    if listvg or listlvs:
        _list(
            context,
            paths[0],
            record=cache,
            volumes=listlvs,
            check=checkcomplete,
            once=vgonline,
            udev=udevoutput,
        )
    elif cache:
        named = [*paths, *([f"{major}:{minor}"] if major is not None else [])]
        return _cache(context, named, activate is not None)
    else:
        _show(context, short=short, uuids=uuids, loose=novolumegroup, exported=exported)
    return 0


def _show(context: Context, *, short: bool, uuids: bool, loose: bool, exported: bool) -> None:
    if loose and exported:
        raise UsageError("Options -e and -n are incompatible")
    session = context.session()
    rows = list(pv_rows(session.scan(unowned=True)))
    if loose:
        session.warn("WARNING: only considering physical volumes in no volume group")
        rows = [row for row in rows if row.vg is None]
    if exported:
        session.warn("WARNING: only considering physical volumes of exported volume group(s)")
        rows = [row for row in rows if row.vg is not None and "EXPORTED" in row.vg.status]
    if not rows:
        session.say("No matching physical volumes found")
        return
    for line in describe.pv_scan(rows, short=short, uuids=uuids):
        session.say(line)


def _found(context: Context, named: Sequence[str]) -> list[str]:
    """The devices that are there; of others it tells. Hot plugging knows no failures."""
    paths = []
    for name in named:
        numbers = name.split(":")
        by_number = len(numbers) == 2 and all(part.isdecimal() for part in numbers)
        try:
            paths.append(device_path(f"/dev/block/{name}" if by_number else name))
        except NotFoundError:
            console, who = context.console, f"pvscan[{os.getpid()}]"
            if by_number:
                console.warn(f"No device name found from {name}.")
                console.warn(f"{who} No device set up for arg  {name}")
            else:
                console.warn(f"Cannot access device {name} for 0:0.")
                console.warn(f"{who} No device set up for arg {name} 0:0")
    return paths


def _tell(context: Context, arrival: Arrival, *, of_group: bool) -> None:
    who = f"pvscan[{os.getpid()}]"
    if arrival.pv is None:
        context.console.say(f"{who} {arrival.path} not an lvm device.")
    elif arrival.vg is None:
        context.console.say(f"{who} PV {arrival.path} not used.")
    elif not of_group:
        context.console.say(f"{who} PV {arrival.path} online.")
    elif arrival.complete:
        context.console.say(f"{who} PV {arrival.path} online, VG {arrival.vg.name} is complete.")
    else:
        context.console.say(
            f"{who} PV {arrival.path} online, VG {arrival.vg.name} incomplete "
            f"(need {arrival.absent})."
        )


def _cache(context: Context, named: Sequence[str], activate: bool) -> int:
    session = context.session()
    paths = _found(context, named)
    if named and not paths:
        return 0
    if not named:
        online.forget_all(session.host)
    complete: dict[str, None] = {}
    for arrival in online.arrivals(session, paths if named else None, record=True):
        _tell(context, arrival, of_group=activate)
        if arrival.vg is not None and arrival.complete:
            complete[arrival.vg.name] = None
    status = 0
    for name in complete if activate else ():
        if not online.claim_vg(session.host, name):
            session.say(f"pvscan[{os.getpid()}] VG {name} skip autoactivation.")
            continue
        session.say(f"pvscan[{os.getpid()}] VG {name} run autoactivation.")
        try:
            activity = vg_activation.activate(session, name, auto=True)
        except UlvmError as error:
            session.warn(error.message)
            status = error.exit_code
            continue
        if activity is None:
            continue
        session.say(f'{activity.active} logical volume(s) in volume group "{name}" now active')
        if activity.failed:
            session.warn(f"pvscan[{os.getpid()}] VG {name} autoactivation failed.")
            status = UlvmError.exit_code
    return status


def _list(
    context: Context,
    named: str,
    *,
    record: bool,
    volumes: bool,
    check: bool,
    once: bool,
    udev: bool,
) -> None:
    session = context.session()
    paths = _found(context, [named])
    for arrival in online.arrivals(session, paths, record=record) if paths else ():
        if arrival.pv is None or arrival.vg is None:
            _tell(context, arrival, of_group=False)
            continue
        if check and not udev:
            _tell(context, arrival, of_group=True)
        if once and arrival.complete and not online.claim_vg(session.host, arrival.vg.name):
            continue
        _list_one(context, arrival, volumes=volumes, check=check, udev=udev)


def _list_one(
    context: Context, arrival: Arrival, *, volumes: bool, check: bool, udev: bool
) -> None:
    vg, pv = arrival.vg, arrival.pv
    assert vg is not None
    assert pv is not None
    if udev:
        state = "COMPLETE" if arrival.complete else "INCOMPLETE"
        print(f"LVM_VG_NAME_{state}='{vg.name}'")
        return
    state = (" complete" if arrival.complete else " incomplete") if check else ""
    context.console.say(f"VG {vg.name}{state}")
    for name in online.volumes_on(vg, pv) if volumes else ():
        context.console.say(f"LV {vg.name}/{name}{state}")


@click.command()
@click.option("-l", "--lvmpartition", is_flag=True, help="Only those that are physical volumes.")
@read_only_option
@common_options
@click.pass_obj
def lvmdiskscan(context: Context, lvmpartition: bool) -> None:
    """List the disks and files that may be used as physical volumes."""
    session = context.session()
    if lvmpartition:
        session.warn("WARNING: only considering LVM devices")
    found = [c for c in diskscan.candidates(session) if c.is_pv or not lvmpartition]
    width = max((len(c.path) for c in found), default=0)
    for candidate in found:
        size = f"[{display_size(candidate.sectors):>15}]"
        what = " LVM physical volume" if candidate.is_pv else " "
        session.say(f"{candidate.path:<{width}} {size}{what}")
    loose = [c.whole for c in found if not c.is_pv]
    pvs = [c.whole for c in found if c.is_pv]
    if not lvmpartition:
        session.say(_count(loose.count(True), "disk"))
        session.say(_count(loose.count(False), "partition"))
    session.say(_count(pvs.count(True), "LVM physical volume whole disk"))
    session.say(_count(pvs.count(False), "LVM physical volume"))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
