"""Volumes as files: an `ExportSource` as a FUSE tree, `<part before the slash>/<part after>`.

THE RULE: the process that serves this tree never touches it. No stat, open, realpath or statvfs of
a path below the mount point, in any thread that a request may wait for, and no child that the
process waits for: the request would come to ourselves. What is to be known of a volume is asked
of the source. (The kernel's own requests, of a loop device say, are served like anybody's.)

What a file is:

* Its size is the volume's and cannot be changed: writing stops at the end with ENOSPC, reading
  comes short. O_TRUNC is ignored, as for a block device; any other truncation is EINVAL.
* I/O is direct, nothing is cached, not even attributes: one write is one write to the device (up to
  1 MiB; longer ones are split), and what came through another door shows at once. Files come and
  go as the source's names do; one that is open by a name that is gone still has attributes by it.
* fsync is the device's flush; close is not.
* fallocate(PUNCH_HOLE) must leave zeros (fallocate(2); a loop device turns both a discard and
  "write zeroes" into it), and a discard need not. So it is `write_zeroes` that may make a hole,
  and only where the device has discard at all: elsewhere EOPNOTSUPP, on which file systems fall
  back to writing zeros and fstrim says that it cannot. A snapshot's discard leaves the origin's
  data to be seen, and zeros written there would fill its COW store; so EOPNOTSUPP there as well.
* Nothing can be made, removed or renamed here: EPERM.

Each open of a file is an open of the source's device and its close comes with the last close.
`UlvmError.errno` is the answer to a failed request; any other exception is a defect, logged, EIO.

Reading and writing are not here but in `fuse_requests`, the fast path, which goes by the handle's
number to the device.

Locking: `_handles` and `_devices` are changed and read in single dictionary operations, which are
atomic.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import itertools
import logging
import os
import stat
import time
from collections.abc import Callable
from ctypes import c_int, c_uint64
from pathlib import Path
from typing import Any

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import DeviceError, NotFoundError, UlvmError
from ulvm.exports.fuse_nodes import OpenNodes, Place
from ulvm.exports.fuse_session import FuseSession, load_mfusepy
from ulvm.exports.source import ExportInfo, ExportSource, windows

__all__ = ["FuseServer"]

log = logging.getLogger(__name__)

_BLOCK = 4096
"""f_bsize and st_blksize in bytes. A loop device takes f_bsize as its discard granularity."""
_MOST = (1 << 63) - _BLOCK
"""Bytes of a file: off_t has a sign."""

_KEEP_SIZE = 1  # linux/falloc.h
_PUNCH_HOLE = 2
_ZERO_RANGE = 16
_SEEK_DATA = 3
_SEEK_HOLE = 4


def _answer(function: Callable[..., int]) -> Callable[..., int]:
    """An operation for libfuse: exceptions become -errno."""

    @functools.wraps(function)
    def operation(*arguments: Any) -> int:
        try:
            return function(*arguments)
        except UlvmError as error:
            return -error.errno
        except Exception:
            log.exception("FUSE request %s failed", function.__name__)
            return -errno.EIO

    return operation


def _refuse(*_: Any) -> int:
    return -errno.EPERM


class _Handle:
    """An open file. `device` counts as open until the release."""

    __slots__ = ("device", "info")

    def __init__(self, info: ExportInfo, device: BlockDevice) -> None:
        self.info = info
        self.device = device


class FuseServer:
    """Serves the source at `mountpoint`, for its own user alone unless `allow_other`.

    With `allow_other` the kernel checks the modes (0755, 0600): it lets root in, and others see
    the names. For a user it needs `user_allow_other` in /etc/fuse.conf.
    """

    def __init__(
        self, source: ExportSource, mountpoint: Path, *, allow_other: bool = False
    ) -> None:
        self._source = source
        self._stat: Any = load_mfusepy().c_stat
        self._statvfs: Any = load_mfusepy().c_statvfs
        self._fh_offset: int = load_mfusepy().fuse_file_info.fh.offset
        self._directory_mode = stat.S_IFDIR | (0o755 if allow_other else 0o700)
        self._started = time.time_ns() // 1_000_000_000
        self._uid = os.getuid()
        self._gid = os.getgid()
        self._handles: dict[int, _Handle] = {}
        self._devices: dict[int, BlockDevice] = {}
        """Of the handles, for those who read and write."""
        self._nodes = OpenNodes()
        self._directories: dict[bytes, int] = {}
        """The nodes of directories."""
        self._open_directories: dict[int, bytes] = {}
        self._numbers = itertools.count(1)
        options = ["fsname=ulvm", "subtype=ulvm", "nosuid", "nodev"]
        if allow_other:
            options += ["allow_other", "default_permissions"]
        operations: dict[str, Callable[..., int]] = {
            name: _answer(getattr(self, f"_{name}"))
            for name in (
                *("getattr", "truncate", "utimens", "statfs", "opendir", "readdir", "releasedir"),
                *("open", "release", "fsync", "fallocate", "lseek", "unlink"),
            )
        }
        for name in (
            *("create", "mknod", "mkdir", "rmdir", "symlink", "rename", "link"),
            *("chmod", "chown"),
        ):
            operations[name] = _refuse
        self._session = FuseSession(
            mountpoint,
            operations,
            self._devices,
            options,
            self._close_all,
            nodes=self._nodes,
            outdated=self._outdated,
        )

    @property
    def mountpoint(self) -> Path:
        return self._session.mountpoint

    @property
    def mounted(self) -> bool:
        """False also when somebody else has unmounted the tree."""
        return self._session.mounted

    def start(self) -> None:
        """Mount; returns when the tree is there. BusyError, NotSupportedError, RefusedError."""
        self._session.start()

    def stop(self) -> None:
        """Unmount, forcibly if files are open, and close what was left open. Idempotent."""
        self._session.stop()
        self._close_all()

    def _close_all(self) -> None:
        """What nobody can release any more."""
        with contextlib.suppress(KeyError):  # empty, or another thread took the last one
            while True:
                number, handle = self._handles.popitem()
                self._devices.pop(number, None)
                self._nodes.remove(number)
                handle.device.close()

    # ---- names and attributes ----

    def _describe(self, path: bytes) -> ExportInfo:
        try:
            return self._source.describe(os.fsdecode(path[1:]))
        except NotFoundError as error:
            raise NotFoundError(error.message, errno=errno.ENOENT) from error

    def _looked_up(self, path: bytes) -> ExportInfo:
        """What a name stands for that the kernel asks for."""
        info = self._describe(path)
        place = self._session.request.place
        self._directories[path.rpartition(b"/")[0]] = place[0]
        if self._nodes.is_other(place, info.device):
            raise DeviceError("the name was given to another volume", errno=errno.ESTALE)
        return info

    def _outdated(self, place: Place) -> bool:
        """Whether the node that is found there is of another device than the name by now."""
        number = self._nodes.at(place)
        handle = None if number is None else self._handles.get(number)
        if handle is None:
            return False
        try:
            return self._nodes.is_other(place, self._source.describe(handle.info.name).device)
        except UlvmError:
            return False  # it stands for nothing
        except Exception:
            log.exception("cannot tell what %s is", handle.info.name)
            return False

    def _open_file(self) -> _Handle:
        """By which a file is asked for that the kernel knows, whatever name it has: for fstat(2),
        or a loop device that looks how long it is, which has no size without an answer."""
        number = self._nodes.on(self._session.request.node)
        if number is None or (handle := self._handles.get(number)) is None:
            raise DeviceError("nobody has it open any more", errno=errno.ESTALE)
        return handle

    def _directory(self, path: bytes) -> dict[str, int] | None:
        """The names in a directory, and their inode numbers; None if there is no such directory."""
        exports = self._source.exports()
        if path == b"/":
            names = sorted({info.name.partition("/")[0] for info in exports})
            return {name: _inode(f"/{name}") for name in names}
        prefix = os.fsdecode(path[1:]) + "/"
        inside = [info for info in exports if info.name.startswith(prefix)]
        return {info.name.removeprefix(prefix): _inode_of(info) for info in inside} or None

    def _getattr(self, path: bytes | None, buffer: int, file_info: int | None) -> int:
        ctypes.memset(buffer, 0, ctypes.sizeof(self._stat))
        result = self._stat.from_address(buffer)
        request = self._session.request
        if path is None or (not request.is_lookup and self._nodes.on(request.node) is not None):
            handle = self._open_file()
            number, size = _inode_of(handle.info), handle.device.size
        elif path.count(b"/") == 2:
            info = self._looked_up(path) if request.is_lookup else self._describe(path)
            number, size = _inode_of(info), info.size
        else:
            if self._directory(path) is None and path != b"/":
                return -errno.ENOENT
            number, size = _inode(os.fsdecode(path)), -1
        result.st_ino = number
        result.st_uid, result.st_gid = self._uid, self._gid
        result.st_blksize = _BLOCK
        for time_field in (result.st_atimespec, result.st_mtimespec, result.st_ctimespec):
            time_field.tv_sec = self._started
        if size < 0:
            result.st_mode, result.st_nlink = self._directory_mode, 2
        else:
            result.st_mode, result.st_nlink = stat.S_IFREG | 0o600, 1
            # More than a file can be is not to be seen through this door.
            size = min(size, _MOST)
            result.st_size, result.st_blocks = size, (size + 511) // 512
        return 0

    def _opendir(self, path: bytes, file_info: int) -> int:
        if path != b"/" and self._directory(path) is None:
            return -errno.ENOENT
        self._open_directories[self._give_number(file_info)] = path
        return 0

    def _releasedir(self, path: bytes | None, file_info: int) -> int:
        self._open_directories.pop(self._number(file_info), None)
        return 0

    def _readdir(
        self, _: bytes | None, buffer: int, fill: Callable[..., int], offset: int, file_info: int,
        *flags: Any,
    ) -> int:  # fmt: skip
        path = self._open_directories[self._number(file_info)]
        names = self._directory(path)
        if names is None:
            return -errno.ENOENT
        entry = self._stat()
        kind = self._directory_mode if path == b"/" else stat.S_IFREG | 0o600
        own = _inode(os.fsdecode(path))
        for name, number in {".": own, "..": own, **names}.items():
            entry.st_mode = self._directory_mode if number == own else kind
            entry.st_ino = number
            if fill(buffer, os.fsencode(name), ctypes.byref(entry), 0, 0) != 0:
                return -errno.ENOMEM
        return 0

    def _statfs(self, path: bytes, buffer: int) -> int:
        result = self._statvfs.from_address(buffer)
        result.f_bsize = result.f_frsize = _BLOCK
        result.f_files = len(self._source.exports())
        result.f_namemax = 255
        return 0

    def _unlink(self, path: bytes) -> int:
        """Only a name can be taken away, from a file that is open: see exports.fuse_nodes."""
        return 0 if self._session.request.is_ours else -errno.EPERM

    def _utimens(self, path: bytes | None, times: int | None, file_info: int | None) -> int:
        return 0

    def _truncate(self, path: bytes | None, size: int, file_info: int | None) -> int:
        if path is not None:
            # truncate(2), or O_TRUNC, which comes as truncation to 0 before the open.
            return 0 if size in (0, self._describe(path).size) else -errno.EINVAL
        device = self._handles[self._number(file_info)].device
        return 0 if size == device.size else -errno.EINVAL

    # ---- open files ----

    def _number(self, file_info: int | None) -> int:
        assert file_info is not None
        return c_uint64.from_address(file_info + self._fh_offset).value

    def _give_number(self, file_info: int) -> int:
        number = next(self._numbers)
        c_uint64.from_address(file_info + self._fh_offset).value = number
        return number

    def _open(self, path: bytes, file_info: int) -> int:
        write = c_int.from_address(file_info).value & os.O_ACCMODE != os.O_RDONLY
        info = self._describe(path)
        device = self._source.open(info.name, write=write)
        number = self._give_number(file_info)
        self._handles[number] = _Handle(info, device)
        self._devices[number] = device
        directory, _, name = path.rpartition(b"/")
        place = self._directories.get(directory, 0), name
        node = self._session.request.node
        ours = False
        try:
            same = self._describe(path).device is info.device  # still, so that is what was opened
            ours = same and self._nodes.add(number, node, place, info.device)
        finally:
            if not ours:
                self._let_go(number)
        return 0 if ours else -errno.ESTALE  # the kernel looks the name up once more

    def _release(self, path: bytes | None, file_info: int) -> int:
        self._let_go(self._number(file_info))
        return 0

    def _let_go(self, number: int) -> None:
        handle = self._handles.pop(number, None)
        self._devices.pop(number, None)
        self._nodes.remove(number)
        if handle is not None:
            handle.device.close()

    def _fsync(self, path: bytes | None, data_only: int, file_info: int) -> int:
        self._handles[self._number(file_info)].device.flush()
        return 0

    def _fallocate(
        self, path: bytes | None, mode: int, offset: int, length: int, file_info: int
    ) -> int:
        handle = self._handles[self._number(file_info)]
        device = handle.device
        end = device.size
        action = mode & ~_KEEP_SIZE
        if mode == _PUNCH_HOLE | _KEEP_SIZE:
            if not device.can_discard or handle.info.is_snapshot:
                return -errno.EOPNOTSUPP
            length = min(length, end - offset)  # past the end there is nothing to punch
            if length > 0:
                device.write_zeroes(offset, length)
            return 0
        if action not in (0, _ZERO_RANGE):
            return -errno.EOPNOTSUPP
        if offset + length > end:
            return -errno.ENOSPC
        if action == _ZERO_RANGE:
            device.write_zeroes(offset, length, no_hole=True)
        return 0

    def _lseek(self, path: bytes | None, offset: int, whence: int, file_info: int) -> int:
        """SEEK_DATA and SEEK_HOLE, the only ones that the kernel asks. A hole reads as zeros."""
        device = self._handles[self._number(file_info)].device
        end = device.size
        if whence not in (_SEEK_DATA, _SEEK_HOLE):
            return -errno.EINVAL
        if not 0 <= offset < end:
            return -errno.ENXIO
        for start, length in windows(offset, end - offset, _MOST):
            for extent in device.extents(start, length):
                if extent.zero == (whence == _SEEK_HOLE):
                    return max(offset, extent.offset)
        return -errno.ENXIO if whence == _SEEK_DATA else end


@functools.lru_cache(maxsize=1024)
def _inode(name: str) -> int:
    """A stable number for a name; directories come with a leading slash."""
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 | 1


def _inode_of(info: ExportInfo) -> int:
    """That of the device, whatever its name: by it mke2fs(8) knows a file on which a loop device
    stands that is mounted."""
    return _inode(info.name if info.device is None else f"{id(info.device):x}")
