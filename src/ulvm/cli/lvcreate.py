"""lvcreate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from ulvm.cli.arguments import (
    PERMISSION,
    YES_NO,
    OneOf,
    Stripes,
    no_such_syntax,
    parse_stripes,
    stripe_options,
    wants_active,
)
from ulvm.cli.context import Context, common_options
from ulvm.errors import RefusedError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import snapshot as lvm_snapshot
from ulvm.lvm.names import split_volume
from ulvm.lvm.places import free_in, places_of
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import SizeRequest, parse_extents, parse_sectors, parse_size
from ulvm.metadata.allocate import most_striped
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_new_lv_name, check_tag
from ulvm.units import display_size

__all__ = ["lvcreate", "reduced"]

_TYPES = ("linear", "striped", "snapshot", "error", "zero")
_DEFAULT_STRIPE = 128
"""Sectors: 64 KiB."""


@click.command()
@click.argument("names", nargs=-1, metavar="VG|ORIGIN [PV...]")
@click.option("-L", "--size", help="Size: a number and one of bskmgtpe (default m).")
@click.option("-l", "--extents", help="Extents, or N%VG, N%FREE, N%PVS, N%ORIGIN.")
@click.option("-n", "--name", help="Name of the new volume; lvolN by default.")
@click.option("-s", "--snapshot", is_flag=True, help="Make a snapshot of ORIGIN.")
@click.option("--type", "kind", type=OneOf(*_TYPES), help="Segment type.")
@click.option("-c", "--chunksize", help="Chunk size of a snapshot, 4k to 512k (default 4k).")
@click.option("-p", "--permission", type=PERMISSION, default="rw", help="Read only or read-write.")
@click.option("-a", "--activate", default="y", help="y or n (default y).")
@click.option("-Z", "--zero", type=YES_NO, help="Zero the first 4 KiB (default y).")
@click.option(
    "-W",
    "--wipesignatures",
    type=YES_NO,
    help="Wipe signatures of file systems and the like (default: as -Z).",
)
@click.option("--addtag", multiple=True, help="Tag of the new volume.")
@click.option(
    "--alloc",
    type=OneOf("contiguous", "cling", "normal", "anywhere"),
    help="Allocation policy; the VG's by default.",
)
@click.option("-C", "--contiguous", type=YES_NO, help="The same as --alloc contiguous.")
@stripe_options
@click.option("-k", "--setactivationskip", type=OneOf("n"), expose_value=False, hidden=True)
@click.option("-K", "--ignoreactivationskip", is_flag=True, expose_value=False, hidden=True)
@click.option("--monitor", type=YES_NO, expose_value=False, hidden=True)
@click.option("--ignoremonitoring", is_flag=True, expose_value=False, hidden=True)
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
    zero: str | None,
    wipesignatures: str | None,
    addtag: tuple[str, ...],
    alloc: str | None,
    contiguous: str | None,
    stripes: int | None,
    stripesize: str | None,
) -> None:
    """Create a logical volume in VG, or a snapshot of ORIGIN.

    \b
    lvcreate -L 10G -n data vg              a linear volume
    lvcreate -i 2 -L 10G -n fast vg         a volume striped over two PVs
    lvcreate -s -L 1G -n snap vg/data       a snapshot with room for 1 GiB of changes
    lvcreate -s -l 100%ORIGIN -n fork vg/data   one that cannot overflow
    """  # fmt: skip
    session = context.session()
    is_snapshot = snapshot or kind == "snapshot"
    if snapshot and kind == "linear":
        raise UsageError("Command does not accept option: --snapshot.")
    if chunksize and not is_snapshot:
        raise UsageError(f"Command does not accept option: --chunksize {chunksize}.")
    for option, value in (("zero", zero), ("wipesignatures", wipesignatures)):
        if is_snapshot and value is not None:
            raise UsageError(f"Option --{option} is unsupported with snapshots.")
    if stripes is not None and kind in ("linear", "error", "zero"):
        raise UsageError(f"Command does not accept option: --stripes {stripes}.")
    if stripesize is not None and stripes is None:
        raise UsageError(f"Command does not accept option: --stripesize {stripesize}.")
    shape = parse_stripes(stripes, stripesize)
    request = _new_size(size, extents, is_snapshot)
    chunk = lvm_snapshot.DEFAULT_CHUNK
    if chunksize:
        chunk = parse_sectors(chunksize, "--chunksize", unit="k")
    vg_name, origin, chosen, pv_paths = _place(session, names, name, is_snapshot)
    policy = "contiguous" if contiguous == "y" else alloc
    tags = [check_tag(tag) for tag in addtag]
    active = wants_active(activate)
    if origin is not None:
        made, _ = lvm_snapshot.create(
            session,
            vg_name,
            origin,
            chosen,
            extents=_count(session, request, pv_paths, origin, chunk),
            chunk_size=chunk,
            read_only=permission == "r",
            tags=tags,
            pv_paths=pv_paths,
            policy=policy,
        )
    elif kind in ("error", "zero"):
        made = lvm_lv.create_virtual(
            session,
            vg_name,
            chosen,
            type_name=kind,
            extents=_count(session, request, pv_paths, None, chunk),
            tags=tags,
            active=active,
        )
    else:
        count = _count(session, request, pv_paths, None, chunk)
        made = lvm_lv.create(
            session,
            vg_name,
            chosen,
            extents=_whole_stripes(session, request, pv_paths, shape, count),
            pv_paths=pv_paths,
            read_only=permission == "r",
            tags=tags,
            policy=policy,
            active=active,
            zero=zero != "n",
            wipe_signatures=(wipesignatures or zero) != "n",
            stripes=shape.number or 1,
            stripe_size=shape.size or _DEFAULT_STRIPE,
        )
    session.say(f'Logical volume "{made}" created.')


def _place(
    session: Session, names: tuple[str, ...], name: str | None, is_snapshot: bool
) -> tuple[str, str | None, str | None, list[str]]:
    """(VG, origin, name, PV paths) of lvcreate's arguments."""
    words = list(names)
    run_dir = session.host.run_dir
    if not words and (is_snapshot or name is None or "/" not in name):
        raise no_such_syntax("lvcreate")
    origin = None
    if is_snapshot:
        group, origin = split_volume(words.pop(0), run_dir)
        if origin is None:
            raise UsageError("The origin name should include the volume group.")
    elif words:
        group, extra = split_volume(words.pop(0), run_dir)
        if extra is not None:
            raise UsageError("Volume group name expected (no slash)")
    else:
        group = ""
    chosen = name
    if name is not None:
        if "/" in name:
            group_of_name, chosen = split_volume(name, run_dir)
            group = group or group_of_name
            if group != group_of_name:
                raise UsageError(
                    f'Inconsistent volume group names given: "{group_of_name}" and "{group}"'
                )
        check_new_lv_name(chosen or "")
    return group, origin, chosen, words


def _new_size(size: str | None, extents: str | None, is_snapshot: bool) -> SizeRequest:
    if size is not None and extents is not None:
        raise UsageError("Please specify either size or extents (not both).")
    if size is None and extents is None:
        if is_snapshot:
            raise RefusedError("Please specify either size or extents with snapshots.")
        raise no_such_syntax("lvcreate")
    # LVM takes a + here, and gives it no meaning.
    if size is not None:
        return parse_size(size, signs="+")
    return parse_extents(extents or "", signs="+")


def reduced(session: Session, vg: VolumeGroup, request: SizeRequest, extents: int) -> int:
    """Per cent are what the user would like: of what does not fit the rest is left out."""
    size = display_size(extents * vg.extent_size)
    session.say(f"Reducing {request.percent}%{request.whole} to remaining free space {size} in VG.")
    return extents


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
            pv_free = free_in(vg, places_of(session, vg, pv_paths))
            found = request.for_new(vg, origin=origin, chunk_size=chunk_size, pv_free=pv_free)
            free = vg.free_count if pv_free is None else pv_free
            if origin is None and found > free > 0:
                found = reduced(session, vg, request, free)
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


def _whole_stripes(
    session: Session,
    request: SizeRequest,
    pv_paths: Sequence[str],
    shape: Stripes,
    count: Callable[[VolumeGroup], int],
) -> Callable[[VolumeGroup], int]:
    """The extents that `count` finds, rounded to a multiple of the stripes: up, but of per cent,
    where it is what fits, down."""
    stripes = shape.number or 1
    if stripes == 1:
        if shape.size is not None:
            session.say("Ignoring stripesize argument with single stripe.")
        return count

    def whole(vg: VolumeGroup) -> int:
        if shape.size is None:
            session.say(f"Using default stripesize {display_size(_DEFAULT_STRIPE)}.")
        elif shape.size > vg.extent_size:
            session.say(
                f"Reducing requested stripe size {display_size(shape.size)} to maximum, "
                f"physical extent size {display_size(vg.extent_size)}."
            )
        places = places_of(session, vg, pv_paths)
        pvs = len(vg.pvs) if places is None else len(places)
        if stripes > pvs:
            raise RefusedError(
                f"Number of stripes ({stripes}) must not exceed number of physical volumes ({pvs})"
            )
        extents = count(vg)
        if request.percent is not None:
            return min(extents, most_striped(vg, stripes, places)) // stripes * stripes
        rounded = -(-extents // stripes) * stripes
        if rounded != extents:
            session.say(
                f"Rounding size {lvm_lv.size_words(vg, extents)} up to stripe boundary size "
                f"{lvm_lv.size_words(vg, rounded)}."
            )
        return rounded

    return whole
