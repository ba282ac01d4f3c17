"""Which volumes are active, for rows that are shown or selected by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ulvm.activation.states import LvState
from ulvm.lvm import states as lvm_states
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.report.rows import States

__all__ = ["at_rest", "states_of"]

_T = TypeVar("_T")


def at_rest(session: Session, look: Callable[[], tuple[_T, States]]) -> tuple[_T, States]:
    """What `look` finds, with the states of all that it shows. What another command has suspended
    is looked at again, and its metadata with it, when that command is through: LVM2's reports wait
    for it by a lock."""
    found, states = look()
    half_way = {vg for vg, active in states.items() if any(map(_is_half_way, active.values()))}
    changing = [vg.name for vg in session.last_scan.vgs if vg.uuid in half_way]
    if not changing or not session.host.locking:
        return found, states
    with session.quiet(changing):
        return look()


def _is_half_way(state: LvState) -> bool:
    info = state.info
    return info.suspended or info.inactive_table or not info.live_table


def states_of(session: Session, groups: Sequence[VolumeGroup], rows: str) -> States:
    """Which volumes are active, for rows that show it; nothing for any group where nobody may be
    asked. Whether a snapshot is watched is a segment's field, and asked for where there are such.
    """
    if not session.host.activation or rows in ("vg", "pv"):
        return {}
    found = {vg.uuid: lvm_states.states(session, vg) for vg in groups}
    if rows in ("seg", "pvseg"):
        told = lvm_states.monitored(session)
        for vg in groups:
            active = found[vg.uuid]
            for name, state in active.items():
                watched = told.get((vg.name, name), state.monitored)
                active[name] = state._replace(monitored=watched)
    return found
