"""Loop devices: which stand on a file, attach. Source: loop(4), linux/loop.h.

Attaching is safe against others who attach at the same time: the kernel names a free device, and
LOOP_CONFIGURE (Linux 5.8) sets it up at one stroke or fails with EBUSY, whereupon we ask again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ulvm.errors import BusyError, DeviceError, NotFoundError, NotSupportedError, RefusedError

__all__ = [
    "AttachedLoop",
    "Loop",
    "attach",
    "grow",
    "hold",
    "loop_named",
    "loops_on",
    "loops_over",
    "tree_of",
]

LOOP_GET_STATUS64 = 0x4C05
LOOP_SET_CAPACITY = 0x4C07
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_GET_FREE = 0x4C82

LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16

_CONTROL = "/dev/loop-control"
_ATTEMPTS = 64
_DELETED = " (deleted)"
_SYS_BLOCK = Path("/sys/block")

_LOOP_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")
"""struct loop_config: fd, block_size, struct loop_info64, 8 reserved words.

loop_info64: lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit; lo_number,
lo_encrypt_type, lo_encrypt_key_size, lo_flags; lo_file_name, lo_crypt_name, lo_encrypt_key;
lo_init[2].
"""
_INFO_SIZE = 232
"""Of struct loop_info64."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device in use. `backing_file` is its path as the kernel shows it."""

    name: str
    backing_file: str
    read_only: bool
    autoclear: bool
    offset: int
    size_limit: int

    @property
    def path(self) -> str:
        return f"/dev/{self.name}"

    @property
    def whole(self) -> bool:
        """True if it shows the file as it is, no part of it."""
        return self.offset == 0 and self.size_limit == 0


def _read_loop(directory: Path) -> Loop | None:
    try:
        backing_file = os.fsdecode((directory / "loop/backing_file").read_bytes()).rstrip("\n")
        return Loop(
            directory.name,
            backing_file,
            (directory / "ro").read_text().strip() == "1",
            (directory / "loop/autoclear").read_text().strip() == "1",
            int((directory / "loop/offset").read_text()),
            int((directory / "loop/sizelimit").read_text()),
        )
    except OSError:  # not attached, or detached while we look
        return None


def loop_named(name: str, *, sys_block: Path = _SYS_BLOCK) -> Loop | None:
    """The loop device `loopN`, None if it is not attached to anything."""
    return _read_loop(sys_block / name) if name.startswith("loop") else None


def loops_on(
    path: str | os.PathLike[str], *, former: bool = False, sys_block: Path = _SYS_BLOCK
) -> list[Loop]:
    """The loop devices over a file (compared by name); `former`: over one that had the name, and
    has another or none now."""
    wanted = os.path.abspath(path) + (_DELETED if former else "")
    return [loop for loop in _loops(sys_block) if loop.backing_file == wanted]


def loops_over(path: str | os.PathLike[str]) -> list[Loop]:
    """The loop devices over the file that has this name now, by whatever name of it they were
    attached, one that it had before or another one that it has; of those by other names the ones
    that this process may open. Not for who serves the file, who would wait for himself."""
    wanted = os.path.realpath(path)
    file = os.stat(wanted)
    tree = os.path.join(tree_of(wanted), "")

    def is_over(loop: Loop) -> bool:
        name = loop.backing_file
        if name == wanted:
            return True
        return (name.startswith(tree) or name.endswith(_DELETED)) and _stands_on(loop, file)

    return [loop for loop in _loops(_SYS_BLOCK) if is_over(loop)]


def tree_of(path: str) -> str:
    """The top of the file system that a file lies in: all its names lie below. What lies elsewhere
    is not asked which file it is; it may be of somebody who does not answer."""
    device, top = os.stat(path).st_dev, path
    for parent in map(str, Path(path).parents):
        if os.stat(parent).st_dev != device:
            break
        top = parent
    return top


def hold(path: str | os.PathLike[str], *, writable: bool = False) -> AttachedLoop | None:
    """A loop device that is over the whole file already, one that can be written if there is one,
    or none: held, so that it stays what it is though what is mounted on it goes."""
    file = os.stat(path)
    for loop in sorted(loops_over(path), key=lambda loop: loop.read_only):
        if not loop.whole or (writable and loop.read_only):
            continue
        with ExitStack() as held, suppress(OSError):  # detached meanwhile
            descriptor = os.open(loop.path, os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            if _shows(descriptor, file):
                held.pop_all()
                return AttachedLoop(loop.path, descriptor)
    return None


def _stands_on(loop: Loop, file: os.stat_result) -> bool:
    try:
        descriptor = os.open(loop.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _shows(descriptor, file)
        finally:
            os.close(descriptor)
    except OSError:  # detached meanwhile, or not ours to open
        return False


def _shows(descriptor: int, file: os.stat_result) -> bool:
    info = bytearray(_INFO_SIZE)
    fcntl.ioctl(descriptor, LOOP_GET_STATUS64, info)
    device, inode = struct.unpack_from("=QQ", info)
    return (device, inode) == (file.st_dev, file.st_ino)


def _loops(sys_block: Path) -> list[Loop]:
    found = map(_read_loop, sorted(sys_block.glob("loop*")))
    return [loop for loop in found if loop is not None]


class AttachedLoop:
    """A loop device, held open: leave the context (or `close`) to let go.

    It is detached by the kernel when nobody, no mount either, holds it any more.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> AttachedLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _free_loop() -> str:
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        raise RefusedError("Only root can attach a loop device.", errno=errno.EPERM) from error
    except OSError as error:
        raise NotSupportedError(f"No loop devices here: {_CONTROL}: {error.strerror}.") from error
    try:
        number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    except OSError as error:
        raise DeviceError(f"No free loop device: {error.strerror}.", errno=error.errno) from error
    finally:
        os.close(control)
    return f"/dev/loop{number}"


def attach(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    direct_io: bool = True,
    sector_size: int = 512,
    autoclear: bool = True,
) -> AttachedLoop:
    """Put a loop device over a file. `sector_size` in bytes: 512, 1024, 2048 or 4096.

    With direct I/O the device has many requests in flight and no second copy in the page cache.
    NotFoundError, RefusedError (not root; a bad sector size), DeviceError.
    """
    try:
        backing = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist.", errno=errno.ENOENT) from error
    except OSError as error:
        raise DeviceError(f"Cannot open {path}: {error.strerror}.", errno=error.errno) from error
    flags = (
        (LO_FLAGS_READ_ONLY if read_only else 0)
        | (LO_FLAGS_DIRECT_IO if direct_io else 0)
        | (LO_FLAGS_AUTOCLEAR if autoclear else 0)
    )
    name = os.fsencode(path)[:63]
    config = _LOOP_CONFIG.pack(
        backing, sector_size, 0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0, *[0] * 8
    )
    try:
        return _configure_free_loop(path, config, os.O_RDONLY if read_only else os.O_RDWR)
    finally:
        os.close(backing)


def _configure_free_loop(path: str | os.PathLike[str], config: bytes, mode: int) -> AttachedLoop:
    for _ in range(_ATTEMPTS):
        device = _free_loop()
        descriptor = -1
        try:
            descriptor = os.open(device, mode | os.O_CLOEXEC)
            fcntl.ioctl(descriptor, LOOP_CONFIGURE, config)
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            if error.errno in (errno.EBUSY, errno.ENXIO):  # another was quicker
                continue
            raise DeviceError(
                f"Cannot attach {device} to {path}: {error.strerror}.", errno=error.errno
            ) from error
        return AttachedLoop(device, descriptor)
    raise BusyError("Other programs take every free loop device.")


def grow(device: str) -> None:
    """Have a loop device see that its file has another size."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, LOOP_SET_CAPACITY)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeviceError(
            f"Cannot resize {device}: {error.strerror}.", errno=error.errno
        ) from error
