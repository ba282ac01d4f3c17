"""Changes of devices and of metadata are not cut short by SIGINT, SIGTERM or SIGHUP: a signal that
comes in the midst of one waits for its end, as in LVM2, which holds signals back under its locks.
What is suspended would stay so until the next change of the group, and its users would wait as
long; and PVs that a half of the metadata names are refused to all but the same command."""

from __future__ import annotations

import signal
from collections.abc import Container, Iterator
from contextlib import contextmanager

from ulvm.activation.activate import Activator, SwapReport
from ulvm.metadata.model import VolumeGroup

__all__ = ["UndisturbedActivator", "undisturbed"]

_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold those signals back in this thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class UndisturbedActivator(Activator):
    """Each change of devices as a whole, or what is left when it failed. A `swap` has the commit in
    its midst: whoever makes that (`Session.change_vg`) holds them back over both."""

    def activate(self, vg: VolumeGroup, lv_name: str, *, partial: bool = False) -> None:
        with undisturbed():
            super().activate(vg, lv_name, partial=partial)

    def deactivate(self, vg: VolumeGroup, lv_name: str) -> None:
        with undisturbed():
            super().deactivate(vg, lv_name)

    def refresh(self, vg: VolumeGroup, *, start_merges: Container[str] = ()) -> SwapReport:
        with undisturbed():
            return super().refresh(vg, start_merges=start_merges)
