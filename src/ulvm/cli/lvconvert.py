"""lvconvert."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ulvm.cli.arguments import ALLOC, YES_NO, Number, SegmentType, no_such_syntax
from ulvm.cli.choose import ChosenLv, choose_lvs, each_lv
from ulvm.cli.common_options import common_options, udev_option
from ulvm.cli.context import Context
from ulvm.errors import NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.lvm import convert
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import merge as lvm_merge
from ulvm.lvm.names import split_known
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import parse_sectors
from ulvm.lvm.snapshot import DEFAULT_CHUNK
from ulvm.metadata.cow import check_chunk_size

__all__ = ["lvconvert"]


@click.command()
@click.argument("names", nargs=-1, metavar="SNAPSHOT|VG|@TAG... | ORIGIN LV")
@click.option("--merge", is_flag=True, help="Merge the snapshots back into their origins.")
@click.option("--mergesnapshot", is_flag=True, help="The same, for one snapshot or a tag.")
@click.option("--splitsnapshot", is_flag=True, help="Make the snapshot's store a plain volume.")
@click.option("-s", "--snapshot", is_flag=True, help="Make LV the store of a snapshot of ORIGIN.")
@click.option(
    "--type",
    "kind",
    type=SegmentType("snapshot", "linear", "striped", "error", "zero"),
    help="snapshot: as -s.",
)
@click.option("-c", "--chunksize", help="With -s: chunk size, 4k to 512k (default 4k).")
@click.option("-Z", "--zero", type=YES_NO, default="y", help="With -s: n keeps what LV holds.")
@click.option("-b", "--background", is_flag=True, help="Do not wait for the end of the merge.")
@click.option("--startpoll", is_flag=True, help="See to the end of merges that are under way.")
@click.option("-i", "--interval", type=Number(), hidden=True)
@click.option("-f", "--force", count=True, hidden=True)
@click.option("--alloc", type=ALLOC, hidden=True)
@udev_option
@common_options
@click.pass_obj
def lvconvert(
    context: Context,
    names: tuple[str, ...],
    merge: bool,
    mergesnapshot: bool,
    splitsnapshot: bool,
    snapshot: bool,
    kind: str | None,
    chunksize: str | None,
    zero: str,
    background: bool,
    startpoll: bool,
    interval: int | None,
    alloc: str | None,
    force: bool,
) -> int:
    """Merge snapshots back, take them off their origins, or put them there.

    A merge makes the origin what the snapshot is; if either is open, it begins at the next
    activation of the origin.

    \b
    lvconvert --merge vg/snap           go back to what the snapshot holds
    lvconvert --merge @before-upgrade   all that have the tag
    lvconvert --splitsnapshot vg/snap   vg/snap holds its store, as a plain volume
    lvconvert -s vg/data vg/snap        and is a snapshot again
    """  # fmt: skip
    session = context.session()
    joins = snapshot or kind == "snapshot"
    merges = merge or mergesnapshot
    _refuse_beside(
        ("--splitsnapshot", splitsnapshot and merges),
        ("--snapshot", snapshot and (merges or splitsnapshot or kind not in (None, "snapshot"))),
        (f"--chunksize {chunksize}", chunksize is not None and not joins),
        (f"--interval {interval}", interval is not None and (joins or splitsnapshot)),
    )
    if merge or mergesnapshot:
        if not names:
            raise no_such_syntax("lvconvert")
        return _merge(session, names, background, only_snapshots=mergesnapshot)
    if splitsnapshot:
        _check_count(names, 1)
        _split(session, names[0], force)
        return 0
    if joins:
        _check_count(names, 2)
        chunk = DEFAULT_CHUNK
        if chunksize is not None:
            chunk = parse_sectors(chunksize, "--chunksize", unit="k")
        _join(session, *names, chunk=chunk, zero=zero == "y")
        return 0
    if len(names) != 1 or kind in ("zero", "error") or (alloc is not None and kind is None):
        raise no_such_syntax("lvconvert")
    vg_name, name = session.resolve_lv(names[0])
    vg = session.last_scan.vg(vg_name)
    if kind in ("linear", "striped") and vg.is_cow(name):
        raise RefusedError(f"Operation not permitted on LV {vg_name}/{name} type snapshot.")
    if kind == "striped":
        have = lvm_lv.get(vg, name).segments[0].type_name
        raise RefusedError(f"Logical volume {vg_name}/{name} is already of requested type {have}.")
    if kind == "linear":
        session.warn(f"WARNING: {vg_name}/{name} already has image count of 1.")
        session.say(f"Logical volume {vg_name}/{name} successfully converted.")
        return 0
    if startpoll and vg.merging_snapshot_of(name) is not None:
        lvm_merge.resume_polling(session, session.last_scan.vg(vg_name))
        return 0
    raise _not_of_type(session, vg_name, name)


def _refuse_beside(*given: tuple[str, bool]) -> None:
    """UsageError for the first option that does not go with the others."""
    for option, refused in given:
        if refused:
            raise UsageError(f"Command does not accept option: {option}.")


def _check_count(names: Sequence[str], wanted: int) -> None:
    if len(names) < wanted:
        raise no_such_syntax("lvconvert")
    if len(names) > wanted:
        raise UsageError(f"Command does not accept argument: {names[wanted]}.")


def _not_of_type(session: Session, vg_name: str, name: str) -> RefusedError:
    vg = session.last_scan.vg(vg_name)
    kind = "snapshot" if vg.is_cow(name) else lvm_lv.get(vg, name).segments[0].type_name
    return RefusedError(
        f"Command on LV {vg_name}/{name} does not accept LV type {kind}.\n"
        f"Command not permitted on LV {vg_name}/{name}."
    )


def _is_merging(volume: str) -> RefusedError:
    return RefusedError(
        f"Command on LV {volume} is invalid on LV with properties: lv_is_merging_cow .\n"
        f"Command not permitted on LV {volume}."
    )


# -- merge ----------------------------------------------------------------------------------------


def _merge(
    session: Session, names: Sequence[str], background: bool, *, only_snapshots: bool
) -> int:
    if only_snapshots and len(names) > 1:
        raise RefusedError("One LV position arg is required.")
    volumes, failures = choose_lvs(session, names)
    run_dir, default = session.host.run_dir, session.host.default_vg
    try:
        split = [split_known(word, run_dir, default) for word in names if not word.startswith("@")]
    except NotFoundError as error:
        raise RefusedError(error.message) from None
    named = {"/".join(filter(None, parts)) for parts in split}
    running: list[tuple[ChosenLv, str]] = []

    def begin(chosen: ChosenLv) -> None:
        volume = chosen.name
        vg_name, name = volume.split("/")
        vg = session.find_vg(vg_name)
        segment = vg.snapshot_of(name)
        if segment is not None and segment.merging:
            refusal = _is_merging(volume)
            if volume in named:
                raise refusal
            session.warn(refusal.message.splitlines()[0])
            return
        if segment is None and only_snapshots:
            raise _not_of_type(session, vg_name, name)
        origin = _begin_one(session, vg_name, name)
        if origin is not None:
            running.append((chosen, origin))

    status = each_lv(session, volumes, begin, failures)
    for chosen, origin in running:
        session.mean(chosen.vg_uuid)
        vg_name = chosen.name.split("/")[0]
        try:
            if background:
                lvm_merge.poll_in_background(session, session.last_scan.vg(vg_name), origin)
            else:
                lvm_merge.poll(session, vg_name, origin)
        except UlvmError as error:  # The others are under way, too.
            session.warn(error.message)
            status = error.exit_code
    return status


def _begin_one(session: Session, vg_name: str, snapshot: str) -> str | None:
    """The origin, if the merge is under way."""
    origin, began = lvm_merge.start(session, vg_name, snapshot)
    if began is lvm_merge.Started.RUNNING:
        session.say(f"Merging of volume {vg_name}/{snapshot} started.")
        return origin
    if began is lvm_merge.Started.ORIGIN_IS_OPEN:
        session.say("Delaying merge since origin is open.")
    elif began is lvm_merge.Started.SNAPSHOT_IS_OPEN:
        session.say("Delaying merge since snapshot is open.")
    session.say(
        f"Merging of snapshot {vg_name}/{snapshot} will occur on next activation of "
        f"{vg_name}/{origin}."
    )
    return None


# -- off and on -----------------------------------------------------------------------------------


def _split(session: Session, word: str, force: bool) -> None:
    run_dir, default = session.host.run_dir, session.host.default_vg
    vg_name, name = split_known(word, run_dir, default)
    if name is None:
        raise RefusedError(f"Cannot find VG name for LV {word}.")
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        lv = lvm_lv.get(vg, name)
        if not vg.is_cow(name):
            raise _not_of_type(session, vg_name, name)
        volume = f"{vg_name}/{name}"
        if not vg.is_visible(lv):
            raise _is_merging(volume)
        state = lvm_lv.states(session, vg).get(name)
        if state is not None and state.open_count:
            raise RefusedError(f"Logical volume {volume} in use.")
        if (
            state is not None
            and not force
            and not session.ask(f"Do you really want to split off active logical volume {volume}?")
        ):
            raise RefusedError(f"Logical volume {volume} not split.")
        convert.split(session, vg_name, name)
    session.say(f"Logical Volume {volume} split from its origin.")


def _join(session: Session, origin_word: str, word: str, *, chunk: int, zero: bool) -> None:
    run_dir = session.host.run_dir
    default = next(
        (w.split("/")[-2] for w in (origin_word, word) if "/" in w), session.host.default_vg
    )
    vg_name, name = split_known(word, run_dir, default)
    origin_vg, origin = split_known(origin_word, run_dir, default)
    if name is None or origin is None:
        raise UsageError("Please specify a logical volume path.")
    if origin_vg != vg_name:
        session.find_vg(vg_name)
        raise UsageError(f'Please use a single volume group name ("{origin_vg}" or "{vg_name}").')
    volume = f"{vg_name}/{name}"
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        if vg.lv(name) is None:
            raise NotFoundError(f'Failed to find logical volume "{volume}"')
        if vg.is_cow(name):
            raise _not_of_type(session, vg_name, name)
        try:
            check_chunk_size(chunk)
        except UsageError as error:
            raise RefusedError(error.message) from None
        convert.check_join(vg, origin, name, chunk)
        session.warn(f"WARNING: Converting logical volume {volume} to snapshot exception store.")
        session.warn("THIS WILL DESTROY CONTENT OF LOGICAL VOLUME (filesystem etc.)")
        if not session.ask(f"Do you really want to convert {volume}?"):
            raise RefusedError("Conversion aborted.")
        convert.join(session, vg_name, origin, name, chunk_size=chunk, zero=zero)
    session.say(f"Logical volume {volume} converted to snapshot.")
