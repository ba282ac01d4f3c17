"""mirror: `core <#args> <region size> [sync|nosync] <#legs> (<dev> <offset>)+ [<#features> ...]`
(drivers/md/dm-raid1.c, dm-log.c), as far as pvmove needs it: a log in memory.

The first leg holds the data; the others get a copy, region by region. A worker copies each region
once, in order, and marks it in sync; a write goes to the first leg, and to the others where their
region is in sync. Reads are answered by the first leg, and by another one only when it fails in a
region that is in sync.

Why a copy cannot be stale: a lock per region (of `_LOCKS`, by its number) is held from the decision
where a write goes to its last leg, and from the first byte that is copied to the mark. So a write
is before the copy, which then takes it along, or after the mark, and goes to all legs; and of two
writes to one place, all legs have the same one last.

Crash argument. The first leg alone is the truth until somebody drops it: it has every write, a
flush is answered when it is durable there, and after a restart all regions are copied anew, but
those of a table that says nosync: that vouches for the copies, then as before. Who drops it for a
copy suspends the device first. That flushes the copies (`postsuspend`), and a copy that could not
be written or flushed is out of sync from then on; so the status, read between the suspend and the
change, tells whether the copy may be used.

Errors: of the first leg's writes, as a plain device's. Of a copy: the writer never sees it; the leg
is marked in the status (D write, S while copying, F flush, R read) and its region stays out of
sync until the device is resumed the next time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

from ulvm.blockdev.base import BlockDevice, Buffer, Extent, WritableBuffer
from ulvm.dm.targets.base import Target, TargetContext, parse_sector
from ulvm.errors import DeviceError, TableError, UlvmError
from ulvm.faultpoints import reach
from ulvm.units import SECTOR, parse_u64

__all__ = ["MirrorTarget"]

_LOCKS = 64
_MAX_LEGS = 9
_COPY_BYTES = 1 << 20
_HEALTH = "FDSR"
"""What is said of a leg with several faults: the first of these that it has."""


class MirrorTarget(Target):
    type_name: ClassVar[str] = "mirror"
    version: ClassVar[tuple[int, int, int]] = (1, 14, 0)

    def __init__(self, context: TargetContext, begin: int, length: int, args: list[str]) -> None:
        super().__init__(begin, length)
        region, self._sync_word, rest = _parse_log(args, length // SECTOR)
        count = parse_u64(rest[0]) if rest else None
        if count is None or not 2 <= count <= _MAX_LEGS:
            raise TableError("Invalid number of mirrors")
        if len(rest) < 1 + 2 * count:
            raise TableError("Too few mirror arguments")
        self._legs: list[BlockDevice] = []
        self._starts: list[int] = []
        for name, word in zip(
            rest[1 : 1 + 2 * count : 2], rest[2 : 2 + 2 * count : 2], strict=True
        ):
            start = parse_sector(word, "Invalid offset")
            self._legs.append(context.resolve(name))
            self._starts.append(start * SECTOR - begin)
        self._features = _parse_features(rest[1 + 2 * count :])
        self._region = region * SECTOR
        self._synced = bytearray(-(-length // self._region))
        if self._sync_word == "nosync":
            self._synced = bytearray(b"\1" * len(self._synced))
        self._faults: list[set[str]] = [set() for _ in self._legs]
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._barriers = context.barriers
        self._mapped = context.device
        self._log = context.log
        self.still = False
        """Copy nothing before the second resume (dm.state)."""
        self._stop = threading.Event()
        self._worker: threading.Thread | None = None
        self.devices = tuple(self._legs)
        self.flush_devices = (self._legs[0],)

    def areas(self) -> Iterable[tuple[BlockDevice, int, int]]:
        starts = (start + self.begin for start in self._starts)
        return [(leg, at, self.length) for leg, at in zip(self._legs, starts, strict=True)]

    # -- life cycle -------------------------------------------------------------------------

    def resume(self) -> None:
        self._faults = [set() for _ in self._legs]
        still, self.still = self.still, False
        if still or all(self._synced):
            return
        self._stop.clear()
        name = f"mirror-{self._mapped.minor}"
        worker = threading.Thread(target=self._copy_all, name=name, daemon=True)
        try:
            worker.start()
            self._worker = worker
        except (RuntimeError, MemoryError) as error:  # no more threads
            self._fault(0, "S", f"Unable to begin recovery: {error!r}")

    def presuspend(self) -> None:
        self._stop.set()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def postsuspend(self) -> None:
        if self._barriers:
            self._flush_copies()

    def destroy(self) -> None:
        self.presuspend()

    # -- copying ----------------------------------------------------------------------------

    def _copy_all(self) -> None:
        try:
            self._copy_regions()
        except Exception as error:  # want of memory: whoever polls is to know
            self._fault(0, "S", f"Recovery failed: {error!r}")

    def _copy_regions(self) -> None:
        for region in range(len(self._synced)):
            if self._stop.is_set():
                return
            if not self._synced[region]:
                with self._locks[region % _LOCKS]:
                    self._synced[region] = self._copy(region)
                reach("after a region was copied")
        if self._barriers:
            self._flush_copies()
        if all(self._synced):
            self._mapped.event()

    def _copy(self, region: int) -> bool:
        """Bring the other legs to the first one's content. Whether all have it."""
        at = self.begin + region * self._region
        end = min(at + self._region, self.begin + self.length)
        buffer = memoryview(bytearray(min(_COPY_BYTES, end - at)))
        good = True
        while at < end:
            piece = buffer[: min(len(buffer), end - at)]
            try:
                self._legs[0].readinto(at + self._starts[0], piece)
            except UlvmError as error:
                self._fault(0, "S", f"Unable to read primary mirror during recovery: {error}")
                return False
            for leg in range(1, len(self._legs)):
                try:
                    self._legs[leg].write(at + self._starts[leg], piece)
                except UlvmError as error:
                    self._fault(leg, "S", f"Write error during recovery: {error}")
                    good = False
            at += len(piece)
        return good

    def _flush_copies(self) -> None:
        for leg in range(1, len(self._legs)):
            try:
                self._legs[leg].flush()
            except UlvmError as error:
                self._fault(leg, "F", f"Flush failed: {error}")
                # Nobody knows what of it is durable.
                self._synced = bytearray(len(self._synced))

    def _fault(self, leg: int, kind: str, text: str) -> None:
        if kind not in self._faults[leg]:
            self._faults[leg].add(kind)
            self._log(text)
            self._mapped.event()

    # -- I/O --------------------------------------------------------------------------------

    @property
    def can_discard(self) -> bool:
        return all(leg.can_discard for leg in self._legs)

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        try:
            self._legs[0].readinto(offset + self._starts[0], buffer)
        except DeviceError as error:
            self._read_copy(offset, buffer, error)

    def _read_copy(self, offset: int, buffer: WritableBuffer, error: DeviceError) -> None:
        self._fault(0, "R", f"Read failure on the first leg: {error}")
        view = memoryview(buffer).cast("B")
        for region, start, length in self._pieces(offset, len(view)):
            if not self._synced[region]:
                raise error
            piece = view[start - offset : start - offset + length]
            self._legs[1].readinto(start + self._starts[1], piece)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(region, offset, length) of each region that a request touches."""
        end = offset + length
        while offset < end:
            region = (offset - self.begin) // self._region
            upto = min(end, self.begin + (region + 1) * self._region)
            yield region, offset, upto - offset
            offset = upto

    def _to_legs(
        self, offset: int, length: int, send: Callable[[BlockDevice, int, int, int], None]
    ) -> None:
        """`send(leg, its offset, position in the request, length)` where a change has to go."""
        for region, start, count in self._pieces(offset, length):
            with self._locks[region % _LOCKS]:
                send(self._legs[0], start + self._starts[0], start - offset, count)
                if not self._synced[region]:
                    continue
                for leg in range(1, len(self._legs)):
                    try:
                        send(self._legs[leg], start + self._starts[leg], start - offset, count)
                    except UlvmError as error:
                        self._synced[region] = False
                        self._fault(leg, "D", f"Write failure on leg {leg}: {error}")

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        view = memoryview(data).cast("B")

        def send(leg: BlockDevice, where: int, position: int, count: int) -> None:
            leg.write(where, view[position : position + count], fua=fua)

        self._to_legs(offset, len(view), send)

    def discard(self, offset: int, length: int) -> None:
        self._to_legs(offset, length, lambda leg, where, _, count: leg.discard(where, count))

    def write_zeroes(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        def send(leg: BlockDevice, where: int, _: int, count: int) -> None:
            leg.write_zeroes(where, count, no_hole=no_hole, fua=fua)

        self._to_legs(offset, length, send)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for extent in self._legs[0].extents(offset + self._starts[0], length):
            yield extent._replace(offset=extent.offset - self._starts[0])

    # -- asking -----------------------------------------------------------------------------

    def table(self, number: Callable[[BlockDevice], str]) -> str:
        words = ["core", "2" if self._sync_word else "1", str(self._region // SECTOR)]
        words += [self._sync_word] if self._sync_word else []
        words.append(str(len(self._legs)))
        for leg, start in zip(self._legs, self._starts, strict=True):
            words += [number(leg), str((start + self.begin) // SECTOR)]
        if self._features:
            words += [str(len(self._features)), *self._features]
        return " ".join(words)

    def status(self, number: Callable[[BlockDevice], str]) -> str:
        legs = " ".join(number(leg) for leg in self._legs)
        health = "".join(
            next((kind for kind in _HEALTH if kind in faults), "A") for faults in self._faults
        )
        done = f"{sum(self._synced)}/{len(self._synced)}"
        return f"{len(self._legs)} {legs} {done} 1 {health} 1 core"


def _parse_log(args: list[str], sectors: int) -> tuple[int, str, list[str]]:
    """(region size in sectors, "sync", "nosync" or "", the words after the log's)."""
    if len(args) < 2:
        raise TableError("Insufficient mirror log arguments")
    count = parse_u64(args[1])
    if count is None:
        raise TableError("Invalid mirror log argument count")
    if len(args) < 2 + count:
        raise TableError("Insufficient mirror log arguments")
    words = args[2 : 2 + count]
    region = parse_u64(words[0]) if words else None
    sync = words[1] if len(words) > 1 else ""
    if (
        args[0] != "core"
        or len(words) not in (1, 2)
        or region is None
        or not 2 <= region <= sectors
        or region & (region - 1)
        or sync not in ("", "sync", "nosync")
    ):
        raise TableError("Error creating mirror dirty log")
    return region, sync, args[2 + count :]


def _parse_features(words: list[str]) -> list[str]:
    """Accepted and shown; errors are handled as the head of this module says."""
    if not words:
        return []
    count = parse_u64(words[0])
    if count is None:
        raise TableError("Invalid number of features")
    features = words[1 : 1 + count]
    if len(features) < count:
        raise TableError("Not enough arguments to support feature count")
    if not set(features) <= {"handle_errors", "keep_log"}:
        raise TableError("Unrecognised feature requested")
    if "keep_log" in features and "handle_errors" not in features:
        raise TableError("keep_log feature requires the handle_errors feature")
    if len(words) > 1 + count:
        raise TableError("Too many mirror arguments")
    return features
