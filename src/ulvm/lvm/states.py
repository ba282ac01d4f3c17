"""What is known of volumes without changing any: by name, whether active, whether watched. Apart
from `lvm.lv`, since reports need no more, and start sooner so."""

from __future__ import annotations

import time
from collections.abc import Collection

from ulvm.activation.states import LvState, lv_states
from ulvm.lvm.session import Session
from ulvm.metadata.model import LogicalVolume, VolumeGroup

__all__ = ["get", "monitored", "states", "states_at_rest"]

_CLOSING_SECONDS = 0.3
_RETRY_SECONDS = 5.0
"""As long as LVM2 tries."""
_LOOK_SECONDS = 0.02


def get(vg: VolumeGroup, name: str) -> LogicalVolume:
    """The volume; NotFoundError as LVM prints it."""
    return vg.volume(name)


def states(session: Session, vg: VolumeGroup) -> dict[str, LvState]:
    """The active volumes of a VG by name; none if no daemon runs."""
    dm = session.dm_if_running
    return {} if dm is None else lv_states(dm, vg)


def monitored(session: Session) -> dict[tuple[str, str], bool]:
    """Whether the daemon watches a snapshot, by VG and name, for those that are active; none if
    activation/monitoring is off."""
    dm = session.dm_if_running
    if dm is None or not session.host.config.get_bool("activation/monitoring", True):
        return {}
    return {(s["vg"], s["lv"]): s["monitored"] for s in dm.monitor_report()}


def states_at_rest(
    session: Session,
    vg: VolumeGroup,
    names: Collection[str],
    *,
    always: bool = False,
    retry: bool = False,
) -> dict[str, LvState]:
    """As `states`, after a moment for those who have just closed one of these volumes: close(2) of
    a file returns before the daemon has been told. `always`: whatever the settings say, since it
    was we who closed it; `retry`: and for longer, for whoever they are."""
    retries = always or session.host.config.get_bool("activation/retry_deactivation", True)
    seconds = _RETRY_SECONDS if retry else _CLOSING_SECONDS if retries else 0
    deadline = time.monotonic() + seconds
    while True:
        found = states(session, vg)
        if not any(name in found and found[name].open_count for name in names):
            return found
        if time.monotonic() > deadline:
            return found
        time.sleep(_LOOK_SECONDS)
