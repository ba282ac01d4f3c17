"""Merging a snapshot back into its origin (lvconvert --merge).

    metadata           devices of the origin's tree                      next
    cow_store          snapshot-origin, snapshot                         start
    merging_store      the same, while one of them is open: pending      at the next activation
    merging_store      snapshot-merge, error in the snapshot's place     done when nothing is left
    (no snapshot)      linear, or snapshot-origin if there are others

The target itself copies (dm.targets.merge); somebody has to look when it is done and change the
metadata: the command, or with -b a process of its own (`ulvm lvpoll`), which an activation that
resumes a merge starts as well.

Crash argument. The metadata say `merging` before the first chunk is copied, and forget the
snapshot only after the last one is durable, so a store that a merge has begun to clear is never
served as a snapshot again: whatever dies, the next activation goes on with the merge.
"""

from __future__ import annotations

import time
from enum import Enum

from ulvm.activation.status import SnapshotStatus
from ulvm.errors import DeviceError, RefusedError
from ulvm.lvm.background import outlive_daemons, poll_words, start_background
from ulvm.lvm.lv import get, states, states_at_rest
from ulvm.lvm.session import Session
from ulvm.metadata import snapshot_edit
from ulvm.metadata.model import SnapshotSegment, VolumeGroup

__all__ = ["Started", "poll", "poll_in_background", "resume_polling", "start"]

_LOOK_SECONDS, _MOST_SECONDS = 0.02, 0.5
"""Between two looks, at least and at most; else a twentieth of the time it has taken so far."""
_SAY_SECONDS = 1.0
"""After so long a merge is reported on first, then every activation/polling_interval."""


class Started(Enum):
    """How a merge began: at once, or what keeps it until the origin's next activation."""

    RUNNING = 1
    ORIGIN_IS_OPEN = 2
    SNAPSHOT_IS_OPEN = 3
    ORIGIN_IS_INACTIVE = 4


def start(session: Session, vg_name: str, snapshot: str) -> tuple[str, Started]:
    """Begin to merge a snapshot; the origin's name and what became of it. RefusedError."""
    began = Started.RUNNING
    origin = ""
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        get(vg, snapshot)
        segment = vg.snapshot_of(snapshot)
        if segment is None:
            raise RefusedError(
                f"{vg_name}/{snapshot} cannot be merged because --trackchanges was not used."
            )
        origin = segment.origin
        snapshot_edit.start_merge(vg, snapshot)  # What the metadata refuse is said first.
        active = states_at_rest(session, vg, [origin, snapshot])
        state = active.get(snapshot)
        if state is not None and state.status is not None and state.status.invalid:
            raise RefusedError(f"Unable to merge invalidated snapshot LV {vg_name}/{snapshot}.")
        if origin not in active:
            began = Started.ORIGIN_IS_INACTIVE
        elif active[origin].open_count:
            began = Started.ORIGIN_IS_OPEN
        elif state is not None and state.open_count:
            began = Started.SNAPSHOT_IS_OPEN
        session.change_vg(
            vg_name,
            lambda vg: snapshot_edit.start_merge(vg, snapshot),
            start_merge=began is Started.RUNNING,
        )
    return origin, began


def _merging(vg: VolumeGroup, origin: str) -> SnapshotSegment | None:
    return vg.merging_snapshot_of(origin)


def _status(session: Session, vg: VolumeGroup, origin: str) -> SnapshotStatus | None:
    """The merge target's status; None if the merge is not under way."""
    state = states(session, vg).get(origin)
    if state is None or state.status is None or not state.status.merging:
        return None
    return state.status


def poll(session: Session, vg_name: str, origin: str, *, quiet: bool = False) -> bool:
    """Wait until all is merged, then drop the snapshot. False if the merge is not under way (any
    more): deactivated, or finished by another. DeviceError if it failed.

    A daemon that is killed meanwhile is started anew, and goes on with the merge.
    """
    interval = session.host.config.get_int("activation/polling_interval", 15)
    session.verbose(f"Checking progress before waiting every {interval} seconds.")
    began = time.monotonic()
    due = began + min(_SAY_SECONDS, interval)
    group = session.scan().vg(vg_name)
    uuid = get(group, origin).uuid

    def look() -> SnapshotStatus | bool:
        """How far it is, or what `poll` returns."""
        nonlocal origin, vg_name
        found = session.scan()
        vg_name = next((vg.name for vg in found.vgs if vg.uuid == group.uuid), vg_name)
        vg = found.vg(vg_name)
        origin = next((lv.name for lv in vg.lvs if lv.uuid == uuid), origin)  # If renamed.
        segment = _merging(vg, origin)
        status = None if segment is None else _status(session, vg, origin)
        if segment is None or status is None:
            return False
        if status.merge_done:
            if not quiet:
                session.say(f"{vg_name}/{origin}: Merged: 100.00%")
            done = _finish(session, vg_name, uuid, segment.cow, quiet)
            return status if done is None else done
        cow = f"{vg_name}/{segment.cow}"
        if status.merge_failed:
            raise DeviceError(
                f"Merge of snapshot {cow} into {vg_name}/{origin} failed; "
                "it goes on at the next activation."
            )
        if status.invalid:
            raise DeviceError(f"Snapshot {cow} is invalid and cannot be merged.")
        return status

    while True:
        status = outlive_daemons(session, look)
        if isinstance(status, bool):
            return status
        if not quiet and interval and time.monotonic() >= due:
            due = time.monotonic() + interval
            session.say(f"{vg_name}/{origin}: Merged: {_percent(status):.2f}%")
        time.sleep(min(max((time.monotonic() - began) / 20, _LOOK_SECONDS), _MOST_SECONDS))


def _percent(status: SnapshotStatus) -> float:
    """What lvs and LVM's polling show: how much of the COW is not in use (any more)."""
    fraction = status.fraction
    return 100.0 if fraction is None else min(100 * (1 - fraction), 99.99)


def _finish(session: Session, vg_name: str, origin_uuid: str, cow: str, quiet: bool) -> bool | None:
    """None if the origin is not in a group of this name any more: that was renamed just now."""
    with session.lock(vg_name):
        groups = [vg for vg in session.scan().vgs if vg.name == vg_name]
        origin = next((lv.name for vg in groups for lv in vg.lvs if lv.uuid == origin_uuid), None)
        if origin is None:
            return None
        vg = session.vg_for_change(vg_name)
        segment = _merging(vg, origin)
        status = _status(session, vg, origin)
        if segment is None or segment.cow != cow or status is None or not status.merge_done:
            return False  # somebody else was faster
        session.verbose(f"Removing snapshot volume {vg_name}/{cow}.")
        session.verbose(f'Releasing logical volume "{cow}"')
        session.change_vg(vg_name, lambda vg: snapshot_edit.finish_merge(vg, cow))
    if not quiet:
        session.say(f"Merge of snapshot into logical volume {vg_name}/{origin} has finished.")
        session.say(f'Logical volume "{cow}" successfully removed.')
    return True


def poll_in_background(session: Session, vg: VolumeGroup, origin: str) -> None:
    """Start the process that finishes the merge."""
    start_background(session, *poll_words("merge", f"{vg.name}/{origin}", vg.uuid))


def resume_polling(session: Session, vg: VolumeGroup) -> None:
    """After an activation: see to the end of every merge that it set going again."""
    active = states(session, vg)
    for segment in vg.snapshot_segments():
        state = active.get(segment.origin)
        status = state.status if state is not None else None
        if segment.merging and status is not None and status.merging:
            poll_in_background(session, vg, segment.origin)
