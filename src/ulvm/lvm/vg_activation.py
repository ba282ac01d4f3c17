"""All volumes of a volume group activated, deactivated, refreshed (vgchange(8)).

Snapshots come and go with their origins. What one volume refuses is warned of, and the others are
gone on with.
"""

from __future__ import annotations

from typing import NamedTuple

from ulvm.activation.compare import visible_roots
from ulvm.errors import BusyError, DaemonGoneError, NotFoundError, RefusedError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import merge as lvm_merge
from ulvm.lvm import move as lvm_move
from ulvm.lvm.session import Session
from ulvm.lvm.volume_lists import may_activate, unlisted_words
from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore.checks import check_single

__all__ = ["Activity", "activate", "deactivate", "monitor", "poll", "refresh"]


class Activity(NamedTuple):
    """Visible volumes that are active now, and how many refused to become what was asked for."""

    active: int
    failed: int


def activate(
    session: Session,
    name: str,
    *,
    partial: bool = False,
    auto: bool = False,
    ignore_skip: bool = False,
    polling: bool = True,
) -> Activity | None:
    """Activate all volumes that the lists allow and that are not marked to be skipped. `auto`: as
    at start-up; None then for a VG that is marked to be left alone."""
    with session.lock(name, for_devices=True):
        vg = session.vg_for_change(name)
        if auto and "NOAUTOACTIVATE" in vg.flags:
            return None
        failed = 0
        for lv in visible_roots(vg):
            if "ACTIVATION_SKIP" in lv.flags and not ignore_skip:
                continue
            if not may_activate(session.host.config, vg, lv.name, auto=auto):
                for text in unlisted_words(session.host.config, f"{name}/{lv.name}"):
                    session.verbose(text)
                continue
            try:
                lvm_lv.activate_locked(session, vg, lv.name, partial=partial)
            except UlvmError as error:
                session.warn(error.message)
                failed += 1
        if polling:
            _resume_polling(session, vg)
        return Activity(_active_count(session, vg), failed)


def deactivate(session: Session, name: str) -> Activity | None:
    """Deactivate all volumes; how many are active then, which may be those that others have
    activated meanwhile, and how many refused. None, and that is said, if some are open: these
    stay."""
    with session.lock(name, for_devices=True):
        vg = session.vg_for_change(name, settle=True)
        activator = session.activator_if_running
        if activator is None:
            return Activity(0, 0)
        failed = 0
        for lv in visible_roots(vg):
            try:
                activator.deactivate(vg, lv.name)
            except DaemonGoneError:
                raise
            except (BusyError, NotFoundError) as error:
                session.warn(error.message)
            except UlvmError as error:
                session.warn(error.message)
                failed += 1
        states = activator.states(vg)
        opened = sum(state.open_count > 0 for state in states.values())
        if opened:
            session.warn(
                f'Can\'t deactivate volume group "{name}" with {opened} open logical volume(s)'
            )
            return None
        return Activity(_active_count(session, vg), failed)


def monitor(session: Session, name: str, wanted: bool) -> int:
    """Watch how full the active snapshots are, or leave them alone as long as they are active.
    How many volumes that goes for: the active ones, whatever there is to watch of them."""
    with session.lock(name, for_devices=True):
        vg = session.vg_for_change(name)
        active = lvm_lv.states(session, vg)
        snapshots = [s.cow for s in vg.snapshot_segments() if s.cow in active and not s.merging]
        dm = session.dm_if_running
        if dm is not None and not session.host.trial:
            for cow in snapshots:
                dm.monitor(active[cow].info.uuid, wanted)
        return sum(lv.name in active for lv in vg.visible_lvs())


def _active_count(session: Session, vg: VolumeGroup) -> int:
    active = lvm_lv.states(session, vg)
    return sum(lv.name in active for lv in vg.visible_lvs())


def refresh(session: Session, name: str, *, polling: bool = True) -> int:
    """Bring the devices of active volumes to the metadata, resume what is suspended, and begin
    merges that waited for their volumes to be closed. How many volumes refused, having lost a
    PV, or one being there twice: they keep their tables."""
    with session.lock(name):
        vg = session.vg_for_change(name)
        failed = 0
        for lv in vg.visible_lvs():
            try:
                check_single(session.last_scan, vg)
                lvm_lv.check_whole(vg, lv, "refresh")
            except RefusedError as error:
                session.warn(error.message)
                failed += 1
        activator = session.activator_if_running
        if activator is not None:
            activator.refresh(vg, start_merges=[lv.name for lv in vg.lvs])
            if polling:
                _resume_polling(session, vg)
        return failed


def poll(session: Session, name: str) -> None:
    """See to the end of the merges and moves that are under way."""
    with session.lock(name):
        _resume_polling(session, session.vg_for_change(name))


def _resume_polling(session: Session, vg: VolumeGroup) -> None:
    lvm_merge.resume_polling(session, vg)
    moving = lvm_move.resume_polling(session, vg)
    if moving:
        session.say(
            f'Background polling started for {moving} logical volume(s) in volume group "{vg.name}"'
        )
