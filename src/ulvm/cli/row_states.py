"""Which volumes are active, for rows that are shown or selected by."""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.lvm import states as lvm_states
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.report.rows import States

__all__ = ["states_of"]


def states_of(session: Session, groups: Sequence[VolumeGroup], rows: str) -> States:
    """Which volumes are active, for rows that show it; nothing for any group where nobody may be
    asked. Whether a snapshot is watched is a segment's field, and asked for where there are such.
    """
    if not session.host.activation or rows in ("vg", "pv"):
        return {}
    found = {vg.name: lvm_states.states(session, vg) for vg in groups}
    if rows in ("seg", "pvseg"):
        for (vg_name, lv_name), watched in lvm_states.monitored(session).items():
            state = found.get(vg_name, {}).get(lv_name)
            if state is not None:
                found[vg_name][lv_name] = state._replace(monitored=watched)
    return found
