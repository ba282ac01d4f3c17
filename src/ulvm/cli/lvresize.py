"""lvextend, lvreduce and lvresize."""

from __future__ import annotations

import click

from ulvm.cli.arguments import Stripes, no_such_syntax, parse_stripes, stripe_options
from ulvm.cli.context import Context, common_options
from ulvm.cli.lvcreate import reduced
from ulvm.errors import NotFoundError, RefusedError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import split_volume
from ulvm.lvm.places import free_in, places_of
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import SizeRequest, parse_extents, parse_size
from ulvm.metadata.edit import cow_max_extents
from ulvm.metadata.model import LogicalVolume, StripedSegment, VolumeGroup
from ulvm.report.attributes import percent
from ulvm.units import display_size
from ulvm.vgstore.policy import SnapshotPolicy

__all__ = ["lvextend", "lvreduce", "lvresize"]


@click.command()
@click.argument("name", metavar="LV", required=False)
@click.argument("pv_paths", nargs=-1, metavar="[PV...]")
@click.option("-L", "--size", help="The new size, or +size to add.")
@click.option("-l", "--extents", help="The new number of extents, or +extents; also per cent.")
@stripe_options
@click.option("--use-policies", is_flag=True, help="Extend a snapshot as ulvm.conf says.")
@click.option("-f", "--force", is_flag=True, hidden=True)
@click.option("-n", "--nofsck", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def lvextend(
    context: Context,
    name: str | None,
    pv_paths: tuple[str, ...],
    size: str | None,
    extents: str | None,
    stripes: int | None,
    stripesize: str | None,
    use_policies: bool,
    force: bool,
    nofsck: bool,
) -> None:
    """Grow a volume: a plain one, a snapshot's COW that fills, an origin that is inactive."""
    session = context.session()
    if use_policies:
        _by_policy(session, *_find(session, "lvextend", name))
        return
    request = _request("lvextend", size, extents, "+")
    vg_name, lv_name = _find(session, "lvextend", name)
    shape = parse_stripes(stripes, stripesize)
    _resize(session, vg_name, lv_name, request, pv_paths, shape, grow=True, force=True)


@click.command()
@click.argument("name", metavar="LV", required=False)
@click.option("-L", "--size", help="The new size, or -size to take away.")
@click.option("-l", "--extents", help="The new number of extents, or -extents; also per cent.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-n", "--nofsck", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def lvreduce(
    context: Context,
    name: str | None,
    size: str | None,
    extents: str | None,
    force: bool,
    nofsck: bool,
) -> None:
    """Cut a volume. What lies beyond the new end is lost."""
    session = context.session()
    request = _request("lvreduce", size, extents, "-")
    vg_name, lv_name = _find(session, "lvreduce", name)
    _resize(session, vg_name, lv_name, request, (), Stripes(None, None), grow=False, force=force)


@click.command()
@click.argument("name", metavar="LV", required=False)
@click.argument("pv_paths", nargs=-1, metavar="[PV...]")
@click.option("-L", "--size", help="The new size; +size to add, -size to take away.")
@click.option("-l", "--extents", help="Likewise in extents or per cent.")
@stripe_options
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-n", "--nofsck", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def lvresize(
    context: Context,
    name: str | None,
    pv_paths: tuple[str, ...],
    size: str | None,
    extents: str | None,
    stripes: int | None,
    stripesize: str | None,
    force: bool,
    nofsck: bool,
) -> None:
    """Give a volume another size."""
    session = context.session()
    request = _request("lvresize", size, extents, "+-")
    vg_name, lv_name = _find(session, "lvresize", name)
    shape = parse_stripes(stripes, stripesize)
    _resize(session, vg_name, lv_name, request, pv_paths, shape, grow=None, force=force)


def _find(session: Session, command: str, name: str | None) -> tuple[str, str]:
    """(VG, LV); NotFoundError in the words of these commands."""
    if name is None:
        raise no_such_syntax(command)
    vg_name, lv_name = split_volume(name, session.host.run_dir)
    if lv_name is None:
        raise UsageError("Please specify a logical volume path.")
    lv = session.find_vg(vg_name).lv(lv_name)
    if lv is None or lv.snapshot_segment is not None:
        raise NotFoundError(f"Logical volume {lv_name} not found in volume group {vg_name}.")
    return vg_name, lv_name


def _request(command: str, size: str | None, extents: str | None, signs: str) -> SizeRequest:
    if size is None and extents is None:
        raise no_such_syntax(command)
    if size is not None and extents is not None:
        raise UsageError("Please specify either size or extents but not both.")
    if size is not None:
        return parse_size(size, signs=signs)
    return parse_extents(extents or "", signs=signs)


def _wanted(
    session: Session,
    vg: VolumeGroup,
    lv: LogicalVolume,
    request: SizeRequest,
    pv_paths: tuple[str, ...],
) -> int:
    """The new number of extents. What is to be taken away is rounded down, so that nobody loses
    more than was said; per cent of what is free are cut to what is there."""
    have = lv.extent_count
    if request.percent is not None:
        pv_free = free_in(vg, places_of(session, vg, pv_paths))
        found = request.for_resize(vg, lv, pv_free=pv_free)
        if request.sign != "-":
            room = vg.free_count if pv_free is None else pv_free
            base = 0 if request.sign == "+" else have
            if found > base + room and room:
                found = reduced(session, vg, request, have + room) - have + base
    else:
        found, rounded = request.count(vg.extent_size)
        if rounded:
            found -= request.sign == "-"
            text = display_size(found * vg.extent_size)
            session.say(f"Rounding size to boundary between physical extents: {text}.")
    return {"+": have + found, "-": have - found, "": found}[request.sign]


def _resize(
    session: Session,
    vg_name: str,
    lv_name: str,
    request: SizeRequest,
    pv_paths: tuple[str, ...],
    shape: Stripes,
    *,
    grow: bool | None,
    force: bool,
) -> None:
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        lv = lvm_lv.get(vg, lv_name)
        have = lv.extent_count
        wanted = _wanted(session, vg, lv, request, pv_paths)
        wanted = _whole_stripes(session, lv, wanted, shape, down=request.percent is not None)
        if wanted <= 0:
            raise RefusedError(f"Unable to reduce {vg_name}/{lv_name} below 1 extent.")
        if wanted == have:
            raise RefusedError(
                f"New size ({wanted} extents) matches existing size ({have} extents)."
            )
        if grow is True and wanted < have:
            raise RefusedError(
                f"New size given ({wanted} extents) not larger than existing size ({have} extents)"
            )
        if grow is False and wanted > have:
            raise RefusedError(
                f"New size given ({wanted} extents) not less than existing size ({have} extents)"
            )
        if wanted > have:
            _grow(session, vg, lv, wanted, pv_paths, shape)
        else:
            _cut(session, vg, lv, wanted, force)


def _whole_stripes(
    session: Session, lv: LogicalVolume, wanted: int, shape: Stripes, *, down: bool
) -> int:
    """So many extents that the last segment's stripes are of one length: more, or with `down` in
    growing fewer."""
    start, width = lv.extent_count, 1
    last = lv.segments[-1]
    if wanted > start:
        if isinstance(last, StripedSegment) and len(last.areas) > 1:
            width = len(last.areas)
            if shape.number is None and shape.size is None:
                size = display_size(last.stripe_size)
                session.say(f"Using stripesize of last segment {size}")
        width = shape.number or width
    else:
        down = False
        for segment in lv.segments:
            if segment.start_extent < wanted and isinstance(segment, StripedSegment):
                start, width = segment.start_extent, len(segment.areas)
    rest = (wanted - start) % width
    if not rest:
        return wanted
    if down:
        return wanted - rest
    rounded = wanted + width - rest
    session.say(
        f"Rounding size ({wanted} extents) up to stripe boundary size for segment "
        f"({rounded} extents)."
    )
    return rounded


def _grow(
    session: Session,
    vg: VolumeGroup,
    lv: LogicalVolume,
    wanted: int,
    pv_paths: tuple[str, ...],
    shape: Stripes,
) -> None:
    have = lv.extent_count
    snap = vg.snapshot_of(lv.name)
    if snap is not None:
        most = cow_max_extents(vg, snap.origin, snap.chunk_size)
        if wanted > most:
            size = display_size(most * vg.extent_size)
            session.say(f"Reached maximum COW size {size} ({most} extents).")
            wanted = most
        if wanted <= have:
            return
    lvm_lv.extend(
        session,
        vg.name,
        lv.name,
        wanted,
        pv_paths=pv_paths,
        stripes=shape.number,
        stripe_size=shape.size,
    )
    _say_changed(session, vg, lv.name, have, wanted)


def _cut(session: Session, vg: VolumeGroup, lv: LogicalVolume, wanted: int, force: bool) -> None:
    if vg.is_origin(lv.name):
        raise RefusedError("Snapshot origin volumes cannot be reduced in size yet.")
    active = lvm_lv.states(session, vg)
    if lv.name in active:
        size = display_size(wanted * vg.extent_size)
        state = active[lv.name]
        word = "active and open" if state.open_count else "active"
        session.warn(f"WARNING: Reducing {word} logical volume to {size}.")
        session.warn("THIS MAY DESTROY YOUR DATA (filesystem etc.)")
        name = f"{vg.name}/{lv.name}"
        if not force and not session.ask(f"Do you really want to reduce {name}?"):
            raise RefusedError(f"Logical volume {name} NOT reduced.")
    lvm_lv.reduce(session, vg.name, lv.name, wanted)
    _say_changed(session, vg, lv.name, lv.extent_count, wanted)


def _say_changed(session: Session, vg: VolumeGroup, name: str, before: int, after: int) -> None:
    session.say(
        f"Size of logical volume {vg.name}/{name} changed from {lvm_lv.size_words(vg, before)} "
        f"to {lvm_lv.size_words(vg, after)}."
    )
    session.say(f"Logical volume {vg.name}/{name} successfully resized.")


def _by_policy(session: Session, vg_name: str, lv_name: str) -> None:
    """As dmeventd's plugin asks for; see `vgstore.policy`."""
    policy = SnapshotPolicy.of(session.host.config)
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        lv = lvm_lv.get(vg, lv_name)
        state = lvm_lv.states(session, vg).get(lv_name)
        if state is None or state.status is None:
            raise RefusedError(f"Can't read state of locally inactive LV {vg_name}/{lv_name}.")
        full = percent(state.status)
        if full is None or not policy.wants(float(full)):
            return
        if policy.percent <= 0:
            raise RefusedError(
                f"Can't extend {vg_name}/{lv_name} with snapshot autoextend percent set to 0%."
            )
        wanted = policy.wanted(lv.extent_count, float(full))
        # What room there is, rather than nothing; without any the refusal names the full wish.
        room = vg.free_count and lv.extent_count + vg.free_count
        _grow(session, vg, lv, min(wanted, room or wanted), (), Stripes(None, None))
