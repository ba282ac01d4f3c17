"""Snapshots: how one comes into being (lvcreate -s).

    1 allocate the COW's extents                      metadata.edit, nothing visible
    2 zero the COW's header and first area, flush     the extents belong to nobody
    3 precommit; load tables; suspend the origin      file systems frozen, writes held back
    4 commit                                          the snapshot exists
    5 resume snapshot, then origin                    from here on every write copies out first

Crash argument. Up to 4 there is no snapshot, and the extents are free. After it the store is an
empty one whose header the kernel, or ulvm, writes at the first activation: a power cut anywhere
after 4 leaves a snapshot equal to its origin, since no write of the origin passed between 3 and
5. Records that an older store left in the same extents cannot come back, since area 0 is empty
before a header can say that it counts. If only this process or the daemon dies between 3 and 5,
the origin stays suspended until the devices have been brought to the metadata
(activation.activate).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ulvm.activation.activate import SwapReport
from ulvm.errors import NotFoundError
from ulvm.lvm.extents import wipe_new
from ulvm.lvm.lv import check_wipable, get
from ulvm.lvm.places import places_of
from ulvm.lvm.session import Session
from ulvm.metadata import edit
from ulvm.metadata.cow import check_chunk_size, cow_max_extents
from ulvm.metadata.lv_edit import PLAIN, Properties, with_properties
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.snapshot_edit import add_snapshot
from ulvm.metadata.uuid import new_uuid
from ulvm.units import SECTOR, display_size

__all__ = ["DEFAULT_CHUNK", "Made", "create"]

DEFAULT_CHUNK = 8
"""Sectors: 4 KiB."""


class Made(NamedTuple):
    """A new snapshot; `report` tells how long writers waited for it."""

    name: str
    report: SwapReport


def create(
    session: Session,
    vg_name: str,
    origin: str,
    name: str | None,
    *,
    extents: int | Callable[[VolumeGroup], int],
    chunk_size: int = DEFAULT_CHUNK,
    properties: Properties = PLAIN,
    pv_paths: Sequence[str] = (),
    stripes: int = 1,
    stripe_size: int = 0,
    approximate: bool = False,
) -> Made:
    """A snapshot of `origin`, active if that is. `extents` of the COW: more than can be of use is
    cut, and said. `chunk_size` and `stripe_size` in sectors. `approximate`: as many extents as the
    policy lets it have. What LVM refuses raises RefusedError or UsageError."""
    chosen = name

    def add(vg: VolumeGroup) -> VolumeGroup:
        nonlocal chosen
        if vg.lv(origin) is None:
            raise NotFoundError(f"Snapshot origin LV {origin} not found in Volume group {vg.name}.")
        get(vg, origin)
        chosen = chosen or edit.auto_name(vg)
        check_chunk_size(chunk_size)
        count = extents if isinstance(extents, int) else extents(vg)
        most = cow_max_extents(vg, origin, chunk_size)
        if count > most and not vg.is_cow(origin):
            session.say(
                f"Reducing COW size {display_size(count * vg.extent_size)} down to maximum "
                f"usable size {display_size(most * vg.extent_size)}."
            )
        session.verbose(f"Setting chunksize to {display_size(chunk_size)}.")
        session.verbose(f"Creating logical volume {chosen}")
        made = add_snapshot(
            vg,
            origin,
            chosen,
            count,
            chunk_size=chunk_size,
            uuid=new_uuid(),
            snapshot_uuid=new_uuid(),
            now=int(time.time()),
            host=os.uname().nodename,
            places=places_of(session, vg, pv_paths),
            policy=properties.policy,
            stripes=stripes,
            stripe_size=min(stripe_size, vg.extent_size),
            approximate=approximate,
        )
        return with_properties(made, chosen, properties)

    def wipe(vg: VolumeGroup) -> None:
        assert chosen is not None
        check_wipable(session, vg, chosen, "snapshot exception store")
        # LVM wipes the header alone, and the kernel area 0 after it has written a header: cut in
        # between, the records of an older store would count.
        wipe_new(session, vg, get(vg, chosen), zero_bytes=2 * chunk_size * SECTOR)

    changed = session.change_vg(vg_name, add, before_commit=wipe)
    assert chosen is not None
    return Made(chosen, changed.report)
