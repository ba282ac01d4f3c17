"""lvcreate, lvremove, lvchange, lvrename, lvconvert, lvscan, lvpoll."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from ulvm.cli.context import Context, common_options
from ulvm.errors import NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import merge as lvm_merge
from ulvm.lvm import snapshot as lvm_snapshot
from ulvm.lvm.names import split_volume
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import SizeRequest, parse_extents, parse_sectors, parse_size
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_tag
from ulvm.units import display_size

__all__ = ["lvchange", "lvconvert", "lvcreate", "lvpoll", "lvremove", "lvrename", "lvscan"]

_ACTIVE_WORDS = {
    **dict.fromkeys(("y", "ay", "ey", "ly", "aay", "aey", "aly", "sy"), True),
    **dict.fromkeys(("n", "an", "en", "ln", "aln"), False),
}
_YES_NO = click.Choice(["y", "n"])


def wants_active(word: str) -> bool:
    """The value of -a; UsageError."""
    if word not in _ACTIVE_WORDS:
        raise UsageError(f"Invalid argument for --activate: {word}")
    return _ACTIVE_WORDS[word]


def no_such_syntax(command: str) -> UsageError:
    """For a command line that has not what the command needs at least."""
    return UsageError(
        f"No command with matching syntax recognised.  Run '{command} --help' for more information."
    )


def each(session: Session, items: Sequence[str], work: Callable[[str], None]) -> int:
    """Do the work for each; go on after a failure, and fail in the end. Exit code."""
    status = 0
    for item in items:
        try:
            work(item)
        except UsageError:
            raise
        except UlvmError as error:
            session.warn(error.message)
            status = error.exit_code
    return status


def volumes_of(session: Session, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(`vg/lv` of the volumes named, those of a VG for its name; sentences about missing ones).
    In the order of the metadata, whatever order they were named in, as LVM does."""
    scan = session.scan()
    chosen: dict[str, set[str]] = {}
    failures: list[str] = []
    for name in names:
        vg_name, lv_name = split_volume(name, session.host.run_dir)
        try:
            vg = scan.vg(vg_name)
            if lv_name is None:
                wanted = {lv.name for lv in vg.visible_lvs()}
            else:
                wanted = {lvm_lv.get(vg, lv_name).name}
            chosen.setdefault(vg_name, set()).update(wanted)
        except NotFoundError as error:
            failures += error.message.splitlines()
            if all(vg.name != vg_name for vg in scan.vgs):
                failures.append(f"Cannot process volume group {vg_name}")
    found = []
    for vg_name in sorted(chosen):
        found += [
            f"{vg_name}/{lv.name}" for lv in scan.vg(vg_name).lvs if lv.name in chosen[vg_name]
        ]
    return found, list(dict.fromkeys(failures))


# -- lvcreate -------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, metavar="VG|ORIGIN [PV...]")
@click.option("-L", "--size", help="Size: a number and one of bskmgtpe (default m).")
@click.option("-l", "--extents", help="Extents, or N%VG, N%FREE, N%PVS, N%ORIGIN.")
@click.option("-n", "--name", help="Name of the new volume; lvolN by default.")
@click.option("-s", "--snapshot", is_flag=True, help="Make a snapshot of ORIGIN.")
@click.option("--type", "kind", type=click.Choice(["linear", "snapshot"]), help="Segment type.")
@click.option("-c", "--chunksize", help="Chunk size of a snapshot, 4k to 512k (default 4k).")
@click.option(
    "-p",
    "--permission",
    type=click.Choice(["r", "rw"]),
    default="rw",
    help="Read only or read-write.",
)
@click.option("-a", "--activate", default="y", help="y or n (default y).")
@click.option("-Z", "--zero", type=_YES_NO, default="y", help="Zero the first 4 KiB (default y).")
@click.option(
    "-W",
    "--wipesignatures",
    type=_YES_NO,
    help="Wipe signatures of file systems and the like (default: as -Z).",
)
@click.option("--addtag", multiple=True, help="Tag of the new volume.")
@click.option(
    "--alloc",
    type=click.Choice(["contiguous", "cling", "normal", "anywhere"]),
    help="Allocation policy; the VG's by default.",
)
@click.option("-C", "--contiguous", type=_YES_NO, help="The same as --alloc contiguous.")
@click.option("-k", "--setactivationskip", hidden=True)
@click.option("-K", "--ignoreactivationskip", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def lvcreate(
    context: Context,
    names: tuple[str, ...],
    size: str | None,
    extents: str | None,
    name: str | None,
    snapshot: bool,
    kind: str | None,
    chunksize: str | None,
    permission: str,
    activate: str,
    zero: str,
    wipesignatures: str | None,
    addtag: tuple[str, ...],
    alloc: str | None,
    contiguous: str | None,
    setactivationskip: str | None,
    ignoreactivationskip: bool,
) -> None:
    """Create a logical volume in VG, or a snapshot of ORIGIN.

    \b
    lvcreate -L 10G -n data vg              a linear volume
    lvcreate -s -L 1G -n snap vg/data       a snapshot with room for 1 GiB of changes
    lvcreate -s -l 100%ORIGIN -n fork vg/data   one that cannot overflow
    """  # fmt: skip
    session = context.session()
    is_snapshot = snapshot or kind == "snapshot"
    if snapshot and kind == "linear":
        raise UsageError("Command does not accept option combination: --snapshot with --type.")
    if setactivationskip not in (None, "n", "y"):
        raise UsageError(f"Invalid argument for --setactivationskip: {setactivationskip}")
    vg_name, origin, chosen, pv_paths = _place(session, names, name, is_snapshot)
    request = _new_size(size, extents, is_snapshot)
    policy = "contiguous" if contiguous == "y" else alloc
    tags = [check_tag(tag) for tag in addtag]
    active = wants_active(activate)
    if origin is not None:
        chunk = parse_sectors(_default_kilobytes(chunksize), "--chunksize") if chunksize else None
        made, _ = lvm_snapshot.create_named(
            session,
            vg_name,
            origin,
            chosen,
            extents=_count(session, request, pv_paths, origin, chunk or lvm_snapshot.DEFAULT_CHUNK),
            chunk_size=chunk or lvm_snapshot.DEFAULT_CHUNK,
            read_only=permission == "r",
            tags=tags,
            pv_paths=pv_paths,
            policy=policy,
        )
    else:
        if chunksize:
            raise UsageError("--chunksize is only available with snapshots.")
        made = lvm_lv.create(
            session,
            vg_name,
            chosen,
            extents=_count(session, request, pv_paths, None, lvm_snapshot.DEFAULT_CHUNK),
            pv_paths=pv_paths,
            read_only=permission == "r",
            tags=tags,
            policy=policy,
            active=active,
            zero=zero == "y",
            wipe_signatures=(wipesignatures or zero) == "y",
        )
    session.say(f'Logical volume "{made}" created.')


def _default_kilobytes(text: str) -> str:
    """LVM reads a chunk size without a letter as kilobytes."""
    return f"{text}k" if text[-1:].isdecimal() else text


def _place(
    session: Session, names: tuple[str, ...], name: str | None, is_snapshot: bool
) -> tuple[str, str | None, str | None, list[str]]:
    """(VG, origin, name, PV paths) of lvcreate's arguments."""
    words = list(names)
    run_dir = session.host.run_dir
    vg_of_name, chosen = None, name
    if name is not None and "/" in name:
        vg_of_name, chosen = split_volume(name, run_dir)
    if is_snapshot:
        if not words:
            raise UsageError("Please specify a logical volume to act as the snapshot origin.")
        vg_name, origin = split_volume(words.pop(0), run_dir)
        if origin is None:
            raise UsageError("Please specify a logical volume to act as the snapshot origin.")
    elif vg_of_name is not None:
        vg_name, origin = vg_of_name, None
        if words and words[0] == vg_of_name:
            words.pop(0)
    elif words:
        vg_name, origin = split_volume(words.pop(0), run_dir)
        if origin is not None:
            raise UsageError(f'Volume group name "{names[0]}" has invalid characters.')
    else:
        raise UsageError("Please provide a volume group name")
    if vg_of_name is not None and vg_of_name != vg_name:
        raise UsageError(f"Please use a single volume group name ({vg_of_name} or {vg_name})")
    return vg_name, origin, chosen, words


def _new_size(size: str | None, extents: str | None, is_snapshot: bool) -> SizeRequest:
    if size is not None and extents is not None:
        raise UsageError("Please specify either size or extents but not both.")
    if size is None and extents is None:
        if is_snapshot:
            raise RefusedError("Please specify either size or extents with snapshots.")
        raise no_such_syntax("lvcreate")
    request = parse_size(size) if size is not None else parse_extents(extents or "")
    if request.sign:
        raise UsageError(f"Size may not be relative/use sign: {size or extents}")
    return request


def _count(
    session: Session,
    request: SizeRequest,
    pv_paths: Sequence[str],
    origin: str | None,
    chunk_size: int,
) -> Callable[[VolumeGroup], int]:
    """How many extents a request is in the VG as it is found under the lock."""

    def count(vg: VolumeGroup) -> int:
        if request.percent is not None:
            pv_free = lvm_lv.free_on(session, vg, pv_paths)
            found = request.for_new(vg, origin=origin, chunk_size=chunk_size, pv_free=pv_free)
            # Per cent are what the user would like: what does not fit is cut.
            free = vg.free_count if pv_free is None else pv_free
            found = min(found, free) if free else found
            if not found:
                raise RefusedError(
                    "Calculated size of logical volume is 0 extents. Needs to be larger."
                )
            return found
        extents, rounded = request.count(vg.extent_size)
        if rounded:
            size = display_size(extents * vg.extent_size)
            session.say(f"Rounding up size to full physical extent {size}")
        return extents

    return count


# -- lvremove -------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="VG|LV...")
@click.option("-f", "--force", count=True, help="Do not ask; remove snapshots with an origin.")
@common_options
@click.pass_obj
def lvremove(context: Context, names: tuple[str, ...], force: int) -> int:
    """Remove logical volumes, or all of a VG's. Asks about what is active."""
    session = context.session()
    volumes, failures = volumes_of(session, names)
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
@click.argument("names", nargs=-1, required=True, metavar="VG|LV...")
@click.option("-a", "--activate", help="y or n.")
@click.option("-p", "--permission", type=click.Choice(["r", "rw"]), help="Read only or read-write.")
@click.option("--refresh", is_flag=True, help="Load the tables anew, and resume what is suspended.")
@click.option("--addtag", multiple=True, help="Add a tag.")
@click.option("--deltag", multiple=True, help="Remove a tag.")
@click.option("--poll", type=_YES_NO, help="y: see to the end of a merge.")
@click.option(
    "--activationmode",
    type=click.Choice(["partial", "degraded", "complete"]),
    default="degraded",
    help="partial: also with missing PVs.",
)
@click.option("-P", "--partial", is_flag=True, help="The same as --activationmode partial.")
@click.option("-K", "--ignoreactivationskip", is_flag=True, hidden=True)
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
) -> int:
    """Change logical volumes: activate and deactivate, permissions, tags."""
    if not (activate or permission or refresh or addtag or deltag or poll):
        raise no_such_syntax("lvchange")
    session = context.session()
    wanted = None if activate is None else wants_active(activate)
    volumes, failures = volumes_of(session, names)
    as_partial = partial or activationmode == "partial"
    if as_partial:
        session.warn("PARTIAL MODE. Incomplete logical volumes will be processed.")

    def change(name: str) -> None:
        vg_name, lv_name = name.split("/")
        if wanted is not None:
            _activation(session, vg_name, lv_name, wanted, as_partial)
        if refresh:
            with session.lock(vg_name):
                session.activator.refresh(session.scan().vg(vg_name))
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
@click.argument("names", nargs=-1, required=True, metavar="VG OLD NEW | VG/OLD NEW")
@common_options
@click.pass_obj
def lvrename(context: Context, names: tuple[str, ...]) -> None:
    """Rename a logical volume, also while it is in use."""
    session = context.session()
    run_dir = session.host.run_dir
    if len(names) == 3:
        vg_name, old, new = names
        for word in (old, new):
            if "/" in word and split_volume(word, run_dir)[0] != vg_name:
                raise UsageError("Logical volume names must be in the volume group named first.")
        old, new = old.rpartition("/")[2], new.rpartition("/")[2]
    elif len(names) == 2:
        vg_name, found = split_volume(names[0], run_dir)
        if found is None:
            raise UsageError("Old and new logical volume names required")
        old, new = found, names[1]
        if "/" in new:
            new_vg, new_lv = split_volume(new, run_dir)
            if new_vg != vg_name or new_lv is None:
                raise UsageError(
                    f'Logical volume names must have the same volume group ("{vg_name}" or '
                    f'"{new_vg}")'
                )
            new = new_lv
    else:
        raise UsageError("Old and new logical volume names required")
    lvm_lv.rename(session, vg_name, old, new)
    session.say(f'Renamed "{old}" to "{new}" in volume group "{vg_name}"')


# -- lvconvert ------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="SNAPSHOT...")
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
    if not (merge or mergesnapshot):
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
        if began is lvm_merge.Started.WAITS_FOR_CLOSE:
            session.say("Delaying merge since origin is open.")
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


@click.command(hidden=True)
@click.argument("name", metavar="ORIGIN")
@common_options
@click.pass_obj
def lvpoll(context: Context, name: str) -> None:
    """See to the end of a merge into ORIGIN. Started by lvconvert -b and by activation."""
    session = context.session()
    vg_name, origin = session.resolve_lv(name)
    lvm_merge.poll(session, vg_name, origin, quiet=True)


@click.command()
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-a", "--all", "all_volumes", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def lvscan(context: Context, names: tuple[str, ...], all_volumes: bool) -> None:
    """List all logical volumes with their state."""
    session = context.session()
    scan = session.scan()
    for vg in scan.vgs if not names else [scan.vg(name) for name in names]:
        active = lvm_lv.states(session, vg)
        for lv in vg.visible_lvs():
            state = active.get(lv.name)
            invalid = state is not None and state.status is not None and state.status.invalid
            word = "ACTIVE  " if state is not None and not invalid else "inactive"
            role = "        "
            if vg.is_origin(lv.name):
                role = "Original"
            elif vg.is_cow(lv.name):
                role = "Snapshot"
            snap = vg.snapshot_of(lv.name)
            sectors = vg.lv_sectors(lv) if snap is None else snap.extent_count * vg.extent_size
            session.say(
                f"{word}          {role} '/dev/{vg.name}/{lv.name}' [{display_size(sectors)}] "
                f"{lv.allocation_policy}"
            )
