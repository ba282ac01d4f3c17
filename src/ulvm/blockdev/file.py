"""A plain file or a disk as a block device.

Holes and zeros are the file system's: `discard` and `write_zeroes` punch holes or zero ranges
(fallocate(2), which works on block devices as well), and fall back to writing where that is not
offered. A disk is discarded with BLKDISCARD.

Durability is fdatasync(2). After a failed one the kernel may have thrown the data away and
forgets the error, so that the next call would succeed: the first failure is remembered here and
every later flush fails with it, until the device is opened anew. It tells an error to one caller
alone, too: so a flush or FUA write that went well waits for those that were under way beside it,
and fails if one of them was told.

The fast path is `readinto` and `write`: one comparison and one system call. The size is looked
up only when a request seems to lie outside.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ulvm.blockdev.base import BlockDevice, Buffer, Extent, WritableBuffer
from ulvm.blockdev.claim import check_users, claim_file
from ulvm.errors import BusyError, DeviceError, NotFoundError, NotSupportedError

__all__ = ["FileDevice"]

_KEEP_SIZE = 1  # linux/falloc.h
_PUNCH_HOLE = 2
_ZERO_RANGE = 16

_BLKDISCARD = 0x1277  # linux/fs.h
_BLKSSZGET = 0x1268
_BLKROGET = 0x125E

_NOT_OFFERED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL, errno.EPERM)


_MANY = 64
"""From so many pieces on they are worth one system call."""
_ALIGNED = max(mmap.PAGESIZE, 4096)
"""Pages of the cache that are written past it are not to be shared with data that are not."""
_AGAIN = (errno.EAGAIN, errno.EINTR)


@cache
def _libc_fallocate() -> Callable[[int, int, int, int], int]:
    """fallocate(2) with its error number or 0, which the standard library does not have. ctypes is
    for those who punch holes: a command that looks at disks starts without it."""
    import ctypes

    function = ctypes.CDLL(None, use_errno=True).fallocate64
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

    def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
        return ctypes.get_errno() if function(fd, mode, offset, length) else 0

    return fallocate


class FileDevice(BlockDevice):
    """`claim`: exclusive use against other programs (see `claim`); without it the device is open
    to a moment's look or a metadata write beside its owner.

    NotFoundError if there is no such path, BusyError if somebody else uses it, DeviceError
    if it cannot be opened or is neither a plain file nor a block device. Thread safe.
    """

    def __init__(self, path: str, *, writable: bool = True, claim: bool = True) -> None:
        self.path = path
        self.read_only = not writable
        self._fd = -1
        self._direct = -1
        """Another descriptor of it, with O_DIRECT."""
        self._is_direct: bool | None = None
        """Whether there is one that works; None: not tried yet."""
        self._failed_flush: int | None = None
        self._unsynced = True
        """Set when a write is done, cleared before a sync: nothing to sync while it is clear."""
        self._on_fuse: bool | None = None
        self._syncs: set[object] = set()
        self._synced = threading.Condition()
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        try:
            found = os.stat(path)
            self._is_disk = stat.S_ISBLK(found.st_mode)
            if not self._is_disk and not stat.S_ISREG(found.st_mode):
                raise DeviceError(
                    f"{path} is neither a file nor a block device.", errno=errno.ENOTBLK
                )
            if claim and not self._is_disk:
                check_users(path, writable=writable)
            self._fd = os.open(path, flags | (os.O_EXCL if claim and self._is_disk else 0))
        except OSError as error:
            raise _open_error(path, error) from error
        try:
            if claim and not self._is_disk:
                claim_file(self._fd, path, writable=writable)
            self._known_size = self.size
            if self._is_disk and writable and _is_read_only(self._fd):
                raise DeviceError(f"{path} is read-only.", errno=errno.EROFS)
            if self._is_disk:
                self.block_size = _logical_block_size(self._fd)
        except BaseException:
            self.close()
            raise
        self.can_discard = writable and (not self._is_disk or _disk_discards(found.st_rdev))
        self.identity: tuple[int, int, int] = (
            (1, os.major(found.st_rdev), os.minor(found.st_rdev))
            if self._is_disk
            else (0, found.st_dev, found.st_ino)
        )
        """The same for two names of one file: (1, major, minor) or (0, st_dev, st_ino)."""

    @property
    def size(self) -> int:
        try:
            return os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> DeviceError:
        return DeviceError(f"{self.path}: {error.strerror}", errno=error.errno)

    def _outside(self, offset: int, length: int, *, write: bool) -> None:
        """Called when a request passes the known end; the file may have grown."""
        self._known_size = self.size
        self.check_range(offset, length, write=write)

    # -- requests: flat on purpose ----------------------------------------------------------

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        length = len(buffer)
        if offset < 0 or offset + length > self._known_size:
            self._outside(offset, length, write=False)
        try:
            n = os.preadv(self._fd, (buffer,), offset)
        except OSError as error:
            raise self._error(error) from error
        if n != length:
            self._read_rest(offset, memoryview(buffer), n)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        length = len(data)
        if offset < 0 or offset + length > self._known_size:
            self._outside(offset, length, write=True)
        if fua:
            self._write_through(offset, memoryview(data))
            return
        try:
            n = os.pwrite(self._fd, data, offset)
        except OSError as error:
            raise self._write_error(error) from error
        self._unsynced = True
        if n != length:
            self._write_rest(offset, memoryview(data), n)

    def write_uncached(self, offset: int, data: Buffer) -> None:
        """With O_DIRECT, which the file system may refuse: then, and for what is not aligned, as
        any other write."""
        from ulvm.blockdev.aio import address  # not for commands

        view = memoryview(data)
        length = len(view)
        if (offset | length | address(view)) & (_ALIGNED - 1) or not self._opens_direct():
            self.write(offset, view)
            return
        if offset < 0 or offset + length > self._known_size:
            self._outside(offset, length, write=True)
        try:
            n = os.pwrite(self._direct, view, offset)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise self._write_error(error) from error
            self._is_direct = False
            n = 0
        self._unsynced = True
        if n != length:
            self._write_rest(offset, view, n)

    def _opens_direct(self) -> bool:
        with self._synced:
            if self._is_direct is None:
                flags = os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT
                try:
                    self._direct = os.open(f"/proc/self/fd/{self._fd}", flags)
                    self._is_direct = True
                except OSError:
                    self._is_direct = False
            return self._is_direct

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        if len(pieces) >= _MANY:
            for offset, buffer, done in self._each(pieces, write=False):
                self._read_rest(offset, buffer, done)
            return
        for offset, buffer in pieces:
            self.readinto(offset, buffer)

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        if len(pieces) >= _MANY:
            for offset, data, done in self._each(pieces, write=True):
                self._write_rest(offset, data, done)
            return
        for offset, data in pieces:
            self.write(offset, data)

    def _each(
        self, pieces: Sequence[tuple[int, memoryview]], *, write: bool
    ) -> Iterator[tuple[int, memoryview, int]]:
        """Those of which something is left to do, and how much was done."""
        from ulvm.blockdev.aio import each  # not for commands

        known = self._known_size
        for offset, buffer in pieces:
            if offset < 0 or offset + len(buffer) > known:
                self._outside(offset, len(buffer), write=write)
                known = self._known_size
        try:
            for index, done in each(self._fd, pieces, write=write):
                if done < 0 and -done not in _AGAIN:
                    error = OSError(-done, os.strerror(-done))
                    raise self._write_error(error) if write else self._error(error)
                yield (*pieces[index], max(done, 0))
        finally:
            if write:
                self._unsynced = True

    # -- slower requests --------------------------------------------------------------------

    def _read_rest(self, offset: int, view: memoryview, done: int) -> None:
        """A system call moves 2 GiB at most and may come short at any time."""
        while done < len(view):
            try:
                n = os.preadv(self._fd, (view[done:],), offset + done)
            except OSError as error:
                raise self._error(error) from error
            if n == 0:
                raise DeviceError(f"{self.path} became shorter", errno=errno.EIO)
            done += n

    def _write_rest(self, offset: int, view: memoryview, done: int, flags: int = 0) -> None:
        while done < len(view):
            try:
                n = os.pwritev(self._fd, (view[done:],), offset + done, flags)
            except OSError as error:
                if flags and self._tells_of_loss(error, offset + done, view[done:]):
                    self._failed_flush = error.errno
                raise self._write_error(error) from error
            self._unsynced = True
            if n == 0:
                raise DeviceError(f"{self.path} takes no more data", errno=errno.ENOSPC)
            done += n

    def _write_error(self, error: OSError) -> DeviceError:
        if error.errno == errno.EBADF and self.read_only:
            return DeviceError(f"{self.path} is open for reading only", errno=errno.EROFS)
        return self._error(error)

    def _write_through(self, offset: int, view: memoryview) -> None:
        if self._on_fuse is None:
            self._on_fuse = not self._is_disk and _is_on_fuse(self._fd)
        if self._on_fuse:
            # What its server makes of the flag of a write is its own affair; a sync all know.
            self._write_rest(offset, view, 0)
            self.flush()
            return
        with self._sync():
            self._write_rest(offset, view, 0, os.RWF_DSYNC)

    def _tells_of_loss(self, error: OSError, offset: int, view: memoryview) -> bool:
        """Whether a write with RWF_DSYNC failed with what fdatasync would have said, which may be
        ENOSPC as well (a thin disk that is full, below the file system): the write itself goes."""
        if error.errno == errno.EIO:
            return True
        try:
            return os.pwritev(self._fd, (view,), offset) > 0
        except OSError:
            return False
        finally:
            self._unsynced = True

    def flush(self) -> None:
        with self._synced:
            if not self._unsynced and not self._syncs:
                self._check_flushes()
                return
        with self._sync():
            # Who finds it cleared finds this sync under way as well.
            self._unsynced = False
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                self._unsynced = True
                if error.errno != errno.EBADF:
                    self._failed_flush = error.errno
                raise self._error(error) from error

    @contextmanager
    def _sync(self) -> Iterator[None]:
        """Around a system call that may be told of lost data; see the module's head."""
        self._check_flushes()
        mine = object()
        with self._synced:
            self._syncs.add(mine)
        try:
            yield
        finally:
            with self._synced:
                self._syncs.discard(mine)
                self._synced.notify_all()
                others = set(self._syncs)
        if others:
            with self._synced:
                self._synced.wait_for(lambda: others.isdisjoint(self._syncs))
        self._check_flushes()

    def _check_flushes(self) -> None:
        if self._failed_flush is not None:
            raise DeviceError(
                f"{self.path}: an earlier flush failed, written data may be lost",
                errno=self._failed_flush,
            )

    def discard(self, offset: int, length: int) -> None:
        self._check_write(offset, length)
        if not self.can_discard:
            raise NotSupportedError(f"{self.path} does not support discard")
        if self._is_disk:
            self._discard_disk(offset, length)
        elif length and not self._allocate(_PUNCH_HOLE | _KEEP_SIZE, offset, length):
            self.can_discard = False
            raise NotSupportedError(f"{self.path} does not support discard")

    def _check_write(self, offset: int, length: int) -> None:
        self.check_range(offset, length, write=True)
        if self.read_only:
            raise DeviceError(f"{self.path} is open for reading only", errno=errno.EROFS)

    def _discard_disk(self, offset: int, length: int) -> None:
        """Whole blocks only: a partial one cannot be given back."""
        start = -(-offset // self.block_size) * self.block_size
        end = (offset + length) // self.block_size * self.block_size
        if start >= end:
            return
        try:
            fcntl.ioctl(self._fd, _BLKDISCARD, struct.pack("=QQ", start, end - start))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self.can_discard = False
                raise NotSupportedError(f"{self.path} does not support discard") from error
            raise self._error(error) from error
        self._unsynced = True

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        self._check_write(offset, length)
        mode = (_ZERO_RANGE if no_hole else _PUNCH_HOLE) | _KEEP_SIZE
        step = self.block_size if self._is_disk else 1
        start = min(-(-offset // step) * step, offset + length)
        end = max((offset + length) // step * step, start)
        if start < end and not self._allocate(mode, start, end - start):
            start = end = offset + length
        if start > offset:
            super().write_zeroes(offset, start - offset)
        if end < offset + length:
            super().write_zeroes(end, offset + length - end)
        if fua:
            self.flush()

    def _allocate(self, mode: int, offset: int, length: int) -> bool:
        """fallocate(2); False where it is not offered."""
        fallocate = _libc_fallocate()
        while code := fallocate(self._fd, mode, offset, length):
            if code in _NOT_OFFERED:
                return False
            if code != errno.EINTR:
                raise DeviceError(f"{self.path}: {os.strerror(code)}", errno=code)
        self._unsynced = True
        return True

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.check_range(offset, length)
        end = offset + length
        while offset < end:
            try:
                data = min(os.lseek(self._fd, offset, os.SEEK_DATA), end)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    yield Extent(offset, end - offset, False, False)
                    return
                data = end
            if data > offset:
                yield Extent(offset, data - offset, True, True)
            if data < end:
                offset = min(max(self._hole_after(data, end), data + 1), end)
                yield Extent(data, offset - data, False, False)
            else:
                offset = end

    def _hole_after(self, offset: int, end: int) -> int:
        try:
            return os.lseek(self._fd, offset, os.SEEK_HOLE)
        except OSError:  # the file became shorter, or no such call: all of it counts as data
            return end

    def close(self) -> None:
        direct, self._direct, self._is_direct = self._direct, -1, False
        if direct >= 0:
            os.close(direct)
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError as error:  # the descriptor is gone all the same (close(2))
                raise DeviceError(
                    f"{self.path}: close failed: {error.strerror}", errno=error.errno
                ) from error


def _open_error(path: str, error: OSError) -> NotFoundError | BusyError | DeviceError:
    text = f"{path}: {error.strerror}"
    if error.errno == errno.ENOENT:
        return NotFoundError(text, errno=errno.ENOENT)
    if error.errno == errno.EBUSY:
        return BusyError(f"{path} is in use by another program or mounted.")
    return DeviceError(text, errno=error.errno)


def _is_on_fuse(fd: int) -> bool:
    """Whether the file system is FUSE; True if that cannot be learned."""
    number = os.fstat(fd).st_dev
    word = f" {os.major(number)}:{os.minor(number)} ".encode()
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            return any(word in line and b" - fuse" in line for line in mounts)
    except OSError:
        return True


def _logical_block_size(fd: int) -> int:
    answer = fcntl.ioctl(fd, _BLKSSZGET, b"\0\0\0\0")
    return int(struct.unpack("=i", answer)[0])


def _is_read_only(fd: int) -> bool:
    """Of a disk, which opens for writing all the same."""
    return fcntl.ioctl(fd, _BLKROGET, b"\0\0\0\0") != b"\0\0\0\0"


def _disk_discards(number: int) -> bool:
    """A partition shares the queue of its disk."""
    base = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    for queue in (base / "queue", base / "../queue"):
        try:
            return int((queue / "discard_max_bytes").read_text()) > 0
        except OSError:
            continue
    return False
