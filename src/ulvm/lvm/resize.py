"""Another size for a volume (lvextend, lvreduce, lvresize): what is wanted, and the way there.

Sizes are reckoned under the VG's lock, from the VG as it is. Per cent of what is free, and per cent
without a sign of VG or PVs, are what the user would like: as much of it is given as there is. All
else is given whole or refused.

With a file system (`lvm.filesystems`) the volume grows before it and is cut after it, so at every
moment the volume is at least as long as what stands on it: a crash between the two steps leaves a
volume that is longer than its file system, and the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ulvm.errors import RefusedError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.places import free_in, places_of
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import SizeRequest
from ulvm.metadata.cow import cow_max_extents
from ulvm.metadata.model import LogicalVolume, StripedSegment, VolumeGroup
from ulvm.metadata.segments import PvExtents, stripe_width
from ulvm.units import display_size

__all__ = [
    "Resize",
    "Target",
    "apply",
    "default_stripe",
    "grow_to",
    "last_stripes",
    "last_width",
    "target",
    "whole_stripes",
]

_MIN_STRIPE = 8
"""Sectors: a page."""


@dataclass(frozen=True, slots=True)
class Resize:
    """What was asked for. `grow`: None for either direction, else the only one allowed. `size`
    None: by all that is free on the PVs. `stripe_size` in sectors."""

    size: SizeRequest | None
    grow: bool | None
    pv_words: Sequence[str] = ()
    stripes: int | None = None
    stripe_size: int | None = None
    policy: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What that comes to: extents now and then, and how the new ones are to be laid out."""

    have: int
    wanted: int
    stripes: int | None
    stripe_size: int | None
    approximate: bool


def target(session: Session, vg: VolumeGroup, lv: LogicalVolume, asked: Resize) -> Target:
    """RefusedError with LVM's sentence where it cannot be; nothing is changed. The VG's lock is
    held."""
    name = f"{vg.name}/{lv.name}"
    have = lv.extent_count
    asked = _fitting(session, vg, asked)
    places = places_of(session, vg, asked.pv_words)
    wanted, approximate = _extents(session, vg, lv, asked, places)
    if wanted <= 0:
        raise RefusedError(f"Unable to reduce {name} below 1 extent.")
    if wanted < have and (asked.stripes or asked.stripe_size):
        session.say("Ignoring stripes, stripesize and mirrors arguments when reducing.")
    if wanted == have:
        raise RefusedError(f"New size ({wanted} extents) matches existing size ({have} extents).")
    stripes, stripe_size = asked.stripes, asked.stripe_size
    if wanted < have:
        wanted = _whole_rest(session, vg, lv, wanted)
    else:
        stripes, stripe_size = _shape(session, lv, asked)
        width = stripe_width(vg, stripes or 1, stripe_size or 0)
        room = vg.free_count if approximate else None
        wanted = whole_stripes(session, lv, wanted, width, room=room)
    if wanted == have:
        raise RefusedError(f"New size ({wanted} extents) matches existing size ({have} extents)")
    if asked.grow is True and wanted < have:
        raise RefusedError(
            f"New size given ({wanted} extents) not larger than existing size ({have} extents)"
        )
    if asked.grow is False and wanted > have:
        raise RefusedError(
            f"New size given ({wanted} extents) not less than existing size ({have} extents)"
        )
    return Target(have, wanted, stripes, stripe_size, approximate)


def _fitting(session: Session, vg: VolumeGroup, asked: Resize) -> Resize:
    """With a stripe size that is no longer than an extent: what is asked for is cut, and said."""
    size = asked.stripe_size
    if size is None:
        return asked
    if size > vg.extent_size:
        session.say(
            f"Reducing stripe size {display_size(size)} to maximum, "
            f"physical extent size {display_size(vg.extent_size)}."
        )
        size = vg.extent_size
    if size & (size - 1):
        raise RefusedError("Stripe size must be power of 2.")
    return replace(asked, stripe_size=size)


def _extents(
    session: Session,
    vg: VolumeGroup,
    lv: LogicalVolume,
    asked: Resize,
    places: Sequence[PvExtents] | None,
) -> tuple[int, bool]:
    """(new number of extents, whether fewer will do). What is to be taken away is rounded down, so
    that nobody loses more than was said."""
    have = lv.extent_count
    request = asked.size
    if request is None:
        return have + (free_in(vg, places) or 0), False
    if request.percent is None:
        found, rounded = request.in_extents(vg.extent_size)
        if rounded:
            found -= request.sign == "-"
            text = display_size(found * vg.extent_size)
            session.say(f"Rounding size to boundary between physical extents: {text}.")
        return {"+": have + found, "-": have - found, "": found}[request.sign], False
    found = request.for_resize(vg, lv, pv_free=free_in(vg, places))
    if request.sign == "-":
        return have - found, False
    if request.whole == "FREE":
        return (have + found if request.sign else found), True
    if request.sign:
        return have + found, False
    most = have + vg.free_count
    if request.whole in ("VG", "PVS") and found > most:
        if request.whole == "VG":
            size = display_size(most * vg.extent_size)
            session.say(f"Reducing {request.percent}%VG to remaining free space {size} in VG.")
        return most, True
    return found, request.whole in ("VG", "PVS")


def _shape(session: Session, lv: LogicalVolume, asked: Resize) -> tuple[int | None, int | None]:
    """Stripes and their size for what comes behind the last extent: as before where all before is
    alike."""
    segments = [s for s in lv.segments if isinstance(s, StripedSegment)]
    counts = {len(s.areas) for s in segments}
    sizes = {s.stripe_size for s in segments if s.stripe_size}
    if asked.stripes is None and (len(counts) > 1 or len(sizes) > 1):
        raise RefusedError("Please specify number of stripes (-i) and stripesize (-I)")
    stripes = asked.stripes or (len(segments[-1].areas) if segments else 1)
    if stripes == 1:
        return asked.stripes, None
    if asked.stripe_size is not None:
        if asked.stripe_size < _MIN_STRIPE:
            raise RefusedError(f"Invalid stripe size {display_size(asked.stripe_size)}.")
        return stripes, asked.stripe_size
    last = segments[-1].stripe_size if segments else 0
    if last:
        session.say(f"Using stripesize of last segment {display_size(last)}")
        return stripes, last
    session.say(f"Using default stripesize {display_size(default_stripe(session))}")
    return stripes, default_stripe(session)


def last_stripes(lv: LogicalVolume) -> int:
    """Of the volume's last segment, which new extents follow unless something else was said."""
    last = lv.segments[-1]
    return len(last.areas) if isinstance(last, StripedSegment) else 1


def last_width(vg: VolumeGroup, lv: LogicalVolume) -> int:
    """Extents of which new ones must be a multiple that go on as the volume's last segment does."""
    last = lv.segments[-1]
    size = last.stripe_size if isinstance(last, StripedSegment) else 0
    return stripe_width(vg, last_stripes(lv), size)


def whole_stripes(
    session: Session, lv: LogicalVolume, wanted: int, width: int, *, room: int | None
) -> int:
    """So many extents that what is new is a multiple of `width`: more, unless there is not room
    for that (`room`: free extents, where fewer will do)."""
    rest = (wanted - lv.extent_count) % width
    if not rest:
        return wanted
    up, down = wanted + width - rest, wanted - rest
    if room is not None and up - lv.extent_count > room:
        session.say(
            f"Rounding size ({wanted} extents) down to stripe boundary size for segment "
            f"({down} extents)"
        )
        return down
    _say_up(session, wanted, up)
    return up


def _whole_rest(session: Session, vg: VolumeGroup, lv: LogicalVolume, wanted: int) -> int:
    """So many extents that what is left of the last segment has whole stripes. One that never had
    such stays as it is: by more than its end a reduction would be a growth, or cut the next."""
    last = next(s for s in lv.segments if wanted <= s.start_extent + s.extent_count)
    if not isinstance(last, StripedSegment):
        return wanted
    width = stripe_width(vg, len(last.areas), last.stripe_size)
    whole = wanted + -(wanted - last.start_extent) % width
    up = min(whole, last.start_extent + last.extent_count)
    if up > wanted:
        _say_up(session, wanted, up)
    return up


def _say_up(session: Session, wanted: int, up: int) -> None:
    session.say(
        f"Rounding size ({wanted} extents) up to stripe boundary size for segment ({up} extents)."
    )


def apply(
    session: Session, vg: VolumeGroup, lv: LogicalVolume, asked: Resize, wanted: Target
) -> None:
    """Give the volume its size, and say so. The VG's lock is held; of a cut the user was asked."""
    if wanted.wanted > wanted.have:
        grow_to(session, vg, lv, asked, wanted)
        return
    size = display_size(wanted.wanted * vg.extent_size)
    session.verbose(f"Reducing logical volume {vg.name}/{lv.name} to {size}")
    lvm_lv.reduce(session, vg.name, lv.name, wanted.wanted)
    _say_changed(session, vg, lv.name, wanted.have, wanted.wanted)


def grow_to(
    session: Session, vg: VolumeGroup, lv: LogicalVolume, asked: Resize, wanted: Target
) -> None:
    """Grow; a snapshot's COW to what can be of use at most."""
    most = wanted.wanted
    snap = vg.snapshot_of(lv.name)
    if snap is not None:
        usable = cow_max_extents(vg, snap.origin, snap.chunk_size)
        if most > usable:
            size = display_size(usable * vg.extent_size)
            session.say(f"Reached maximum COW size {size} ({usable} extents).")
            most = usable
            if most > wanted.have:
                if wanted.stripes is None:
                    width = last_width(vg, lv)
                else:
                    width = stripe_width(vg, wanted.stripes, wanted.stripe_size or 0)
                most = whole_stripes(session, lv, most, width, room=None)
    size = display_size(most * vg.extent_size)
    session.verbose(f"Extending logical volume {vg.name}/{lv.name} to {size}")
    if snap is not None and most <= wanted.have:
        _say_changed(session, vg, lv.name, wanted.have, wanted.have)
        return
    changed = lvm_lv.extend(
        session,
        vg.name,
        lv.name,
        most,
        pv_paths=asked.pv_words,
        stripes=wanted.stripes,
        stripe_size=wanted.stripe_size,
        policy=asked.policy,
        approximate=wanted.approximate,
    )
    grown = changed.vg.lv(lv.name)
    assert grown is not None
    _say_changed(session, vg, lv.name, wanted.have, grown.extent_count)


def _say_changed(session: Session, vg: VolumeGroup, name: str, before: int, after: int) -> None:
    volume = f"logical volume {vg.name}/{name}"
    if before == after:
        session.say(f"Size of {volume} unchanged from {lvm_lv.size_words(vg, before)}.")
    else:
        session.say(
            f"Size of {volume} changed from {lvm_lv.size_words(vg, before)} "
            f"to {lvm_lv.size_words(vg, after)}."
        )
    session.say(f"Logical volume {vg.name}/{name} successfully resized.")


def default_stripe(session: Session) -> int:
    """Sectors, of metadata/stripesize in KiB; UsageError for what no stripe may be."""
    size = 2 * session.host.config.get_int("metadata/stripesize", 64)
    if size < _MIN_STRIPE or size & (size - 1):
        raise UsageError(f"Invalid stripe size {display_size(max(size, 0))}.")
    return size
