"""lvremove, lvchange, lvrename, lvconvert, lvscan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ulvm.cli.arguments import (
    PERMISSION,
    YES_NO,
    OneOf,
    each,
    no_such_syntax,
    select_option,
    wants_active,
)
from ulvm.cli.choose import choose_lvs
from ulvm.cli.context import Context, common_options, read_only_option
from ulvm.errors import RefusedError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import merge as lvm_merge
from ulvm.lvm import vg as lvm_vg
from ulvm.lvm.names import split_volume
from ulvm.lvm.names import vg_name as vg_name_of
from ulvm.lvm.session import Session
from ulvm.metadata.names import check_new_lv_name, check_tag, name_problem
from ulvm.units import display_size

__all__ = ["lvchange", "lvconvert", "lvremove", "lvrename", "lvscan", "remove_one"]


# -- lvremove -------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, metavar="VG|LV...")
@click.option("-f", "--force", count=True, help="Do not ask; remove snapshots with an origin.")
@select_option
@common_options
@click.pass_obj
def lvremove(context: Context, names: tuple[str, ...], force: int, select: str | None) -> int:
    """Remove logical volumes, or all of a VG's. Asks about what is active."""
    if not names and select is None:
        raise no_such_syntax("lvremove")
    session = context.session()
    volumes, failures = choose_lvs(session, names, select)
    status = each(session, volumes, lambda name: remove_one(session, name, force=force > 0))
    for sentence in failures:
        session.warn(sentence)
    return status or (5 if failures else 0)


def remove_one(session: Session, name: str, *, force: bool) -> None:
    """Remove one volume and say so; an origin with its snapshots."""
    vg_name, lv_name = name.split("/")
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        if vg.lv(lv_name) is None:
            return  # it went with its origin
        lvm_lv.get(vg, lv_name)
        active = lvm_lv.states(session, vg)
        segments = vg.snapshots_of_origin(lv_name)
        snapshots = [s.cow for s in segments if not s.merging]  # A merging one goes with it.
        in_use = [n for n in (lv_name, *snapshots) if n in active and active[n].open_count]
        if in_use:
            raise RefusedError(f"Logical volume {vg_name}/{in_use[0]} in use.")
        if lv_name in active and not force:
            what = f"active logical volume {name}"
            if segments:
                what = f"active origin logical volume {name} with {len(segments)} snapshots(s)"
            if not session.ask(f"Do you really want to remove {what}?"):
                raise RefusedError(f"Logical volume {name} not removed.")
        for snapshot in snapshots:
            lvm_lv.remove(session, vg_name, snapshot)
            session.say(f'Logical volume "{snapshot}" successfully removed.')
        lvm_lv.remove(session, vg_name, lv_name)
        session.say(f'Logical volume "{lv_name}" successfully removed.')


# -- lvchange -------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, metavar="VG|LV...")
@click.option("-a", "--activate", help="y or n.")
@click.option("-p", "--permission", type=PERMISSION, help="Read only or read-write.")
@click.option("--refresh", is_flag=True, help="Load the tables anew, and resume what is suspended.")
@click.option("--addtag", multiple=True, help="Add a tag.")
@click.option("--deltag", multiple=True, help="Remove a tag.")
@click.option("--poll", type=YES_NO, help="y: see to the end of a merge.")
@click.option(
    "--activationmode",
    type=OneOf("partial", "degraded", "complete"),
    default="degraded",
    help="partial: also with missing PVs.",
)
@click.option("-P", "--partial", is_flag=True, help="The same as --activationmode partial.")
@click.option("-K", "--ignoreactivationskip", is_flag=True, hidden=True)
@select_option
@common_options
@click.pass_obj
def lvchange(
    context: Context,
    names: tuple[str, ...],
    activate: str | None,
    permission: str | None,
    refresh: bool,
    addtag: tuple[str, ...],
    deltag: tuple[str, ...],
    poll: str | None,
    activationmode: str,
    partial: bool,
    ignoreactivationskip: bool,
    select: str | None,
) -> int:
    """Change logical volumes: activate and deactivate, permissions, tags."""
    if not (names or select) or not (activate or permission or refresh or addtag or deltag or poll):
        raise no_such_syntax("lvchange")
    session = context.session()
    wanted = None if activate is None else wants_active(activate)
    volumes, failures = choose_lvs(session, names, select)
    as_partial = partial or activationmode == "partial"
    if as_partial:
        session.warn("PARTIAL MODE. Incomplete logical volumes will be processed.")

    def change(name: str) -> None:
        vg_name, lv_name = name.split("/")
        if wanted is not None:
            _activation(session, vg_name, lv_name, wanted, as_partial)
        if refresh:
            lvm_vg.refresh(session, vg_name)
        if permission:
            lvm_lv.set_writable(session, vg_name, lv_name, permission == "rw")
        if addtag or deltag:
            add, drop = [check_tag(t) for t in addtag], [check_tag(t) for t in deltag]
            lvm_lv.change_tags(session, vg_name, lv_name, add=add, remove=drop)
        if permission or addtag or deltag:
            session.say(f"Logical volume {name} changed.")
        if poll == "y":
            lvm_merge.resume_polling(session, session.scan().vg(vg_name))

    status = each(session, volumes, change)
    for sentence in failures:
        session.warn(sentence)
    return status or (5 if failures else 0)


def _activation(session: Session, vg_name: str, lv_name: str, wanted: bool, partial: bool) -> None:
    vg = session.scan().vg(vg_name)
    lv = lvm_lv.get(vg, lv_name)
    snap = vg.snapshot_of(lv_name)
    if snap is not None:
        if not vg.is_visible(lv):
            return  # a merging snapshot comes and goes with its origin
        others = len(vg.snapshots_of_origin(snap.origin)) - 1
        more = f" and {others} other snapshot(s)" if others else ""
        if not session.ask(
            f"Change of snapshot {vg_name}/{lv_name} will also change its origin "
            f"{vg_name}/{snap.origin}{more}. Proceed?"
        ):
            raise RefusedError(f"Logical volume {vg_name}/{lv_name} not changed.")
    if wanted:
        lvm_lv.activate(session, vg_name, lv_name, partial=partial)
        lvm_merge.resume_polling(session, session.scan().vg(vg_name))
    else:
        lvm_lv.deactivate(session, vg_name, lv_name)


# -- lvrename -------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, metavar="VG OLD NEW | VG/OLD NEW")
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
        vg_name, found = split_volume(names[0], run_dir)
        if found is None:
            raise no_such_syntax("lvrename")
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


# -- lvconvert ------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, metavar="SNAPSHOT...")
@click.option("--merge", is_flag=True, help="Merge the snapshot back into its origin.")
@click.option("--mergesnapshot", is_flag=True, help="The same.")
@click.option("-b", "--background", is_flag=True, help="Do not wait for the end of the merge.")
@click.option("-i", "--interval", hidden=True)
@common_options
@click.pass_obj
def lvconvert(
    context: Context,
    names: tuple[str, ...],
    merge: bool,
    mergesnapshot: bool,
    background: bool,
    interval: str | None,
) -> int:
    """Merge a snapshot back into its origin: the origin becomes what the snapshot is.

    If either is open, the merge begins at the next activation of the origin.
    """
    if not names or not (merge or mergesnapshot):
        raise no_such_syntax("lvconvert")
    session = context.session()

    def convert(name: str) -> None:
        vg_name, snapshot = session.resolve_lv(name)
        if mergesnapshot and not session.last_scan.vg(vg_name).is_cow(snapshot):
            raise RefusedError(
                f"Command on LV {vg_name}/{snapshot} does not accept LV type linear.\n"
                f"Command not permitted on LV {vg_name}/{snapshot}."
            )
        _merge_one(session, vg_name, snapshot, background)

    return each(session, names, convert)


def _merge_one(session: Session, vg_name: str, snapshot: str, background: bool) -> None:
    origin, began = lvm_merge.start(session, vg_name, snapshot)
    if began is not lvm_merge.Started.RUNNING:
        if began is lvm_merge.Started.ORIGIN_IS_OPEN:
            session.say("Delaying merge since origin is open.")
        elif began is lvm_merge.Started.SNAPSHOT_IS_OPEN:
            session.say("Delaying merge since snapshot is open.")
        session.say(
            f"Merging of snapshot {vg_name}/{snapshot} will occur on next activation of "
            f"{vg_name}/{origin}."
        )
        return
    session.say(f"Merging of volume {vg_name}/{snapshot} started.")
    if background:
        lvm_merge.poll_in_background(session, vg_name, origin)
    else:
        lvm_merge.poll(session, vg_name, origin)


@click.command()
@click.option("-a", "--all", is_flag=True, expose_value=False, hidden=True)
@read_only_option
@common_options
@click.pass_obj
def lvscan(context: Context) -> None:
    """List all logical volumes with their state."""
    session = context.session()
    for vg in session.scan().vgs:
        active = lvm_lv.states(session, vg)
        for lv in vg.visible_lvs():
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
