"""How many chunks of a device are written in each slot of time, and how long ago they were before.

For every chunk size that a snapshot may have, a slot gives a histogram {gap: chunks}: so many
chunks were written in this slot, and last before that `gap` slots ago, 0 for never since the
measurement began. From these the number of distinct chunks in any window of slots follows
(lvm.cow_size).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ulvm.dm.device import MappedDevice
from ulvm.dm.observe import WriteObserver
from ulvm.errors import DeviceError

__all__ = ["Measurement"]

_LEAST_SHIFT, _MOST_SHIFT = 12, 19
"""4 KiB to 512 KiB: what a snapshot's chunk may be (lvcreate(8), -c). Of more than 128 TiB no such
parts are told apart, but larger ones."""


class Measurement:
    """Of one device; BusyError if it is measured already. For one thread."""

    def __init__(self, device: MappedDevice) -> None:
        self._device = device
        self._observer = WriteObserver(device.size)
        least = max(self._observer.shift, _LEAST_SHIFT)
        self._shifts = range(least, max(least, _MOST_SHIFT) + 1)
        self._last = [self._slots(shift) for shift in self._shifts]
        self._slot = 0
        device.observe(self._observer)

    def _slots(self, shift: int) -> npt.NDArray[np.uint32]:
        """When each chunk was written last, 0 for never: pages of zeros until then."""
        granules = self._observer.granules
        return np.zeros((granules >> (shift - self._observer.shift)) + 1, dtype=np.uint32)

    @property
    def chunk_sizes(self) -> list[int]:
        """In bytes."""
        return [1 << shift for shift in self._shifts]

    def slot(self) -> list[list[tuple[int, int]]]:
        """A slot ends: for each chunk size the histogram as (gap, chunks). DeviceError where the
        device is gone: one that has its name now is another one, whose writes are not seen."""
        if self._device.removed:
            raise DeviceError(f"{self._device.name} has been deactivated: no more is measured.")
        self._slot += 1
        written = self._observer.take()
        found = []
        for shift, last in zip(self._shifts, self._last, strict=True):
            chunks = np.unique(written >> (shift - self._observer.shift))
            before = last[chunks].astype(np.int64)
            last[chunks] = self._slot
            gaps, counts = np.unique(np.where(before, self._slot - before, 0), return_counts=True)
            found.append([(int(g), int(c)) for g, c in zip(gaps, counts, strict=True)])
        return found

    def close(self) -> None:
        self._device.unobserve()
