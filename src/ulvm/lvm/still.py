"""An activator that looks and does not touch: with --test, and without device-mapper."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from ulvm.activation.activate import Activator, SwapReport
from ulvm.activation.plan import PathOf
from ulvm.activation.states import LvState
from ulvm.dm_ioctl import DeviceMapper
from ulvm.metadata.model import VolumeGroup

__all__ = ["StillActivator"]


class StillActivator(Activator):
    """What is active is told as it is; every change is done by doing nothing. `dm` None: nothing
    is known to be active."""

    def __init__(self, dm: DeviceMapper | None, path_of: PathOf) -> None:
        if dm is not None:
            super().__init__(dm, path_of)
        self._knows = dm is not None

    def is_active(self, vg: VolumeGroup, lv_name: str) -> bool:
        return self._knows and super().is_active(vg, lv_name)

    def states(self, vg: VolumeGroup, names: Iterable[str] | None = None) -> dict[str, LvState]:
        return super().states(vg, names) if self._knows else {}

    def activate(self, vg: VolumeGroup, lv_name: str, *, partial: bool = False) -> None:
        pass

    def deactivate(self, vg: VolumeGroup, lv_name: str) -> None:
        pass

    def swap(
        self,
        old: VolumeGroup,
        new: VolumeGroup,
        commit: Callable[[], object],
        *,
        start_merge: bool = False,
    ) -> SwapReport:
        commit()
        return SwapReport()

    def refresh(self, vg: VolumeGroup, *, start_merges: Container[str] = ()) -> SwapReport:
        return SwapReport()
