"""The volume that a backup or a restore has in hand for minutes or hours.

It may be renamed meanwhile, and another get its name, and so may its group: both are known by their
UUIDs. What asks for a name does so under the lock of the volume group, which then keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ulvm.errors import BusyError, NotFoundError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.session import Session
from ulvm.metadata.model import LogicalVolume, VolumeGroup

__all__ = [
    "group_now",
    "kept_names",
    "locked_group",
    "remove_when_free",
    "volume_now",
]

_RELEASE_SECONDS = 3.0
"""How long a volume may still be open when we are done with it."""


def group_now(session: Session, uuid: str) -> VolumeGroup:
    """The volume group, whatever its name. NotFoundError."""
    vg = next((vg for vg in session.scan().vgs if vg.uuid == uuid), None)
    if vg is None:
        raise NotFoundError("The volume's group is not there any more.")
    return vg


def volume_now(vg: VolumeGroup, uuid: str) -> LogicalVolume:
    """The volume, whatever its name. NotFoundError."""
    lv = vg.lv_by_uuid(uuid)
    if lv is None:
        raise NotFoundError(f"The volume is not in {vg.name} any more.")
    return lv


@contextmanager
def locked_group(
    session: Session, uuid: str, *, patience: float | None = None
) -> Iterator[VolumeGroup]:
    """The volume group with its lock (`Session.lock`), so that it keeps its name for the block."""
    while True:
        name = group_now(session, uuid).name
        with session.lock(name, patience=patience):
            vg = group_now(session, uuid)
            if vg.name == name:  # it was waited for the lock
                yield vg
                return


@contextmanager
def kept_names(session: Session, vg_uuid: str, uuid: str) -> Iterator[tuple[str, str]]:
    """The names of a volume's group and of itself, which they keep for the block."""
    with locked_group(session, vg_uuid) as vg:
        yield vg.name, volume_now(vg, uuid).name


def remove_when_free(
    session: Session, vg_uuid: str, find: Callable[[VolumeGroup], LogicalVolume | None]
) -> None:
    """Remove what `find` finds in the group as it is now; for nothing no lock is waited for.
    BusyError if it stays open: the daemon notices a little later than we that our connections to it
    are closed."""
    deadline = time.monotonic() + _RELEASE_SECONDS
    while find(group_now(session, vg_uuid)) is not None:
        try:
            with locked_group(session, vg_uuid) as vg:
                lv = find(vg)
                if lv is not None:
                    lvm_lv.remove(session, vg.name, lv.name)
            return
        except BusyError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
