"""Commands that go on by themselves, and what sees to the end of a merge or a move."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TypeVar

from ulvm.errors import DaemonGoneError
from ulvm.lvm.session import Session

__all__ = ["outlive_daemons", "poll_words", "start_background"]

_T = TypeVar("_T")
_DAEMONS = 3


def start_background(session: Session, *words: str) -> None:
    """Start an ulvm command as a process of its own, which sees the devices that this one does; on
    trial nothing, since it would change things."""
    if session.host.trial:
        return
    devices = (word for path in session.host.only_devices for word in ("--devices", path))
    subprocess.Popen(
        session.host.background_command(*words, *devices),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def poll_words(operation: str, volume: str, vg_uuid: str) -> list[str]:
    """The command that sees to the end of a merge or a move of the VG/LV: of this VG, though
    another has its name."""
    return ["lvpoll", "--polloperation", operation, "--vguuid", vg_uuid, volume]


def outlive_daemons(session: Session, step: Callable[[], _T]) -> _T:
    """What `step()` returns; it begins again if the daemon is killed in the midst of it, since the
    next one brings devices back, and volumes to what is committed. DaemonGoneError if that goes on.
    """
    for left in reversed(range(_DAEMONS)):
        try:
            return step()
        except DaemonGoneError:
            if not left:
                raise
            session.close()  # The next request starts one anew.
    raise AssertionError("unreachable")
