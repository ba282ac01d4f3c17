"""pvmove(8): extents moved to other PVs while the volumes on them are in use.

    metadata                                  devices                                  next
    volumes on the source PV                  linear, ...                              start
    volumes LOCKED on pvmoveN, segment i      pvmoveN: linear to the destination        segment i
      the first that is not moved               before i, a mirror at i, linear to        in sync
                                                the source behind it
    the same, segment i moved                 the mirror at i + 1                       advance
    volumes on the destination PV             linear, ...                              finish

The mirror itself copies (dm.targets.mirror); somebody has to look when a segment is in sync and
change the metadata: the command, or with -b a process of its own (`ulvm lvpoll`), which an
activation that resumes a move starts as well. LVM2 goes on with a move of ours and we with its.

Crash argument. Up to the commit of `advance` the metadata say that the source counts, and every
write goes there too; it is durable there when a flush is answered. The commit comes after the
suspend of the mirror, which has made all that was written durable at the destination (`_settled`
looks at its status once more, between the two). So whichever metadata a crash leaves, what they
lead to is whole: a segment that was half copied is copied again from its beginning. The extents at
the destination belong to pvmoveN from the first commit to the last, so nobody else gets them.

`abort` leaves what is moved at the destination, and drops a copy that is not complete.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ulvm.activation.move_status import MoveStatus
from ulvm.activation.names import dm_uuid
from ulvm.errors import DeviceError, NotFoundError
from ulvm.faultpoints import reach
from ulvm.lvm.background import outlive_daemons, poll_words, start_background
from ulvm.lvm.places import places_of
from ulvm.lvm.session import Session
from ulvm.lvm.volume_lists import list_words
from ulvm.metadata import move as moves
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.metadata.segments import PvExtents
from ulvm.metadata.uuid import new_uuid

__all__ = [
    "Move",
    "abort",
    "find",
    "find_all",
    "is_active",
    "poll",
    "poll_in_background",
    "resume",
    "resume_polling",
    "start",
]

_LOOK_SECONDS, _MOST_SECONDS = 0.1, 0.5
"""Between two looks, at first and when nothing changes."""


@dataclass(frozen=True, slots=True)
class Move:
    """One that was found; `label` is what messages call it. VG and volume are known by their UUIDs,
    since a VG may be renamed meanwhile, and another one have its name."""

    vg: str
    vg_uuid: str
    name: str
    uuid: str
    label: str


def _move(session: Session, vg: VolumeGroup, lv: LogicalVolume, label: str = "") -> Move:
    source = moves.source_pv(vg, lv)
    pv = vg.pv(source)
    path = session.last_scan.path_of(source) or (pv.device if pv else f"{vg.name}/{lv.name}")
    return Move(vg.name, vg.uuid, lv.name, lv.uuid, label or path)


def find_all(session: Session) -> list[Move]:
    """Every move under way on this host."""
    return [_move(session, vg, lv) for vg in session.scan().vgs for lv in vg.pvmoves()]


def find(session: Session, vg_name: str, *, pv_uuid: str = "", name: str = "") -> Move | None:
    """The move that clears a PV, or that of this name, which its messages have then."""
    vg = session.find_vg(vg_name)
    if name:
        lv = vg.lv(name)
        return _move(session, vg, lv, f"{vg_name}/{name}") if lv and lv.is_pvmove else None
    lv = moves.move_of_pv(vg, pv_uuid)
    return _move(session, vg, lv) if lv else None


def start(
    session: Session,
    vg_name: str,
    source: str,
    *,
    to: Sequence[str] = (),
    only: str | None = None,
    policy: str | None = None,
    atomic: bool = False,
) -> Move | None:
    """Begin to move what lies on `source`, a PV with ranges perhaps, to the PVs and ranges of `to`.
    None on a trial. RefusedError, NotFoundError; then nothing has changed."""
    begun: list[moves.Moved] = []

    def begin(vg: VolumeGroup) -> VolumeGroup:
        (place,) = places_of(session, vg, [source], source=True) or [PvExtents("")]
        moved = moves.start_move(
            vg,
            place,
            new_uuid=new_uuid,
            now=int(time.time()),
            host=os.uname().nodename,
            only=only,
            places=places_of(session, vg, to),
            policy=policy,
            atomic=atomic,
            say=session.say,
        )
        session.verbose(f"Creating logical volume {moved.name}")
        for name, extents in moved.extents:
            for text in list_words(session.host.config, f"{vg.name}/{name}"):
                session.verbose(text)
            session.verbose(f"Moving {extents} extents of logical volume {vg.name}/{name}.")
        begun.append(moved)
        return moved.vg

    with session.lock(vg_name):
        changed = session.change_vg(vg_name, begin)
        move = changed.vg.lv(begun[0].name)
        assert move is not None
        if session.host.trial:
            return None
        reach("after a move was begun")
        for text in list_words(session.host.config, f"{vg_name}/{move.name}"):
            session.verbose(text)
        session.activator.activate(changed.vg, move.name)
        return _move(session, changed.vg, move)


def resume(session: Session, move: Move) -> None:
    """Activate a move that is there, and have a mirror that gave up try once more; RefusedError if
    its PVs are not there."""
    session.mean(move.vg_uuid)
    with session.lock(move.vg):
        vg = session.vg_for_change(move.vg)
        lv = vg.lv_by_uuid(move.uuid)
        if lv is None:
            return
        session.activator.activate(vg, lv.name)
        status = _status(session, vg, lv)
        if status is not None and status.failed and not session.host.trial:
            # What is not in sync is copied from each resume on.
            device = dm_uuid(vg.uuid, lv.uuid)
            session.hold_signals()
            session.dm.suspend(device, lockfs=False)
            session.dm.resume(device)


def is_active(session: Session, move: Move) -> bool:
    """Whether its device is there, so that it goes on."""
    session.mean(move.vg_uuid)
    activator = session.activator_if_running
    vg = session.last_scan.vg(move.vg)
    return activator is not None and activator.is_active(vg, move.name)


def abort(session: Session, move: Move) -> bool:
    """End a move where it is: segments that are moved stay so. False if it had ended already."""

    def end(vg: VolumeGroup) -> VolumeGroup:
        return moves.finish_move(vg, move.name)

    session.mean(move.vg_uuid)
    with session.lock(move.vg):
        vg = session.vg_for_change(move.vg)
        if vg.lv_by_uuid(move.uuid) is None:
            session.say(f"{move.label}: No pvmove in progress - already finished or aborted.")
            return False
        session.change_vg(move.vg, end, allow_missing=True)
    return True


# -- seeing to the end ----------------------------------------------------------------------------


def poll(
    session: Session, waiting: Iterable[Move], *, interval: float, quiet: bool = False
) -> bool:
    """Wait for moves to be done, segment by segment; say how far they are every `interval` seconds,
    never for 0. False if one was interrupted. DeviceError if one cannot go on.

    A daemon that is killed meanwhile is started anew, and goes on with the moves."""
    rest = [_Watched(move) for move in waiting]
    whole = True
    session.verbose(f"Checking progress before waiting every {interval:.0f} seconds.")
    pause = _LOOK_SECONDS
    while rest:
        for watched in list(rest):
            before = watched.percent
            done = outlive_daemons(session, partial(_look, session, watched, quiet))
            if done is not None:
                rest.remove(watched)
                whole = whole and done
            now = time.monotonic()
            due = done or now - watched.said >= interval
            if watched.percent and interval and due and not quiet and done is not False:
                watched.said = now
                session.say(f"{watched.move.label}: Moved: {watched.percent}%")
            # A segment that takes long is not looked at more often than it gets on.
            pause = _LOOK_SECONDS if watched.percent != before else min(pause * 1.5, _MOST_SECONDS)
        if rest:
            time.sleep(pause)
    return whole


@dataclass
class _Watched:
    """A move that is waited for. `vg` and `lv`: as they were scanned last, None to scan anew."""

    move: Move
    vg: VolumeGroup | None = None
    lv: LogicalVolume | None = None
    percent: str = ""
    said: float = float("-inf")


def _look(session: Session, watched: _Watched, quiet: bool) -> bool | None:
    """Do what can be done; how the move ended, or None. The disks are read only when the mirror
    is not at work on the segment that it was at work on when they were read last."""
    session.mean(watched.move.vg_uuid)
    status = None
    if watched.vg is not None and watched.lv is not None:
        status = _status(session, watched.vg, watched.lv)
        if status is None or not status.copying:
            watched.vg = None
    move = watched.move
    if watched.vg is None:
        watched.vg = next((v for v in session.scan().vgs if v.uuid == move.vg_uuid), None)
        watched.lv = watched.vg.lv_by_uuid(move.uuid) if watched.vg is not None else None
        if watched.vg is None or watched.lv is None:
            watched.percent = ""
            if not quiet:
                session.say(f"{move.label}: No pvmove in progress - already finished or aborted.")
            return True
        status = _status(session, watched.vg, watched.lv)
    vg, lv = watched.vg, watched.lv
    assert lv is not None
    # With PVs missing it may be active without a mirror.
    if status is None or (vg.is_partial(lv) and not status.health and status.current is not None):
        if not quiet:
            session.say(f"{move.label}: Interrupted: No longer active.")
        return False
    if status.failed:
        raise DeviceError(
            f"{move.label}: Copying to or from a device failed ({vg.name}/{lv.name}).\n"
            "Run pvmove again to try once more, or pvmove --abort to end it."
        )
    watched.percent = _percent(status)
    if status.current is not None and not status.in_sync:
        return None
    watched.vg = None
    if not _go_on(session, vg.name, lv, status.current):
        return None
    watched.percent = "100.00"
    return True


def _percent(status: MoveStatus) -> str:
    """As lvs shows it; 100.00 is for the end."""
    return f"{min(100 * status.fraction, 99.99):.2f}"


def _status(session: Session, vg: VolumeGroup, lv: LogicalVolume) -> MoveStatus | None:
    """None if it is not active."""
    activator = session.activator_if_running
    state = None if activator is None else activator.state(vg, lv.name)
    return None if state is None else state.move


def _go_on(session: Session, vg_name: str, lv: LogicalVolume, number: int | None) -> bool:
    """Segment `number` is in sync: it counts as moved, and if it is the last one the move is done.
    Whether that is so."""
    last = False

    def next_step(vg: VolumeGroup) -> VolumeGroup:
        nonlocal last
        move = moves.move_from(vg, lv.name)
        current = moves.current_segment(move)
        if move.uuid != lv.uuid or current != number:
            raise NotFoundError("Somebody else goes on with the move.")
        if number is not None:
            vg = moves.advance_move(vg, lv.name, number)
        last = moves.current_segment(moves.move_from(vg, lv.name)) is None
        if not last:
            return vg
        session.verbose("Removing temporary pvmove LV")
        session.verbose("Writing out final volume group after pvmove")
        return moves.finish_move(vg, lv.name)

    def settled() -> None:
        if number is None:
            return
        status = _status(session, session.last_scan.vg(vg_name), lv)
        if status is None or not status.in_sync or status.failed:
            raise DeviceError(f"{vg_name}/{lv.name}: The copy could not be completed.")

    with session.lock(vg_name):
        move = None
        if vg_name in (vg.name for vg in session.scan().vgs):  # It may have been renamed just now.
            move = session.vg_for_change(vg_name).lv_by_uuid(lv.uuid)
        if move is None or moves.current_segment(move) != number:
            return False  # Somebody else goes on with it.
        reach("before a segment counts as moved")
        session.change_vg(vg_name, next_step, when_suspended=settled)
        reach("after a segment counts as moved")
    return last


def poll_in_background(session: Session, move: Move, interval: float) -> None:
    """Start the process that sees to the end of the move."""
    words = poll_words("pvmove", f"{move.vg}/{move.name}", move.vg_uuid)
    start_background(session, *words, "-i", f"{interval:g}")


def resume_polling(session: Session, vg: VolumeGroup, interval: float = 15) -> int:
    """After an activation: see to the end of every move that it set going again; their number."""
    activator = session.activator_if_running
    if activator is None:
        return 0
    going = [lv for lv in vg.pvmoves() if activator.is_active(vg, lv.name)]
    for lv in going:
        poll_in_background(session, _move(session, vg, lv), interval)
    return len(going)
