"""Snapshots taken apart and put together (lvconvert --splitsnapshot, -s), and sparse volumes.

Crash argument. Each is one commit around one swap of tables, as every change of an active volume
(activation.activate): before it the VG is the old one, after it the new one.

Splitting: the origin stands still while the snapshot goes, so no write is copied for a snapshot
that the metadata do not know any more; the store stays as it was at the last write.

Joining: the volume is taken down, which nobody may have open, and its start is zeroed before the
commit. Cut in between it is a plain volume with a zeroed start, and its owner has said yes to its
loss; never are the metadata such that an old store's records could count for a new snapshot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from ulvm.errors import BusyError, RefusedError
from ulvm.lvm.extents import wipe_new
from ulvm.lvm.lv import activate_new, check_wipable, get, states_at_rest
from ulvm.lvm.places import places_of
from ulvm.lvm.session import Change, Session
from ulvm.metadata import edit, snapshot_edit
from ulvm.metadata.layout import MAX_EXTENTS
from ulvm.metadata.lv_edit import PLAIN, Properties, with_properties
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.uuid import new_uuid
from ulvm.units import SECTOR, display_size

__all__ = ["check_join", "create_sparse", "join", "split"]


def split(session: Session, vg_name: str, name: str) -> Change:
    """The snapshot becomes a plain volume with its store's bytes. BusyError while it is open."""

    def change(vg: VolumeGroup) -> VolumeGroup:
        get(vg, name)
        state = states_at_rest(session, vg, [name]).get(name)
        if state is not None and state.open_count:
            raise BusyError(f"Logical volume {vg_name}/{name} in use.")
        return snapshot_edit.split_snapshot(vg, name)

    return session.change_vg(vg_name, change)


def check_join(vg: VolumeGroup, origin: str, name: str, chunk_size: int) -> None:
    """What keeps a volume from being made a snapshot's store: RefusedError. Nothing is changed."""
    _joined(vg, origin, name, chunk_size)


def _joined(vg: VolumeGroup, origin: str, name: str, chunk_size: int) -> VolumeGroup:
    return snapshot_edit.join_snapshot(
        vg,
        origin,
        name,
        chunk_size=chunk_size,
        snapshot_uuid=new_uuid(),
        now=int(time.time()),
        host=os.uname().nodename,
    )


def join(
    session: Session, vg_name: str, origin: str, name: str, *, chunk_size: int, zero: bool
) -> Change:
    """The volume becomes a snapshot of `origin`: a new one, or without `zero` the one whose store
    it holds. `chunk_size` in sectors. The caller has asked; errors as `check_join`, and BusyError
    while it is open."""

    def wipe(vg: VolumeGroup) -> None:
        if zero:
            wipe_new(session, vg, get(vg, name), zero_bytes=2 * chunk_size * SECTOR)
        else:
            session.warn(f"WARNING: {vg_name}/{name} not zeroed.")

    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        check_join(vg, origin, name, chunk_size)
        state = states_at_rest(session, vg, [name]).get(name)
        if state is not None and state.open_count:
            volume = f"{vg_name}/{name}"
            raise BusyError(
                f"Logical volume {volume} in use.\nCouldn't deactivate logical volume {volume}."
            )
        was_active = state is not None
        activator = session.activator_if_running
        if activator is not None:
            session.hold_signals()
            activator.deactivate(vg, name)
        try:
            return session.change_vg(
                vg_name,
                lambda vg: _joined(vg, origin, name, chunk_size),
                before_commit=wipe,
            )
        except BaseException:
            if was_active and not session.scan().vg(vg_name).is_cow(name):
                session.activator.activate(session.last_scan.vg(vg_name), name)
            raise


def create_sparse(
    session: Session,
    vg_name: str,
    name: str | None,
    *,
    virtual_sectors: int,
    extents: Callable[[VolumeGroup], int],
    chunk_size: int,
    properties: Properties = PLAIN,
    pv_paths: Sequence[str] = (),
    active: bool = True,
    approximate: bool = False,
) -> str:
    """A volume of `virtual_sectors` that reads as zeroes, with room for what is written in
    `extents`; its name. `chunk_size` in sectors."""
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        chosen = name or edit.auto_name(vg)
        length = _virtual_extents(session, vg, virtual_sectors)
        count = extents(vg)

        def add(vg: VolumeGroup) -> VolumeGroup:
            made = snapshot_edit.add_sparse(
                vg,
                chosen,
                length,
                count,
                chunk_size=chunk_size,
                uuid=new_uuid(),
                origin_uuid=new_uuid(),
                snapshot_uuid=new_uuid(),
                now=int(time.time()),
                host=os.uname().nodename,
                places=places_of(session, vg, pv_paths),
                policy=properties.policy,
                approximate=approximate,
            )
            return with_properties(made, chosen, properties)

        def wipe(vg: VolumeGroup) -> None:
            check_wipable(session, vg, chosen, "snapshot exception store")
            wipe_new(session, vg, get(vg, chosen), zero_bytes=2 * chunk_size * SECTOR)

        changed = session.change_vg(vg_name, add, before_commit=wipe)
        if active:
            activate_new(session, changed.vg, chosen)
    return chosen


def _virtual_extents(session: Session, vg: VolumeGroup, sectors: int) -> int:
    extents = -(-sectors // vg.extent_size)
    size = display_size(extents * vg.extent_size)
    if extents > MAX_EXTENTS:
        limit = display_size(MAX_EXTENTS * vg.extent_size)
        raise RefusedError(
            f"Volume too large ({size}) for extent size {display_size(vg.extent_size)}. "
            f"Upper limit is less than {limit}."
        )
    if extents * vg.extent_size != sectors:
        session.say(f"Rounding up size to full physical extent {size}")
    return extents
