"""Files and disks that tables use: opened once, shared, shown by major:minor.

A block device has its real numbers; a plain file gets a minor of FILE_MAJOR, kept for as long
as the mapper lives so that a table shows the same number when it is loaded again. The same
file under two names is one device (an origin is recognised by the identity of its object).
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from ulvm.blockdev.base import BlockDevice
from ulvm.dm_ioctl import FILE_MAJOR
from ulvm.errors import DeviceError, TableError

__all__ = ["DeviceNumbers"]

_READING_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class _File:
    """An open file or disk and how often it is held."""

    def __init__(self, device: BlockDevice, number: str, path: str, *, writable: bool) -> None:
        self.device = device
        self.number = number
        self.path = path
        self.writable = writable
        """Whether it is there for tables that write, which a read-only disk is."""
        self.holders = 0


class DeviceNumbers:
    """`open_file(path, writable)` gives the device; `log` hears what could not be closed. Thread
    safe. A device that was not opened here has no number (TableError).

    `_lock` is held while a file is opened, which may take for ever on a server that is gone;
    `_naming`, over `_names` and `_paths`, for moments: whenever something is told of, an overflow
    say, all devices are described (daemon.state)."""

    def __init__(
        self, open_file: Callable[[str, bool], BlockDevice], log: Callable[[str], None]
    ) -> None:
        self._open_file = open_file
        self._log = log
        self._lock = threading.RLock()
        self._naming = threading.Lock()
        self._files: dict[tuple[int, int, int], _File] = {}
        self._minors: dict[tuple[int, int, int], int] = {}
        self._paths: dict[str, str] = {}
        self._names: WeakKeyDictionary[BlockDevice, tuple[str, str]] = WeakKeyDictionary()
        """(number, path) of every device that was opened here, also when it is closed."""

    @staticmethod
    def _identity(path: str) -> tuple[int, int, int]:
        try:
            found = os.stat(path)
        except OSError as error:
            message = f"Device lookup failed: {path}: {error.strerror}"
            raise TableError(message, errno=error.errno) from error
        except ValueError as error:  # a NUL in it, or half a surrogate pair
            raise TableError(f"{path[:200]!r} is not a path") from error
        if stat.S_ISBLK(found.st_mode):
            return (1, os.major(found.st_rdev), os.minor(found.st_rdev))
        return (0, found.st_dev, found.st_ino)

    def open(self, path: str, *, writable: bool) -> BlockDevice:
        """The shared device behind a path, held for the caller: `release` it. One that could be
        opened for reading only is refused (EACCES) for writing while others hold it."""
        with self._lock:
            return self._open(self._identity(path), path, writable)

    def _open(self, identity: tuple[int, int, int], path: str, writable: bool) -> BlockDevice:
        file = self._files.get(identity)
        if file is not None and writable and not file.writable:
            message = f"{path} could be opened for reading only and is in use"
            raise TableError(message, errno=errno.EACCES)
        if file is None:
            device, writable = self._open_shared(path, writable)
            number = self._number(identity)
            file = self._files[identity] = _File(device, number, path, writable=writable)
            with self._naming:
                self._paths[number] = path
                self._names[device] = (number, path)
        file.holders += 1
        return file.device

    def _open_shared(self, path: str, writable: bool) -> tuple[BlockDevice, bool]:
        """The device and whether it is there for tables that write; it must be if `writable`. A
        read-only disk is, as for the kernel: who writes is refused."""
        try:
            return self._open_file(path, True), True
        except DeviceError as error:
            if error.errno not in _READING_ONLY or (writable and error.errno != errno.EROFS):
                raise
            return self._open_file(path, False), error.errno == errno.EROFS

    def _number(self, identity: tuple[int, int, int]) -> str:
        if identity[0] == 1:
            return f"{identity[1]}:{identity[2]}"
        minor = self._minors.setdefault(identity, len(self._minors))
        return f"{FILE_MAJOR}:{minor}"

    def number(self, device: BlockDevice) -> str:
        return self._name(device)[0]

    def path_of(self, device: BlockDevice) -> str:
        return self._name(device)[1]

    def _name(self, device: BlockDevice) -> tuple[str, str]:
        with self._naming:
            name = self._names.get(device)
        if name is None:
            raise TableError("Device lookup failed", errno=errno.ENODEV)
        return name

    def path(self, number: str) -> str | None:
        with self._naming:
            return self._paths.get(number)

    def by_number(self, number: str, *, writable: bool) -> BlockDevice | None:
        """As `open`: the file of this major:minor, or the one it was shown for before."""
        with self._lock:
            for identity, file in self._files.items():
                if file.number == number:
                    return self._open(identity, file.path, writable)
        path = self.path(number)
        return None if path is None else self.open(path, writable=writable)

    def hold(self, device: BlockDevice) -> None:
        """Once more what somebody holds."""
        with self._lock:
            self._held(device)[1].holders += 1

    def release(self, device: BlockDevice) -> None:
        """Close the file with its last holder."""
        with self._lock:
            identity, file = self._held(device)
            file.holders -= 1
            if not file.holders:
                del self._files[identity]
                self._close(file)

    def _held(self, device: BlockDevice) -> tuple[tuple[int, int, int], _File]:
        for identity, file in self._files.items():
            if file.device is device:
                return identity, file
        raise TableError("Device lookup failed: it is closed", errno=errno.ENODEV)

    def _close(self, file: _File) -> None:
        """A failure comes too late to refuse anything: the device is gone all the same."""
        try:
            file.device.close()
        except DeviceError as error:
            self._log(str(error))

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                self._close(file)
            self._files.clear()
