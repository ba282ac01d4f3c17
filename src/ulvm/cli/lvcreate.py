"""lvcreate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from ulvm.cli.arguments import (
    ALLOC,
    PERMISSION,
    READ_AHEAD,
    YES_NO,
    Number,
    SegmentType,
    Stripes,
    no_such_syntax,
    parse_stripes,
    stripe_options,
    wants_active,
)
from ulvm.cli.common_options import (
    backup_option,
    common_options,
    metadata_profile_option,
    udev_option,
)
from ulvm.cli.context import Context
from ulvm.dm_ioctl import DM_MAJOR
from ulvm.errors import RefusedError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import snapshot as lvm_snapshot
from ulvm.lvm.convert import create_sparse
from ulvm.lvm.names import split_volume
from ulvm.lvm.places import free_in, places_of
from ulvm.lvm.resize import default_stripe
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import SizeRequest, parse_extents, parse_sectors, parse_size
from ulvm.metadata.cow import check_chunk_size
from ulvm.metadata.edit import check_new
from ulvm.metadata.lv_edit import Properties
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_new_lv_name, check_tag, name_problem
from ulvm.metadata.segments import stripe_width
from ulvm.units import display_size

__all__ = ["check_numbers", "lvcreate", "whole_pages"]

TYPE = SegmentType("linear", "striped", "snapshot", "error", "zero")
MAX_MINOR = (1 << 20) - 1
PAGE = 8
"""Sectors."""


@click.command()
@click.argument("names", nargs=-1, metavar="VG|ORIGIN [PV[:RANGE]...]")
@click.option("-L", "--size", help="Size: a number and one of bskmgtpe (default m).")
@click.option("-l", "--extents", help="Extents, or N%VG, N%FREE, N%PVS, N%ORIGIN.")
@click.option("-n", "--name", help="Name of the new volume; lvolN by default.")
@click.option("-s", "--snapshot", is_flag=True, help="Make a snapshot of ORIGIN.")
@click.option(
    "-V",
    "--virtualsize",
    help="Size of a sparse volume, which takes space (-L, -l) for what is written only.",
)
@click.option("--type", "kind", type=TYPE, help="Segment type.")
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
@click.option("--alloc", type=ALLOC, help="Allocation policy; the VG's by default.")
@click.option("-C", "--contiguous", type=YES_NO, help="The same as --alloc contiguous.")
@stripe_options
@click.option(
    "-r", "--readahead", type=READ_AHEAD, default="auto", help="Sectors, or auto, or none."
)
@click.option(
    "-k",
    "--setactivationskip",
    type=YES_NO,
    default="n",
    help="y: plain activation leaves the volume out.",
)
@click.option("-K", "--ignoreactivationskip", is_flag=True, help="Activate it even so.")
@click.option("--setautoactivation", type=YES_NO, help="n: -aay leaves the volume out.")
@click.option("-M", "--persistent", type=YES_NO, help="y: with --minor, always that number.")
@click.option("--minor", type=Number(), help="Minor number of the device.")
@click.option("-j", "--major", type=Number(), help="Major number; has no meaning here.")
@click.option("--monitor", type=YES_NO, expose_value=False, hidden=True)
@click.option("--nosync", is_flag=True, hidden=True)
@click.option("-m", "--mirrors", type=Number(), hidden=True)
@click.option("--ignoremonitoring", is_flag=True, expose_value=False, hidden=True)
@udev_option
@backup_option
@metadata_profile_option
@common_options
@click.pass_obj
def lvcreate(
    context: Context,
    names: tuple[str, ...],
    size: str | None,
    extents: str | None,
    name: str | None,
    snapshot: bool,
    virtualsize: str | None,
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
    readahead: int,
    setactivationskip: str,
    ignoreactivationskip: bool,
    setautoactivation: str | None,
    persistent: str | None,
    minor: int | None,
    major: int | None,
    mirrors: int | None,
    nosync: bool,
) -> None:
    """Create a logical volume in VG, or a snapshot of ORIGIN.

    \b
    lvcreate -L 10G -n data vg              a linear volume
    lvcreate -l 50%FREE -n data vg /dev/sdb:0-999   on these extents of that disk
    lvcreate -i 2 -L 10G -n fast vg         a volume striped over two PVs
    lvcreate -s -L 1G -n snap vg/data       a snapshot with room for 1 GiB of changes
    lvcreate -s -l 100%ORIGIN -n fork vg/data   one that cannot overflow
    lvcreate -V 1T -L 10G -n sparse vg      a volume of 1 TiB with room for 10 GiB
    """  # fmt: skip
    session = context.session()
    is_snapshot = snapshot or kind == "snapshot" or virtualsize is not None
    if snapshot and kind not in (None, "snapshot"):
        raise UsageError("Command does not accept option: --snapshot.")
    if virtualsize is not None and (kind not in (None, "snapshot") or stripes is not None):
        raise UsageError(f"Command does not accept option: --virtualsize {virtualsize}.")
    if chunksize and not is_snapshot:
        raise UsageError(f"Command does not accept option: --chunksize {chunksize}.")
    for option, value in (
        ("zero", zero),
        ("wipesignatures", wipesignatures),
        ("setautoactivation", setautoactivation),
    ):
        if is_snapshot and value is not None:
            raise UsageError(f"Option --{option} is unsupported with snapshots.")
    wants_active(activate)
    if nosync:
        raise UsageError(
            "Option --nosync is unsupported with snapshots."
            if is_snapshot
            else "--nosync is supported only with mirrors or raids."
        )
    # Copies are for types that are not here: none is what a volume has.
    if mirrors is not None and (mirrors or kind not in (None, "linear", "snapshot")):
        raise UsageError(f"Command does not accept option: --mirrors {mirrors}.")
    if stripes is not None and kind in ("linear", "error", "zero"):
        raise UsageError(f"Command does not accept option: --stripes {stripes}.")
    if stripesize is not None and stripes is None and not is_snapshot:
        raise UsageError(f"Command does not accept option: --stripesize {stripesize}.")
    if alloc not in (None, "contiguous") and contiguous == "y":
        raise UsageError("Conflicting contiguous and alloc arguments.")
    if name is not None:
        _check_name(name)
    if names and is_snapshot and virtualsize is None:
        _check_origin(names[0])
    shape = parse_stripes(stripes, stripesize)
    if virtualsize is not None and size is None and extents is None:
        raise no_such_syntax("lvcreate")
    request = _new_size(size, extents, is_snapshot)
    chunk = lvm_snapshot.DEFAULT_CHUNK
    if chunksize:
        chunk = parse_sectors(chunksize, "--chunksize", unit="k")
        check_chunk_size(chunk)
    virtual = None
    if virtualsize is not None:
        virtual = parse_sectors(virtualsize, "--virtualsize")
    with_origin = is_snapshot and virtual is None
    vg_name, origin, chosen, pv_paths = _place(session, names, name, with_origin)
    if persistent == "y" and minor is None:
        raise RefusedError("Please specify minor number with --minor when using -My.")
    check_numbers(session, major, minor)
    skip = setactivationskip == "y"
    active = wants_active(activate) and (is_snapshot or not skip or ignoreactivationskip)
    if not active and (zero == "y" or wipesignatures == "y"):
        # No failure to LVM2, though nothing is made.
        session.warn("Cannot zero inactive logical volume with option -Zy or -Wy.")
        return
    properties = Properties(
        tags=tuple(check_tag(tag) for tag in addtag),
        read_only=permission == "r",
        policy=("contiguous" if contiguous == "y" else alloc),
        read_ahead=whole_pages(session, readahead),
        skip_activation=skip,
        autoactivation=setautoactivation != "n",
        minor=minor if persistent != "n" else None,
        major=None if minor is None or persistent == "n" else DM_MAJOR,
        profile=context.settings.metadata_profile,
    )
    count = _whole_stripes(
        session, request, pv_paths, shape, _count(session, request, pv_paths, origin, chunk), chosen
    )
    if mirrors is not None and not is_snapshot:
        session.say("Redundant mirrors argument: default is 0")
    approximate = request.percent is not None
    if origin is not None:
        made, _ = lvm_snapshot.create(
            session,
            vg_name,
            origin,
            chosen,
            extents=count,
            chunk_size=chunk,
            properties=properties,
            pv_paths=pv_paths,
            stripes=shape.number or 1,
            stripe_size=shape.size or default_stripe(session),
            approximate=approximate,
        )
    elif virtual is not None:
        made = create_sparse(
            session,
            vg_name,
            chosen,
            virtual_sectors=virtual,
            extents=count,
            chunk_size=chunk,
            properties=properties,
            pv_paths=pv_paths,
            active=active,
            approximate=approximate,
        )
    elif kind in ("error", "zero"):
        made = lvm_lv.create_virtual(
            session,
            vg_name,
            chosen,
            type_name=kind,
            extents=count,
            properties=properties,
            active=active,
        )
    else:
        # What is activated by a list is not wiped: LVM2 does not know whether it will be active.
        wiped = activate not in ("ay", "aay")
        made = lvm_lv.create(
            session,
            vg_name,
            chosen,
            extents=count,
            pv_paths=pv_paths,
            properties=properties,
            active=active,
            auto=not wiped,
            zero=wiped and zero != "n",
            wipe_signatures=wiped and _wipes(session, wipesignatures, zero),
            stripes=shape.number or 1,
            stripe_size=shape.size or default_stripe(session),
            approximate=approximate,
        )
    session.say(f'Logical volume "{made}" created.')


def check_numbers(session: Session, major: int | None, minor: int | None) -> None:
    """RefusedError for a minor number that no device can have; a major number is not chosen."""
    if major is not None:
        session.warn(
            f"WARNING: Ignoring supplied major number {major} - kernel assigns major numbers "
            f"dynamically. Using major number {DM_MAJOR} instead."
        )
    if minor is not None and minor > MAX_MINOR:
        raise RefusedError(f"Minor number {minor} outside range 0-{MAX_MINOR}.")


def whole_pages(session: Session, sectors: int) -> int:
    """What -r says, at least a page and a multiple of pages; auto and none as they are."""
    if sectors <= 0 or not sectors % PAGE:
        return sectors
    rounded = -(-sectors // PAGE) * PAGE if sectors < PAGE else sectors // PAGE * PAGE
    session.warn(f"WARNING: Overriding readahead to {rounded} sectors, a multiple of 4K page size.")
    return rounded


def _wipes(session: Session, asked: str | None, zero: str | None) -> bool:
    """-W, else whether what is zeroed is looked through."""
    if asked is not None:
        return asked == "y"
    setting = "allocation/wipe_signatures_when_zeroing_new_lvs"
    return zero != "n" and session.host.config.get_bool(setting, True)


def _check_name(name: str) -> None:
    """UsageError for what no volume may be called, before anything else is looked at."""
    group, slash, volume = name.rpartition("/")
    if slash and group and name_problem(volume) is not None:
        raise UsageError(f'Logical volume name "{volume}" is invalid.')
    check_new_lv_name(volume if slash else name)


def _check_origin(word: str) -> None:
    """UsageError for what no volume can be called."""
    group, slash, volume = word.removeprefix("/dev/").rpartition("/")
    if slash and "/" not in group and name_problem(volume) is not None:
        raise UsageError(f'Logical volume name "{volume}" is invalid.')


def _place(
    session: Session, names: tuple[str, ...], name: str | None, with_origin: bool
) -> tuple[str, str | None, str | None, list[str]]:
    """(VG, origin, name, PV paths) of lvcreate's arguments."""
    words = list(names)
    run_dir, default = session.host.run_dir, session.host.default_vg
    if not words and (with_origin or (not default and (name is None or "/" not in name))):
        raise no_such_syntax("lvcreate")
    group_of_name, chosen = "", name
    if name is not None and "/" in name:
        group_of_name, chosen = split_volume(name, run_dir)
    origin = None
    if with_origin:
        group, origin = split_volume(words.pop(0), run_dir, default or group_of_name)
        if origin is None:
            raise UsageError("The origin name should include the volume group.")
        if group_of_name and group != group_of_name:
            raise UsageError(
                f'Please use a single volume group name ("{group}" or "{group_of_name}").'
            )
    elif words:
        group, extra = split_volume(words.pop(0), run_dir)
        if extra is not None:
            raise UsageError("Volume group name expected (no slash)")
        if group_of_name and group != group_of_name:
            raise UsageError(
                f'Inconsistent volume group names given: "{group_of_name}" and "{group}"'
            )
    else:
        group = group_of_name or default
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


def _count(
    session: Session,
    request: SizeRequest,
    pv_paths: Sequence[str],
    origin: str | None,
    chunk_size: int,
) -> Callable[[VolumeGroup], int]:
    """How many extents a request is in the VG as it is found under the lock. Of per cent, as much
    is given as there is."""

    def count(vg: VolumeGroup) -> int:
        if request.percent is not None:
            pv_free = free_in(vg, places_of(session, vg, pv_paths))
            found = request.for_new(vg, origin=origin, chunk_size=chunk_size, pv_free=pv_free)
            if request.whole == "VG" and found > vg.free_count > 0:
                found = vg.free_count
                size = display_size(found * vg.extent_size)
                session.say(f"Reducing {request.percent}%VG to remaining free space {size} in VG.")
            if not found:
                raise RefusedError(
                    "Calculated size of logical volume is 0 extents. Needs to be larger."
                )
            return found
        extents, rounded = request.in_extents(vg.extent_size)
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
    name: str | None,
) -> Callable[[VolumeGroup], int]:
    """The extents that `count` finds, rounded to whole stripes: up, but per cent down where up is
    more than is free. That the name is taken is told before anything of these."""
    stripes = shape.number or 1
    if stripes == 1:
        if shape.size is not None:
            session.say("Ignoring stripesize argument with single stripe.")
        return count
    size = shape.size or default_stripe(session)
    if shape.size is None:
        session.say(f"Using default stripesize {display_size(size)}.")

    def whole(vg: VolumeGroup) -> int:
        if name is not None:
            check_new(vg, name)
        if size > vg.extent_size:
            session.say(
                f"Reducing requested stripe size {display_size(size)} to maximum, "
                f"physical extent size {display_size(vg.extent_size)}."
            )
        extents = count(vg)
        width = stripe_width(vg, stripes, min(size, vg.extent_size))
        rest = extents % width
        up = extents - rest + width
        if rest and request.percent is not None and up > vg.free_count:
            down = extents - rest
            session.say(
                f"Rounding size ({extents} extents) down to stripe boundary size ({down} extents)"
            )
            extents = down
        elif rest:
            session.say(
                f"Rounding size {lvm_lv.size_words(vg, extents)} up to stripe boundary size "
                f"{lvm_lv.size_words(vg, up)}."
            )
            extents = up
        places = places_of(session, vg, pv_paths)
        pvs = len(vg.pvs) if places is None else len(places)
        if stripes > pvs:
            raise RefusedError(
                f"Number of stripes ({stripes}) must not exceed number of physical volumes ({pvs})"
            )
        return extents

    return whole
