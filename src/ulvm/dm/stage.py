"""The stage of an origin: new data of first writes, in memory until their chunks are safe. That of
a snapshot is the same over another device (dm.snapshot_stage).

A write to a chunk that some snapshot has no durable copy of is answered as soon as its data are
here, as a volatile write cache answers. Reads of the origin see them; snapshots read the device
below, which still holds the old. A commit (at a flush, when half of the stage is full, or after
`_REST` seconds) does for all that was staged before it:

1. old data are copied to the COW stores, in runs, and flushed there;
2. their exceptions are written and flushed (`commit.GroupCommit`);
3. the staged pages go to the origin, and are forgotten;

and who asked for a flush then flushes the origin. So many first writes pay the barriers of one.

Crash argument. A power cut loses what is staged, of which nobody was told that it is durable; the
origin changes in 3 alone, after 2: the order of `dm.origins`. A kill -9 of the process loses
nothing that was answered: the pages lie in a mapped file of the run directory, each slot with a
head of its page and a number. A head is filled in when the page is whole, and its number cleared
when the page has reached the origin or lies in a newer slot. The next process takes them up
(`adopt`) before anybody can read or write the origin: they are staged anew, exceptions and all; a
page that had reached the origin already is written once more with what is there. They are taken up
whatever the settings are by then and whatever table the device has got (dm.takeup). After a boot
the file means nothing. Who begins has a file of its own: one of the same name is removed first,
and its owner, that is about to go, keeps what it has mapped (dm.stage_file).

What is where. `_active` and `_sealed` map pages to slots; the sealed ones are being committed. A
page is looked for in `_active`, then in `_sealed`, then on the device: a commit makes pages sealed
before they stop to be active, and lets go of them when they are on the device, so they are always
found; a map that was sealed does not change, since readers may still look into it. Readers take no
lock: a slot's number changes whenever the slot is filled or freed, and who finds it changed after
copying looks again under the lock.

Who finds no room waits for the commit under way, and is slowed down before it comes to that: what
a writer waits for a stage that is full is spread over all that fills it (dm.pace).

A page that cannot be written stays, and each commit tries it again and fails; so nothing that was
answered is lost as long as there is hope, and every flush says that it is not durable. So stays
what a killed process left, where a disk can only be read by now.

The last page of an origin that is not whole is never staged (`dm.origins`): what is behind its end
may be something else's by the time it is written.

Locks: `committing`, then the origin's. `_active` and the free slots change under the latter.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.dm.exceptions.map import Numbers, runs_of
from ulvm.dm.pace import Pace
from ulvm.dm.stage_file import (
    HEADER,
    MOST_NUMBER,
    PAGE,
    PAGE_SHIFT,
    allocate,
    header,
    open_file,
    remove_file,
    sizes,
)
from ulvm.errors import DeviceError

__all__ = ["Stage"]

_REST = 1.0
"""Seconds that a page stays, if it can be written."""
_IDLE = 5
"""After so many rests without a page the thread ends and memory is given back."""
_RUN_PAGES = 256
_MANY = 8 * PAGE
"""From so many bytes on pages are put together."""
_GROW_PAGES = 1024


class Stage:
    """Pages of `device`. `lock`: the origin's. `settle()` makes durable the exceptions they need
    and raises DeviceError when the origin must not change. What is called under the lock says so.
    """

    def __init__(
        self,
        device: BlockDevice,
        lock: threading.RLock,
        *,
        settle: Callable[[], None],
        log: Callable[[str], None],
        slots: int,
        path: Path | None = None,
        whose: str = "",
        goes_on: bool = False,
    ) -> None:
        """`whose`: what tells the origin of a file from others; a device may have been given it
        since. `goes_on`: what is in the file is kept for `adopt`. OSError if there is no such file
        to be had."""
        self._device = device
        self._lock = lock
        self._let_gone = threading.Condition(lock)
        self._settle = settle
        self._log = log
        self._path = path
        self.slots = slots
        """How many pages there may be: fewer when no more memory is to be had for the file."""
        self._active: dict[int, int] = {}
        self._sealed: dict[int, int] = {}
        self._there: list[Numbers] = []  # of the sealed, on the device already
        self.committing = threading.Lock()
        """Held as long as a commit is under way."""
        self.failed = False  # did the last commit
        self._pace = Pace()
        self._number = 0
        self.holds = False
        """Whether anything is staged. Set before a page can be found, cleared after the last."""
        self._data_at, size = sizes(slots)
        self._header = header(slots, whose)
        self._headers = (self._header, header(slots, ""))
        self._least_free = 0  # bytes of the file system that stay so
        self._fd = -1
        self._memory = self._map(size, goes_on=goes_on)
        view = memoryview(self._memory)
        self._heads = view[PAGE : PAGE + 16 * slots].cast("Q")
        """Of each slot its page and its number, 0 for a free one."""
        self._pages, self._numbers = np.frombuffer(self._heads, dtype=np.uint64).reshape(-1, 2).T
        self._data = view[self._data_at :]
        self._bytes = np.frombuffer(self._data, dtype=np.uint8)
        self._free: list[int] = []
        self._ready = 0  # slots below have memory
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    # -- the file ---------------------------------------------------------------------------

    def _map(self, size: int, *, goes_on: bool) -> mmap.mmap:
        if self._path is None:
            return mmap.mmap(-1, size)
        self._fd, self._least_free = open_file(self._path, size, self._data_at, goes_on=goes_on)
        try:
            return mmap.mmap(self._fd, size)
        except BaseException:
            os.close(self._fd)
            raise

    def left(self) -> dict[int, int]:
        """Pages, with their slots, that a killed process left in the file."""
        most = int(self._numbers.max(initial=0))
        if self._memory[: HEADER.size] not in self._headers or most >= MOST_NUMBER:
            return {}
        newest: dict[int, tuple[int, int]] = {}
        for slot in np.flatnonzero(self._numbers):
            page, number = self._heads[2 * slot], self._heads[2 * slot + 1]
            newest[page] = max(newest.get(page, (0, 0)), (number, int(slot)))
        pages = -(-self._device.size // PAGE)
        return {page: slot for page, (_, slot) in newest.items() if page < pages}

    def begin(self) -> None:
        """Forget what is in the file. Under the lock, with nothing staged."""
        self._numbers[:] = 0
        self._memory[: HEADER.size] = self._header

    def adopt(self, pages: dict[int, int]) -> None:
        """Take up what `left` gave; the caller has allocated their exceptions. Under the lock."""
        self.holds = bool(pages)
        self._memory[: HEADER.size] = self._header
        kept = set(pages.values())
        self._number = int(self._numbers.max(initial=0))
        for slot in np.flatnonzero(self._numbers):
            if int(slot) not in kept:
                self._numbers[slot] = 0
        self._ready = -(-(max(kept, default=-1) + 1) // _GROW_PAGES) * _GROW_PAGES
        self._ready = min(self._ready, self.slots)
        self._free = [slot for slot in range(self._ready - 1, -1, -1) if slot not in kept]
        self._active = dict(pages)
        self._start()

    def close(self, *, keep: bool = False) -> None:
        """For good; what could not be written is lost, and said so, or `keep`: is in the file."""
        self._closed = True
        self.slots = 0  # who waits for room is not to wait for ever
        self._wake.set()
        if (thread := self._thread) is not None and thread is not threading.current_thread():
            thread.join(2 * _REST)
        left = len(self._active) + len(self._sealed)
        if left and not keep:
            self._log(f"{left * PAGE} bytes that were written and not flushed are lost")
        if self._path is not None:
            if not keep and (problem := remove_file(self._path, self._fd)):
                self._numbers[:] = 0  # What stays there means nothing.
                self._log(problem)
            os.close(self._fd)
            self._fd = -1

    def retire(self) -> None:
        """Take no page any more. Under the lock."""
        self.slots, self._free = 0, []

    # -- writing ----------------------------------------------------------------------------

    def has(self, first: int, last: int) -> bool:
        """Whether any of the pages first..last is staged."""
        active, sealed = self._active, self._sealed
        if not active and not sealed:
            return False
        if first == last:
            return first in active or first in sealed
        return any(page in active or page in sealed for page in range(first, last + 1))

    def has_room(self, pages: int) -> bool:
        """Under the lock; True: so many can be put."""
        while len(self._free) < pages:
            if not self._grow():
                return False
        return True

    def make_room(self) -> None:
        """Return when the commit under way is through, or one that is made now. DeviceError from
        the latter."""
        with self._lock:
            if self._sealed:
                self._let_gone.wait()
                return
        self.commit()

    def keep_pace(self) -> None:
        """After a `put`: wait for a moment if writers fill the stage too fast. Where nobody commits
        in time what is staged, for want of threads, who puts it must. DeviceError from that."""
        sealed = len(self._sealed)
        if sealed:
            if self._pace.wait(len(self._active) / max(self.slots - sealed, 1), sealed):
                self._wake.set()
        elif self._thread is None and self._active:
            self.commit()

    def _grow(self) -> bool:
        more = min(_GROW_PAGES, self.slots - self._ready)
        if more <= 0:
            return False
        if self._fd >= 0:
            start = self._data_at + self._ready * PAGE
            try:
                allocate(self._fd, start, more * PAGE, self._least_free)
            except OSError as error:
                self._log(f"the stage stays at {self._ready * PAGE} bytes: {error.strerror}")
                self.slots = self._ready
                return False
        self._free[:0] = range(self._ready + more - 1, self._ready - 1, -1)
        self._ready += more
        return True

    def put(self, offset: int, data: Buffer) -> None:
        """Stage a write for which there is room. Under the lock."""
        view = memoryview(data)
        end = offset + len(view)
        position = offset
        heads, active, free = self._heads, self._active, self._free
        many = True
        while position < end:
            if many and end - position >= _MANY and not position & (PAGE - 1):
                length = self._put_run(position, view[position - offset :]) << PAGE_SHIFT
                position += length
                many = length >= _MANY  # else the look at the rest is not worth its time
                continue
            page = position >> PAGE_SHIFT
            upto = min((page + 1) << PAGE_SHIFT, end)
            slot = free.pop()
            place = slot << PAGE_SHIFT
            piece = view[position - offset : upto - offset]
            if upto - position < PAGE:
                try:
                    self._fill(page, place)
                except BaseException:
                    free.append(slot)
                    raise
                start = place + (position & (PAGE - 1))
                self._data[start : start + len(piece)] = piece
            else:
                self._data[place : place + PAGE] = piece
            old = active.get(page)
            self.holds = True
            active[page] = slot
            self._number += 1
            heads[2 * slot] = page
            heads[2 * slot + 1] = self._number  # last: want of memory leaves it free
            if old is not None:
                heads[2 * old + 1] = 0
                free.append(old)
            position = upto
        if len(active) * 2 >= self.slots and not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._start()

    def _put_run(self, position: int, view: memoryview) -> int:
        """Whole pages from the start of `view`, which is for a page's beginning, as many as there
        are slots that follow each other; how many. 0 if any of them is active already."""
        free = self._free
        count = len(view) >> PAGE_SHIFT
        first = free[-1]
        if free[-count:] != list(range(first + count - 1, first - 1, -1)):
            count = next(n for n in range(1, count) if free[-1 - n] != first + n)
        page = position >> PAGE_SHIFT
        whole = range(page, page + count)
        if not self._active.keys().isdisjoint(whole):
            return 0
        room = self._bytes[first << PAGE_SHIFT : (first + count) << PAGE_SHIFT]
        # NumPy lets other threads run while it copies.
        np.copyto(room, np.frombuffer(view[: room.size], dtype=np.uint8))
        pages = np.arange(page, page + count, dtype=np.uint64)
        numbers = np.arange(self._number + 1, self._number + count + 1, dtype=np.uint64)
        del free[-count:]
        self.holds = True
        self._active.update(zip(whole, range(first, first + count), strict=True))
        self._number += count
        self._pages[first : first + count] = pages
        self._numbers[first : first + count] = numbers
        return count

    def _slot(self, page: int) -> int | None:
        """Where a page is, if it is staged. Under the lock."""
        slot = self._active.get(page)
        return self._sealed.get(page) if slot is None else slot

    def _fill(self, page: int, place: int) -> None:
        """What the page holds now."""
        slot = self._slot(page)
        if slot is not None:
            start = slot << PAGE_SHIFT
            self._data[place : place + PAGE] = self._data[start : start + PAGE]
            return
        length = min(PAGE, self._device.size - (page << PAGE_SHIFT))
        self._device.readinto(page << PAGE_SHIFT, self._data[place : place + length])

    # -- reading ----------------------------------------------------------------------------

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        """Of the origin as its users see it."""
        view = memoryview(buffer)
        end = offset + len(view)
        active, sealed, heads = self._active, self._sealed, self._heads
        found: list[tuple[int, int, int]] = []
        pages = range(offset >> PAGE_SHIFT, ((end - 1) >> PAGE_SHIFT) + 1)
        for page in pages:
            slot = active.get(page)
            if slot is None:
                slot = sealed.get(page)
                if slot is None:
                    continue
            found.append((page, slot, heads[2 * slot + 1]))
        if len(found) < len(pages):
            self._device.readinto(offset, view)
        for page, slot, number in found:
            if not number or heads[2 * slot] != page:
                break
            self._copy(page, slot, offset, view)
            if heads[2 * slot + 1] != number:
                break
        else:
            return
        with self._lock:
            self._read_still(offset, view)

    def _copy(self, page: int, slot: int, offset: int, view: memoryview) -> None:
        """What the slot holds of the request."""
        start = max(page << PAGE_SHIFT, offset)
        upto = min((page + 1) << PAGE_SHIFT, offset + len(view))
        place = (slot << PAGE_SHIFT) + (start & (PAGE - 1))
        view[start - offset : upto - offset] = self._data[place : place + upto - start]

    def _read_still(self, offset: int, view: memoryview) -> None:
        """Under the lock: no page comes or goes."""
        self._device.readinto(offset, view)
        for page in range(offset >> PAGE_SHIFT, ((offset + len(view) - 1) >> PAGE_SHIFT) + 1):
            slot = self._slot(page)
            if slot is not None:
                self._copy(page, slot, offset, view)

    # -- committing -------------------------------------------------------------------------

    def commit(self) -> None:
        """Return when all that was staged before the call is on the device (not flushed), behind
        its exceptions. Any error if not: what could not be written is still staged."""
        with self.committing:
            with self._lock:
                if not (self._active or self._sealed) or self._closed:
                    return
                # Sealed are still those that could not be let go of, for want of memory.
                sealed = {**self._sealed, **self._active} if self._sealed else self._active
                kept = set(sealed)
                self._there = []
                self._pace.begin()
                self._sealed, self._active = sealed, {}
            try:
                self._settle()
                if self._closed:  # Others write to the origin by now.
                    return
                self._write_out(kept)
                self._pace.end(len(sealed))
            finally:
                self.failed = bool(kept)
                with self._lock:
                    self._let_go(kept)

    def _write_out(self, kept: set[int]) -> None:
        """The sealed pages to the device; only those that it does not take stay in `kept`."""
        size = self._device.size
        pages, slots = self.sealed()
        if self._there:
            left = ~np.isin(pages, np.concatenate(self._there))
            pages, slots = pages[left], slots[left]
        runs = runs_of(pages, slots, _RUN_PAGES).tolist()
        pieces = []
        for page, slot, count in runs:
            length = min(count << PAGE_SHIFT, size - (page << PAGE_SHIFT))
            pieces.append((page << PAGE_SHIFT, self.data(slot, count)[:length]))
        try:
            self._device.write_each(pieces)
        except DeviceError as error:
            kept.intersection_update(pages.tolist())
            for (page, _, count), (offset, data) in zip(runs, pieces, strict=True):
                with suppress(DeviceError):
                    self._device.write(offset, data)
                    kept.difference_update(range(page, page + count))
            if kept:
                raise
            self._log(f"at a second attempt was taken what had been refused: {error}")
        kept.clear()

    def sealed(self) -> tuple[Numbers, Numbers]:
        """The pages that are being committed, ascending, and their slots."""
        sealed = self._sealed
        pages = np.fromiter(sealed.keys(), dtype=np.int64, count=len(sealed))
        slots = np.fromiter(sealed.values(), dtype=np.int64, count=len(sealed))
        order = np.argsort(pages)
        return pages[order], slots[order]

    def data(self, slot: int, count: int) -> memoryview:
        """Of slots that follow each other."""
        return self._data[slot << PAGE_SHIFT : (slot + count) << PAGE_SHIFT]

    def are_there(self, pages: Numbers) -> None:
        """`settle` has written these of the sealed to the device."""
        self._there.append(pages)

    def _let_go(self, kept: set[int]) -> None:
        """Of the sealed pages but those to be kept, which are active again if no newer data are.
        Under the lock. The numbers first: from then on the next process does not write them."""
        try:
            sealed, active = self._sealed, self._active
            back = {page: sealed[page] for page in kept if page not in active}
            slots = np.array([slot for page, slot in sealed.items() if page not in back], np.int64)
            slots[::-1].sort()
            free = self._free + slots.tolist() if self.slots else self._free
            active = {**active, **back} if back else active
            self._numbers[slots] = 0  # From here on nothing wants memory.
            self._sealed, self._active, self._free = {}, active, free
            self.holds = bool(active)
        finally:
            self._let_gone.notify_all()

    # -- in time ----------------------------------------------------------------------------

    def _start(self) -> None:
        with suppress(RuntimeError, MemoryError):  # no more threads, see `keep_pace`
            thread = threading.Thread(target=self._run, name="ulvm-stage", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        said, idle = "", 0
        while not self._closed:
            self._wake.wait(_REST)
            self._wake.clear()
            try:
                self.commit()
                said = ""
            except Exception as error:  # A thread that ends would leave all to those who flush.
                if said != str(error):
                    said = str(error)
                    self._log(f"written data cannot reach the device, and are kept: {error!r}")
            with self._lock:
                idle = 0 if self.holds else idle + 1
                if idle >= _IDLE:
                    self._give_back()
                    self._thread = None
                    return

    def _give_back(self) -> None:
        """The memory of free slots, all of them. Under the lock."""
        self._free, self._ready = [], 0
        with suppress(OSError):  # the file system makes no holes
            self._memory.madvise(mmap.MADV_REMOVE, self._data_at)
