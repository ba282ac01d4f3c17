"""lvextend, lvreduce and lvresize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ulvm.cli.arguments import (
    Stripes,
    no_such_syntax,
    parse_stripes,
    stripe_options,
    vg_uuid_option,
)
from ulvm.cli.common_options import backup_option, common_options, udev_option
from ulvm.cli.context import Context
from ulvm.cli.words import ALLOC, OneOf
from ulvm.errors import NotFoundError, RefusedError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import resize
from ulvm.lvm.names import plain_name, split_known
from ulvm.lvm.resize import Resize, Target
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import SizeRequest, parse_extents, parse_sectors, parse_size
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.metadata.names import name_problem
from ulvm.report.attributes import percent
from ulvm.units import display_size
from ulvm.vgstore.checks import check_complete
from ulvm.vgstore.policy import DEFAULT_THRESHOLD, SnapshotPolicy

__all__ = ["lvextend", "lvreduce", "lvresize"]

_F = TypeVar("_F", bound=Callable[..., Any])

_TYPES = OneOf("linear", "striped", "snapshot", "error", "zero")


def _file_system_options(function: _F) -> _F:
    """-f, -n and -r."""
    options = (
        click.option("-r", "--resizefs", is_flag=True, help="Resize the file system, too."),
        click.option("-n", "--nofsck", is_flag=True, help="With -r: do not check it before."),
        click.option("-f", "--force", count=True, help="Do not ask."),
    )
    for option in options:
        function = option(function)
    return function


def _growth_options(function: _F) -> _F:
    """How new extents are laid out; --type says nothing that the volume does not."""
    options = (
        click.option("--alloc", type=ALLOC, help="Policy for the new extents."),
        click.option("--type", "kind", type=_TYPES, expose_value=False, hidden=True),
        click.option("--nosync", is_flag=True, expose_value=False, hidden=True),
    )
    for option in options:
        function = option(function)
    return stripe_options(function)


@click.command()
@click.argument("name", metavar="LV", required=False)
@click.argument("pv_words", nargs=-1, metavar="[PV[:RANGE]...]")
@click.option("-L", "--size", help="The new size, or +size to add.")
@click.option("-l", "--extents", help="The new number of extents, or +extents; also per cent.")
@_growth_options
@click.option(
    "--usepolicies", "--use-policies", is_flag=True, help="Extend a snapshot as ulvm.conf says."
)
@vg_uuid_option
@_file_system_options
@udev_option
@backup_option
@common_options
@click.pass_obj
def lvextend(
    context: Context,
    name: str | None,
    pv_words: tuple[str, ...],
    size: str | None,
    extents: str | None,
    stripes: int | None,
    stripesize: str | None,
    alloc: str | None,
    usepolicies: bool,
    vguuid: str | None,
    force: bool,
    nofsck: bool,
    resizefs: bool,
) -> None:
    """Grow a volume: a plain one, a snapshot's COW that fills, an origin that is inactive.

    \b
    lvextend -L +10G vg/data          10 GiB more
    lvextend -l +100%FREE vg/data     all that is free
    lvextend -r -L 50G vg/data        and the file system with it
    lvextend vg/data /dev/sdb         by all that is free on that disk
    """  # fmt: skip
    session = context.session()
    if vguuid is not None:
        session.mean(vguuid)
    if usepolicies:
        if size is not None:
            raise UsageError("Command does not accept option: --usepolicies.")
        if extents is not None:
            session.say("Ignoring size parameters with --use-policies.")
        _by_policy(session, *_find(session, "lvextend", name))
        return
    request = _request("lvextend", size, extents, "+", pv_words)
    shape = _shape(stripes, stripesize)
    asked = Resize(request, True, pv_words, shape.number, shape.size, alloc, force=True)
    _resize(session, _find(session, "lvextend", name), asked, resizefs, nofsck)


@click.command()
@click.argument("name", metavar="LV", required=False)
@click.option("-L", "--size", help="The new size, or -size to take away.")
@click.option("-l", "--extents", help="The new number of extents, or -extents; also per cent.")
@_file_system_options
@udev_option
@backup_option
@common_options
@click.pass_obj
def lvreduce(
    context: Context,
    name: str | None,
    size: str | None,
    extents: str | None,
    force: bool,
    nofsck: bool,
    resizefs: bool,
) -> None:
    """Cut a volume. What lies beyond the new end is lost."""
    session = context.session()
    request = _request("lvreduce", size, extents, "-")
    asked = Resize(request, False, force=force)
    _resize(session, _find(session, "lvreduce", name), asked, resizefs, nofsck)


@click.command()
@click.argument("name", metavar="LV", required=False)
@click.argument("pv_words", nargs=-1, metavar="[PV[:RANGE]...]")
@click.option("-L", "--size", help="The new size; +size to add, -size to take away.")
@click.option("-l", "--extents", help="Likewise in extents or per cent.")
@_growth_options
@_file_system_options
@udev_option
@backup_option
@common_options
@click.pass_obj
def lvresize(
    context: Context,
    name: str | None,
    pv_words: tuple[str, ...],
    size: str | None,
    extents: str | None,
    stripes: int | None,
    stripesize: str | None,
    alloc: str | None,
    force: bool,
    nofsck: bool,
    resizefs: bool,
) -> None:
    """Give a volume another size."""
    session = context.session()
    request = _request("lvresize", size, extents, "+-", pv_words)
    shape = _shape(stripes, stripesize)
    asked = Resize(request, None, pv_words, shape.number, shape.size, alloc, force=force)
    _resize(session, _find(session, "lvresize", name), asked, resizefs, nofsck)


def _find(session: Session, command: str, name: str | None) -> tuple[str, str]:
    """(VG, LV); NotFoundError in the words of these commands."""
    if name is None:
        raise no_such_syntax(command)
    parts = plain_name(name, session.host.run_dir).split("/")
    if len(parts) == 2 and name_problem(parts[1]) is not None:
        raise UsageError(f'Logical volume name "{parts[1]}" is invalid.')
    if len(parts) > 2:
        raise UsageError(f'"{name}": Invalid path for Logical Volume.')
    vg_name, lv_name = split_known(name, session.host.run_dir, session.host.default_vg)
    if lv_name is None:
        raise UsageError("Please specify a logical volume path.")
    vg = session.find_vg(vg_name)
    check_complete(vg)
    lv = vg.lv(lv_name)
    if lv is None or lv.snapshot_segment is not None:
        raise NotFoundError(f"Logical volume {lv_name} not found in volume group {vg_name}.")
    return vg_name, lv_name


def _request(
    command: str,
    size: str | None,
    extents: str | None,
    signs: str,
    pv_words: tuple[str, ...] = (),
) -> SizeRequest | None:
    if size is not None and extents is not None:
        raise UsageError("Please specify either size or extents but not both.")
    if size is not None:
        return parse_size(size, signs=signs)
    if extents is not None:
        return parse_extents(extents, signs=signs)
    if pv_words:
        return None
    raise no_such_syntax(command)


def _shape(stripes: int | None, stripesize: str | None) -> Stripes:
    """What the size comes to the group says: it is checked by `resize.target`."""
    shape = parse_stripes(stripes, None)
    if stripesize is None:
        return shape
    return shape._replace(size=parse_sectors(stripesize, "--stripesize", unit="k"))


def _resize(
    session: Session,
    volume: tuple[str, str],
    asked: Resize,
    with_file_system: bool,
    no_check: bool,
) -> None:
    vg_name, lv_name = volume
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        lv = lvm_lv.get(vg, lv_name)
        if not vg.is_visible(lv):
            raise RefusedError(f"Can't resize internal logical volume {vg_name}/{lv_name}.")
        wanted = resize.target(session, vg, lv, asked)
        if with_file_system:
            from ulvm.lvm.filesystems import resize_with

            resize_with(session, vg, lv, asked, wanted, check=not no_check)
            return
        if wanted.wanted < wanted.have:
            _ask_to_cut(session, vg, lv, wanted.wanted, asked.force)
        resize.apply(session, vg, lv, asked, wanted)


def _ask_to_cut(
    session: Session, vg: VolumeGroup, lv: LogicalVolume, wanted: int, force: bool
) -> None:
    if vg.is_origin(lv.name):
        raise RefusedError("Snapshot origin volumes cannot be reduced in size yet.")
    state = lvm_lv.states(session, vg).get(lv.name)
    if state is None:
        return
    word = "active and open" if state.open_count else "active"
    size = display_size(wanted * vg.extent_size)
    session.warn(f"WARNING: Reducing {word} logical volume to {size}.")
    session.warn("THIS MAY DESTROY YOUR DATA (filesystem etc.)")
    name = f"{vg.name}/{lv.name}"
    if not force and not session.ask(f"Do you really want to reduce {name}?"):
        raise RefusedError(f"Logical volume {name} NOT reduced.")


def _by_policy(session: Session, vg_name: str, lv_name: str) -> None:
    """As dmeventd's plugin asks for; see `vgstore.policy`."""
    policy = SnapshotPolicy.of(session.host.config)
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        lv = lvm_lv.get(vg, lv_name)
        if not vg.is_cow(lv_name):
            raise RefusedError(
                "Policy-based resize is supported only for snapshot, thin pool and vdo pool "
                "volumes."
            )
        if not policy.extends:
            return
        stripes = resize.last_stripes(lv)
        if policy.percent <= 0:
            kind = "striped" if stripes > 1 else "linear"
            raise RefusedError(
                f"Can't extend {vg_name}/{lv_name} with {kind} autoextend percent set to 0%."
            )
        asked = session.host.config.get_int(
            "activation/snapshot_autoextend_threshold", DEFAULT_THRESHOLD
        )
        if asked < policy.threshold:
            session.warn(
                f"WARNING: Snapshot autoextend threshold {asked}% is set bellow minimal "
                f"supported value {policy.threshold}%."
            )
        state = lvm_lv.states(session, vg).get(lv_name)
        if state is None or state.status is None:
            raise RefusedError(f"Can't read state of locally inactive LV {vg_name}/{lv_name}.")
        full = percent(state.status)
        if full is None or not policy.wants(float(full)):
            return
        have = lv.extent_count
        wanted = policy.wanted(have, float(full))
        width = resize.last_width(vg, lv)
        wanted = resize.whole_stripes(session, lv, wanted, width, room=None)
        # What room there is, rather than nothing; without any the refusal names the full wish.
        room = vg.free_count // width * width
        goal = Target(have, min(wanted, have + room) if room else wanted, None, None, False)
        resize.grow_to(session, vg, lv, Resize(None, True), goal)
