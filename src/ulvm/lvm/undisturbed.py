"""Changes of devices are not cut short by Ctrl-C, SIGTERM or SIGHUP, nor halted by Ctrl-Z: a signal
that comes in the midst of one waits for its end. What is suspended would stay so until the next
change of the group, or until the command goes on, and its users would wait as long. Those that go
with a change of metadata are held back by `Session.hold_signals`."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager

from ulvm.activation.activate import Activator, SwapReport
from ulvm.activation.plan import PathOf
from ulvm.dm_ioctl import DeviceMapper
from ulvm.lvm.signals import HeldSignals
from ulvm.metadata.model import VolumeGroup

__all__ = ["UndisturbedActivator"]


@contextmanager
def _undisturbed() -> Iterator[None]:
    signals = HeldSignals()
    try:
        signals.hold()
        yield
    finally:
        signals.let_go()


class UndisturbedActivator(Activator):
    """Each change of devices as a whole, or what is left when it failed, and what is said of it
    `kept` for its end. A `swap` has the commit in its midst: whoever makes that
    (`Session.change_vg`) holds both back over both."""

    def __init__(
        self,
        dm: DeviceMapper,
        path_of: PathOf,
        *,
        view: Callable[[VolumeGroup], VolumeGroup],
        filler: str,
        kept: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__(dm, path_of, view=view, filler=filler)
        self._kept = kept

    def activate(self, vg: VolumeGroup, lv_name: str, *, partial: bool = False) -> None:
        with _undisturbed(), self._kept():
            super().activate(vg, lv_name, partial=partial)

    def deactivate(self, vg: VolumeGroup, lv_name: str) -> None:
        with _undisturbed(), self._kept():
            super().deactivate(vg, lv_name)

    def refresh(self, vg: VolumeGroup, *, start_merges: Container[str] = ()) -> SwapReport:
        with _undisturbed(), self._kept():
            return super().refresh(vg, start_merges=start_merges)
