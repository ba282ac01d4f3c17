"""A volume's extents on its PVs, without devices in between: for wiping what nobody can see yet.

A new volume's beginning is zeroed and its old signatures are wiped *before* the metadata that
make it visible are committed, as long as the extents belong to nobody. So there is no moment at
which a volume, or a snapshot with an unwiped store, could be used (LVM2 activates it first).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.errors import DeviceError, RefusedError
from ulvm.faultpoints import reach
from ulvm.lvm.session import Session
from ulvm.lvm.signatures import ask_and_wipe, left_words
from ulvm.metadata.model import LogicalVolume, StripedSegment, VolumeGroup
from ulvm.units import SECTOR, display_size

__all__ = ["ZEROED", "VolumeExtents", "wipe_new"]

ZEROED = 4096
"""Bytes zeroed at the start of a new volume."""
_MOST_BYTES = (1 << 63) - 1
"""A byte's number must fit in loff_t."""


class VolumeExtents(BlockDevice):
    """The bytes of a linear or striped volume, straight on the PVs. Slow and simple."""

    def __init__(
        self,
        vg: VolumeGroup,
        lv: LogicalVolume,
        path_of: Callable[[str], str | None],
        opener: Callable[[str, bool], BlockDevice],
    ) -> None:
        self._vg = vg
        self._lv = lv
        self._devices: dict[str, BlockDevice] = {}
        self.block_size = BlockDevice.block_size
        try:
            for segment in lv.segments:
                assert isinstance(segment, StripedSegment)
                for area in segment.areas:
                    path = path_of(area.pv_uuid)
                    if path is None:
                        raise RefusedError(f"PV {area.pv_uuid} of {vg.name}/{lv.name} is missing.")
                    if area.pv_uuid not in self._devices:
                        device = self._devices[area.pv_uuid] = opener(path, True)
                        self.block_size = max(self.block_size, device.block_size)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        return self._lv.extent_count * self._vg.extent_size * SECTOR

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[BlockDevice, int, int, int]]:
        """(device, its offset, offset in the request, length)"""
        at, end = offset, offset + length
        while at < end:
            device, place, room = self._place(at)
            count = min(room, end - at)
            yield device, place, at - offset, count
            at += count

    def _place(self, offset: int) -> tuple[BlockDevice, int, int]:
        """Where a byte lies, and how many more lie there in one piece."""
        extent = self._vg.extent_size * SECTOR
        for segment in self._lv.segments:
            inside = offset - segment.start_extent * extent
            if not 0 <= inside < segment.extent_count * extent:
                continue
            assert isinstance(segment, StripedSegment)
            count = len(segment.areas)
            stripe = segment.stripe_size * SECTOR if count > 1 else segment.extent_count * extent
            number, rest = divmod(inside, stripe)
            area = segment.areas[number % count]
            pv = self._vg.pv(area.pv_uuid)
            assert pv is not None
            start = pv.pe_start * SECTOR + area.pe * extent
            return (
                self._devices[area.pv_uuid],
                start + number // count * stripe + rest,
                stripe - rest,
            )
        raise DeviceError(f"byte {offset} is outside {self._vg.name}/{self._lv.name}")

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        view = memoryview(buffer)
        self.check_range(offset, len(view))
        for device, place, at, count in self._pieces(offset, len(view)):
            device.readinto(place, view[at : at + count])

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        view = memoryview(data)
        self.check_range(offset, len(view), write=True)
        for device, place, at, count in self._pieces(offset, len(view)):
            device.write(place, view[at : at + count])
        if fua:
            self.flush()

    def flush(self) -> None:
        for device in self._devices.values():
            device.flush()

    def close(self) -> None:
        for device in self._devices.values():
            device.close()


def wipe_new(
    session: Session,
    vg: VolumeGroup,
    lv: LogicalVolume,
    *,
    zero_bytes: int = ZEROED,
    signatures: bool = False,
) -> None:
    """Zero the start of a volume that is about to be; `signatures`: ask about, and wipe, those of
    file systems and the like that its extents still carry. RefusedError if one is to stay, or the
    volume is longer than a device may be."""
    sectors = lv.extent_count * vg.extent_size
    if sectors * SECTOR > _MOST_BYTES:
        size = display_size(sectors)
        raise RefusedError(
            f"Logical volume {vg.name}/{lv.name} of {size} is too large for a device."
        )
    device = VolumeExtents(vg, lv, session.last_scan.path_of, session.host.opener)
    path = f"{session.host.dev_dir}/{vg.name}/{lv.name}"
    left = 0
    volume = f"logical volume {vg.name}/{lv.name}"
    try:
        if signatures:
            session.verbose(f"Wiping known signatures on {volume}.")
            left = ask_and_wipe(session, device, path, of_volume=True)
        if left:
            session.warn(left_words(session, left))
            raise RefusedError(
                f"Failed to wipe signatures on {volume}.\nAborting. Failed to wipe start of new LV."
            )
        if zero_bytes:
            size = display_size(ZEROED // SECTOR)
            session.verbose(f"Initializing {size} of {volume} with value 0.")
        device.write(0, bytes(min(zero_bytes, device.size)))
        device.flush()
        reach("after new extents were wiped")
    finally:
        device.close()
