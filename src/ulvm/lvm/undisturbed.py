"""Changes of devices are not cut short by SIGINT, SIGTERM or SIGHUP: a signal that comes in the
midst of one waits for its end. What is suspended would stay so until the next change of the group,
and its users would wait as long. Those that go with a change of metadata are held back by
`Session.hold_signals`."""

from __future__ import annotations

import signal
from collections.abc import Container, Iterator
from contextlib import contextmanager

from ulvm.activation.activate import Activator, SwapReport
from ulvm.lvm.session import HELD_BACK
from ulvm.metadata.model import VolumeGroup

__all__ = ["UndisturbedActivator"]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold those signals back in this thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class UndisturbedActivator(Activator):
    """Each change of devices as a whole, or what is left when it failed. A `swap` has the commit in
    its midst: whoever makes that (`Session.change_vg`) holds signals back over both."""

    def activate(self, vg: VolumeGroup, lv_name: str, *, partial: bool = False) -> None:
        with _undisturbed():
            super().activate(vg, lv_name, partial=partial)

    def deactivate(self, vg: VolumeGroup, lv_name: str) -> None:
        with _undisturbed():
            super().deactivate(vg, lv_name)

    def refresh(self, vg: VolumeGroup, *, start_merges: Container[str] = ()) -> SwapReport:
        with _undisturbed():
            return super().refresh(vg, start_merges=start_merges)
