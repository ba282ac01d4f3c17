"""lvremove, lvrename, lvscan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ulvm.activation.states import LvState
from ulvm.cli.arguments import (
    no_such_syntax,
    select_option,
)
from ulvm.cli.choose import ChosenLv, choose_lvs, each_lv
from ulvm.cli.common_options import backup_option, common_options, read_only_option, udev_option
from ulvm.cli.context import Context
from ulvm.errors import RefusedError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import split_volume
from ulvm.lvm.names import vg_name as vg_name_of
from ulvm.lvm.session import Session
from ulvm.metadata.edit import check_unlocked
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_new_lv_name, name_problem
from ulvm.units import display_size

__all__ = ["lvremove", "lvrename", "lvscan", "remove_one"]


# -- lvremove -------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, metavar="VG|LV...")
@click.option("-f", "--force", count=True, help="Do not ask; remove snapshots with an origin.")
@click.option("--nohistory", is_flag=True, expose_value=False, hidden=True)
@select_option
@udev_option
@backup_option
@common_options
@click.pass_obj
def lvremove(context: Context, names: tuple[str, ...], force: int, select: str | None) -> int:
    """Remove logical volumes, or all of a VG's. Asks about what is active."""
    if not names and select is None:
        raise no_such_syntax("lvremove")
    session = context.session()
    volumes, failures = choose_lvs(session, names, select)

    def remove(volume: ChosenLv) -> None:
        remove_one(session, volume.name, force=force > 0, uuid=volume.uuid)

    return each_lv(session, volumes, remove, failures)


def remove_one(session: Session, name: str, *, force: bool, uuid: str) -> None:
    """Remove one volume and say so; an origin with its snapshots. RefusedError if its name is not
    that of the `uuid` any more, by which it was chosen before its group was locked."""
    vg_name, lv_name = name.split("/")
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        now = vg.lv_by_uuid(uuid)
        if now is None:
            return  # it went with its origin
        if now.name != lv_name:
            raise RefusedError(f"Logical volume {name} was renamed to {now.name} meanwhile.")
        lvm_lv.get(vg, lv_name)
        check_unlocked(vg, now, "remove")  # Its snapshots would go first, and it would stay.
        segments = vg.snapshots_of_origin(lv_name)
        snapshots = [s.cow for s in segments if not s.merging]  # A merging one goes with it.
        active = lvm_lv.states_at_rest(session, vg, [lv_name, *snapshots])
        in_use = [n for n in (lv_name, *snapshots) if n in active and active[n].open_count]
        if in_use:
            raise RefusedError(f"Logical volume {vg_name}/{in_use[0]} in use.")
        if not force:
            _ask_of_failed_merge(session, vg, lv_name, active.get(lv_name))
        if lv_name in active and not force:
            what = f"active logical volume {name}"
            if segments:
                what = f"active origin logical volume {name} with {len(segments)} snapshots(s)"
            if not session.ask(f"Do you really want to remove {what}?"):
                raise RefusedError(f"Logical volume {name} not removed.")
        if segments:
            count = len(segments)
            session.verbose(f"Removing origin logical volume {name} with {count} snapshots(s).")
        for snapshot in snapshots:
            lvm_lv.remove(session, vg_name, snapshot)
            session.say(f'Logical volume "{snapshot}" successfully removed.')
        lvm_lv.remove(session, vg_name, lv_name)
        merging = [s.cow for s in segments if s.merging]
        for gone in (*merging, lv_name):
            session.say(f'Logical volume "{gone}" successfully removed.')


def _ask_of_failed_merge(
    session: Session, vg: VolumeGroup, lv_name: str, state: LvState | None
) -> None:
    """RefusedError unless a snapshot of which a part may be in its origin is to go even so."""
    own = vg.snapshot_of(lv_name)
    if own is None or state is None or state.status is None or not state.status.merge_failed:
        return
    if not session.ask(
        f"Removing snapshot {vg.name}/{lv_name} that failed to merge may leave origin "
        f"{vg.name}/{own.origin} inconsistent. Proceed?"
    ):
        raise RefusedError(f"Logical volume {vg.name}/{lv_name} not removed.")


# -- lvrename -------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, metavar="VG OLD NEW | VG/OLD NEW")
@udev_option
@backup_option
@common_options
@click.pass_obj
def lvrename(context: Context, names: tuple[str, ...]) -> None:
    """Rename a logical volume, also while it is in use."""
    session = context.session()
    run_dir = session.host.run_dir
    if len(names) < 2:
        raise no_such_syntax("lvrename")
    if len(names) > 3:
        raise UsageError(f"Command does not accept argument: {names[3]}.")
    if len(names) == 3:
        vg_name = _group(names[0], names[1:], run_dir)
        old, new = (word.rpartition("/")[2] for word in names[1:])
    else:
        vg_name, found = split_volume(names[0], run_dir, session.host.default_vg)
        if found is None:
            raise UsageError(
                f'Path required for Logical Volume "{names[0]}".\n'
                "Please provide a valid volume group name"
            )
        old, new = found, names[1]
        if "/" in new:
            new_group, new_name = split_volume(new, run_dir)
            if new_group != vg_name or new_name is None:
                raise UsageError(
                    f'Logical volume names must have the same volume group ("{vg_name}" or '
                    f'"{new_group}")'
                )
            new = new_name
    if old == new:
        raise UsageError("Old and new logical volume names must differ")
    if name_problem(new) is not None:
        raise UsageError(f'New logical volume name "{new}" is invalid')
    check_new_lv_name(new)
    lvm_lv.rename(session, vg_name, old, new)
    session.say(f'Renamed "{old}" to "{new}" in volume group "{vg_name}"')


def _group(first: str, volumes: Sequence[str], run_dir: Path) -> str:
    """The VG named on its own, and before a slash in `volumes` if at all."""
    group = vg_name_of(first, run_dir)
    for word in volumes:
        if "/" in word:
            other, _ = split_volume(word, run_dir)
            if other != group:
                raise UsageError(f'Please use a single volume group name ("{group}" or "{other}")')
    return group


# -- lvscan ---------------------------------------------------------------------------------------


@click.command()
@click.option("-a", "--all", "hidden", is_flag=True, help="Also volumes that are parts of others.")
@click.option("-b", "--blockdevice", is_flag=True, expose_value=False, hidden=True)
@click.option("--ignorelockingfailure", is_flag=True, expose_value=False, hidden=True)
@read_only_option
@common_options
@click.pass_obj
def lvscan(context: Context, hidden: bool) -> None:
    """List all logical volumes with their state."""
    session = context.session()
    for vg in session.scan().vgs:
        active = lvm_lv.states(session, vg)
        for lv in vg.lvs:
            if lv.snapshot_segment is not None or not (hidden or vg.is_visible(lv)):
                continue
            state = active.get(lv.name)
            invalid = state is not None and state.status is not None and state.status.invalid
            word = "ACTIVE  " if state is not None and not invalid else "inactive"
            role = ""
            if vg.is_origin(lv.name):
                role = "Original"
            elif vg.is_cow(lv.name):
                role = "Snapshot"
            session.say(
                f"{word} {role:8} '/dev/{vg.name}/{lv.name}' "
                f"[{display_size(vg.lv_sectors(lv))}] "
                f"{lv.allocation_policy}"
            )
