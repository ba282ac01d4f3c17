"""pvmove and lvpoll."""

from __future__ import annotations

import os

import click

from ulvm.cli.arguments import Number, OneOf, no_such_syntax, vg_uuid_option
from ulvm.cli.common_options import backup_option, common_options, udev_option
from ulvm.cli.context import Context
from ulvm.cli.words import ALLOC
from ulvm.errors import NotFoundError, RefusedError, UsageError
from ulvm.lvm import merge as lvm_merge
from ulvm.lvm import move as lvm_move
from ulvm.lvm.names import given_device, split_volume
from ulvm.lvm.places import split_place
from ulvm.lvm.session import Session
from ulvm.metadata.names import name_problem
from ulvm.vgstore.checks import incomplete_words

__all__ = ["lvpoll", "pvmove"]

_interval_option = click.option(
    "-i", "--interval", type=Number(), help="Report progress this often, in seconds; 0: never."
)


@click.command()
@click.argument("source", required=False, metavar="[PV[:PE-PE]]")
@click.argument("to", nargs=-1, metavar="[PV[:PE-PE]...]")
@click.option("-n", "--name", help="Move only what belongs to this volume.")
@click.option("--alloc", type=ALLOC, help="How to choose the extents.")
@click.option("--atomic", is_flag=True, help="Move all or nothing.")
@click.option("--abort", is_flag=True, help="End what is under way; what is moved stays moved.")
@click.option("-b", "--background", is_flag=True, help="Do not wait for the end.")
@_interval_option
@udev_option
@backup_option
@common_options
@click.pass_obj
def pvmove(
    context: Context,
    source: str | None,
    to: tuple[str, ...],
    name: str | None,
    alloc: str | None,
    atomic: bool,
    abort: bool,
    background: bool,
    interval: int | None,
) -> None:
    """Move the extents on a physical volume to others, while they are in use.

    Without a PV, go on with what was interrupted.

    \b
    pvmove /dev/sdb1
    pvmove -n vg/data /dev/sdb1:0-999 /dev/sdc1
    pvmove --abort
    """
    session = context.session()
    for option, given in (("--name", name), ("--alloc", alloc), ("--atomic", atomic)):
        if source is None and given:
            word = "" if given is True else f" {given}"
            raise UsageError(f"Command does not accept option: {option}{word}.")
    if interval is None:
        interval = session.host.config.get_int("activation/polling_interval", 15)
    if source is None:
        _go_on_with_all(session, interval, abort=abort, background=background)
        return
    vg_name, pv_uuid, label = _source(session, source, name)
    only = _volume(session, vg_name, name) if name is not None else None
    found = lvm_move.find(session, vg_name, pv_uuid=pv_uuid)
    if abort:
        if found is None:
            session.say(f"{label}: No pvmove in progress - already finished or aborted.")
        else:
            lvm_move.abort(session, found)
        return
    if found is not None:
        session.say(f"Detected pvmove in progress for {label}.")
        if to or only:
            session.warn("WARNING: Ignoring remaining command line arguments.")
        lvm_move.resume(session, found)
    else:
        group = session.last_scan.vg(vg_name)
        if group.partial:
            why = incomplete_words(group)
            raise UsageError(f'{why}\nFailed to find physical volume "{label}".')
        found = lvm_move.start(
            session,
            vg_name,
            source,
            to=to,
            only=only,
            policy=alloc,
            atomic=atomic,
        )
    if found is not None:
        _see_through(session, [found], interval, background=background)


def _go_on_with_all(session: Session, interval: int, *, abort: bool, background: bool) -> None:
    going = []
    for move in lvm_move.find_all(session):
        if abort:
            lvm_move.abort(session, move)
        elif lvm_move.is_active(session, move):
            lvm_move.resume(session, move)
            going.append(move)
        else:
            session.say(f"{move.label}: Skipping inactive LV. Try lvchange or vgchange.")
    _see_through(session, going, interval, background=background)


def _see_through(
    session: Session, going: list[lvm_move.Move], interval: int, *, background: bool
) -> None:
    if session.host.trial:
        return
    if background:
        for move in going:
            lvm_move.poll_in_background(session, move, interval)
    else:
        lvm_move.poll(session, going, interval=interval)


def _elsewhere() -> UsageError:
    return UsageError("Named LV and old PV must be in the same VG.\nFailed to find an LV name.")


def _source(session: Session, word: str, volume: str | None) -> tuple[str, str, str]:
    """(VG, the PV's UUID, its path). UsageError in LVM's words."""
    if word.startswith("@"):
        raise UsageError("Tags cannot be used with this command.")
    path, _ = split_place(word)
    scan = session.scan()
    try:
        device = scan.pv(given_device(path, session.host.run_dir))
    except NotFoundError:
        if os.path.exists(path):
            raise UsageError(f'Failed to find physical volume "{path}".') from None
        try:
            session.resolve_lv(path)
        except (NotFoundError, UsageError):
            raise UsageError(f"Cannot use {path}: device not found") from None
        raise UsageError(f"Cannot use {path}: device is an LV") from None
    vg = next((vg for vg in scan.vgs if vg.pv(device.uuid) is not None), None)
    if vg is None:  # It has no other PV beside it.
        if volume is not None and "/" in volume.rstrip("/"):
            raise _elsewhere()
        raise RefusedError("No extents available for allocation.")
    if "EXPORTED" in vg.status:
        raise UsageError(f"Cannot use PV {device.path} in exported VG {vg.name}.")
    session.mean(vg.uuid)
    return vg.name, device.uuid, device.path


def _volume(session: Session, vg_name: str, text: str) -> str:
    """The volume that --name says; UsageError in LVM's words."""
    if "/" not in text:
        if name_problem(text) is not None:
            raise UsageError(f"Logical volume name {text} is invalid.")
        return text
    if text.endswith("/"):
        raise UsageError("Incomplete LV name supplied with --name.\nFailed to find an LV name.")
    vg, lv = split_volume(text, session.host.run_dir)
    if vg != vg_name or lv is None:
        raise _elsewhere()
    return lv


@click.command()
@click.argument("name", metavar="LV")
@click.option(
    "--polloperation",
    type=OneOf("pvmove", "convert", "merge", "merge_thin"),
    help="What is waited for: pvmove or merge.",
)
@click.option("--abort", is_flag=True, help="End it.")
@click.option("--handlemissingpvs", is_flag=True, hidden=True)
@vg_uuid_option
@_interval_option
@backup_option
@common_options
@click.pass_obj
def lvpoll(
    context: Context,
    name: str,
    polloperation: str | None,
    abort: bool,
    handlemissingpvs: bool,
    vguuid: str | None,
    interval: int | None,
) -> None:
    """See to the end of a move, or of a merge into LV. Started with -b and by activation."""
    if polloperation is None:
        raise no_such_syntax("lvpoll")
    session = context.session()
    if vguuid is not None:
        session.mean(vguuid)
    if polloperation != "pvmove":
        vg_name, origin = session.resolve_lv(name)
        lvm_merge.poll(session, vg_name, origin, quiet=True)
        return
    vg_name, lv_name = split_volume(name, session.host.run_dir)
    if lv_name is None:
        raise UsageError("Please specify a logical volume path.")
    move = lvm_move.find(session, vg_name, name=lv_name)
    if move is None:
        session.say(f"{name}: No pvmove in progress - already finished or aborted.")
    elif abort:
        lvm_move.abort(session, move)
    else:
        if interval is None:
            interval = session.host.config.get_int("activation/polling_interval", 15)
        lvm_move.poll(session, [move], interval=interval)
