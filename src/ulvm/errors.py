"""The error tree. Every error a user can meet is one of these, with one sentence as its text.

Doors map them once: FUSE and NBD answer `errno`, a command prints the sentence and exits with
`exit_code` (lvm(8): 3 for a bad command line, 4 for settings that cannot be read, 5 for a refusal
or failure).
"""

from __future__ import annotations

import errno as _errno

__all__ = [
    "BusyError",
    "DaemonGoneError",
    "DeviceError",
    "ExistsError",
    "FormatError",
    "NotFoundError",
    "NotSupportedError",
    "OutsideError",
    "ProtocolError",
    "RefusedError",
    "SettingsError",
    "TableError",
    "UlvmError",
    "UsageError",
]


class UlvmError(Exception):
    """Base of all; `errno` for the doors, `exit_code` for a command."""

    errno: int = _errno.EIO
    exit_code: int = 5

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        if errno is not None:
            self.errno = errno

    @property
    def message(self) -> str:
        return str(self.args[0])


class DeviceError(UlvmError):
    """An I/O request failed (EIO, ENOSPC, EINVAL out of range, EROFS ...)."""


class OutsideError(DeviceError):
    """A request that does not lie in the device: EINVAL, ENOSPC for a write."""


class DaemonGoneError(DeviceError):
    """The daemon ended in the midst of a request: whether that took effect is not known."""


class NotSupportedError(DeviceError):
    """The device does not do this kind of request (a discard on an origin, say)."""

    errno = _errno.EOPNOTSUPP


class FormatError(UlvmError):
    """Something read from a disk, a file or a peer is not what its format says."""

    errno = _errno.EINVAL


class SettingsError(FormatError):
    """A file of settings cannot be read or is not what its grammar says: nothing can begin. Of the
    main file LVM2 says so before it indents its lines."""

    exit_code = 4
    main_file = False


class TableError(UlvmError):
    """A device-mapper table or message was refused; `errno` is the kernel's."""

    errno = _errno.EINVAL


class NotFoundError(UlvmError):
    errno = _errno.ENXIO


class ExistsError(UlvmError):
    errno = _errno.EEXIST


class BusyError(UlvmError):
    """The thing is in use: open, mounted, locked, or held by another program."""

    errno = _errno.EBUSY


class RefusedError(UlvmError):
    """LVM semantics say no (exit code 5)."""

    errno = _errno.EINVAL


class UsageError(UlvmError):
    """The command line is wrong (exit code 3)."""

    errno = _errno.EINVAL
    exit_code = 3


class ProtocolError(UlvmError):
    """A peer on a socket broke the protocol."""

    errno = _errno.EPROTO
