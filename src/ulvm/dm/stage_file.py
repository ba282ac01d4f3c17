"""The files in which staged pages outlive a kill -9 (dm.stage): their form, place and memory.

0        header: magic, slots, id of the boot, UUID of the device
4096     a head for each slot: its page and its number, 0 for a free one
behind   a page for each slot, from a multiple of 4096 on
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection
from pathlib import Path

from ulvm.errors import TableError

__all__ = [
    "HEADER",
    "MOST_NUMBER",
    "MOST_OF_STAGE",
    "PAGE",
    "PAGE_SHIFT",
    "StageSettings",
    "allocate",
    "header",
    "open_file",
    "remove_file",
    "sizes",
]

PAGE = 4096
PAGE_SHIFT = 12
HEADER = struct.Struct("<16sQ40s136s")
"""Magic, slots, id of the boot, UUID of the device (DM_UUID_LEN 129)."""
MOST_NUMBER = 1 << 63
"""A file with a number so large is nobody's."""
MOST_OF_STAGE = 4
"""A write of more than one part in so many of the stage is not staged at once."""
_NOTHING = 0, 0, ""
_MAGIC = b"ulvm stage 2"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LEAST = 16 * PAGE
_MOST = 1 << 36
_PART_FREE = 8
_MOST_FREE = 64 << 20
"""That part of the file system stays free, or so many bytes: the state of the devices lies there as
well, and what others keep in /run."""


def header(slots: int, whose: str) -> bytes:
    return HEADER.pack(_MAGIC, slots, _BOOT_ID.read_text().strip().encode(), whose.encode())


def sizes(slots: int) -> tuple[int, int]:
    """Where the data begin, and the size of the file."""
    data_at = -(-(PAGE + 16 * slots) // PAGE) * PAGE
    return data_at, data_at + slots * PAGE


def open_file(path: Path, size: int, data_at: int, *, goes_on: bool) -> tuple[int, int]:
    """(descriptor, bytes of its file system that stay free) of a new file, or, `goes_on`, of the
    one that is there. Its heads have memory: a page of a full file system is a SIGBUS."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not goes_on:
        path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        found = os.fstatvfs(fd)
        least_free = min(found.f_blocks * found.f_frsize // _PART_FREE, _MOST_FREE)
        if os.fstat(fd).st_size == size:
            os.posix_fallocate(fd, 0, data_at)
        else:
            os.truncate(fd, 0)
            os.truncate(fd, size)
            allocate(fd, 0, data_at, least_free)
    except BaseException:
        os.close(fd)
        raise
    return fd, least_free


def allocate(fd: int, start: int, length: int, least_free: int) -> None:
    """Memory before it is needed. OSError if too little would stay."""
    found = os.fstatvfs(fd)
    if found.f_bavail * found.f_frsize < least_free + length:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.posix_fallocate(fd, start, length)


def remove_file(path: Path, fd: int = -1) -> str:
    """Only the one that is open, if `fd` is: another stage may have made one in its place. What is
    to be said if it cannot be removed. That ends nothing, a resume in whose midst a device would
    stay suspended, say: the file may not even be there."""
    try:
        if fd < 0 or os.path.samestat(os.stat(path), os.fstat(fd)):
            path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        return f"{path} cannot be removed: {error.strerror}"
    return ""


class StageSettings:
    """`size` in bytes for each device, less than 64 KiB for none; `directory`: where the files lie
    that outlive a kill -9, None for memory of the process alone. TableError where a file that may
    hold what was answered is there and cannot be read, for want of descriptors, say."""

    def __init__(self, size: int = 0, directory: Path | None = None) -> None:
        self.slots = min(size, _MOST) // PAGE if size >= _LEAST else 0
        self.directory = directory

    def path(self, minor: int) -> Path | None:
        """Of what is written to through the mapped device of this minor number."""
        return None if self.directory is None else self.directory / f"{minor}"

    def slots_left(self, minor: int) -> int:
        """How many the file has that a killed process left; 0 without one that means anything."""
        return self._left(minor)[0]

    def pages_left(self, minor: int) -> int:
        """How many of these hold a page."""
        return self._left(minor)[1]

    def _left(self, minor: int) -> tuple[int, int, str]:
        """Its slots, how many hold a page, and the UUID of its device."""
        path = self.path(minor)
        if path is None:
            return _NOTHING
        try:
            with path.open("rb") as stream:
                head = stream.read(HEADER.size)
                if len(head) < HEADER.size:
                    return _NOTHING
                magic, slots, boot, whose = HEADER.unpack(head)
                own = HEADER.unpack(header(0, ""))[:3:2]
                if (magic, boot) != own or os.fstat(stream.fileno()).st_size != sizes(slots)[1]:
                    return _NOTHING
                stream.seek(PAGE)
                heads = stream.read(16 * slots)
        except (FileNotFoundError, NotADirectoryError):
            return _NOTHING
        except OSError as error:
            raise TableError(
                f"{path}, in which written data may wait, cannot be read: {error.strerror}",
                errno=error.errno,
            ) from error
        pages = sum(number > 0 for _, number in struct.iter_unpack("<QQ", heads))
        return slots, pages, whose.rstrip(b"\0").decode(errors="replace")

    def forget(self, minor: int) -> str:
        """What a killed process left for a device that does not go on. What is to be said of it, if
        it stays."""
        path = self.path(minor)
        return "" if path is None else remove_file(path)

    def give_up(self, minor: int) -> str:
        """`forget`, and what is to be said of it, if anything is lost."""
        try:
            left = self.pages_left(minor) * PAGE
            lost = f"{left} bytes that were written to it are lost" if left else ""
        except TableError as error:
            lost = f"what was written to it is lost: {error}"
        return "; ".join(filter(None, (lost, self.forget(minor))))

    def forget_all(self, but: Collection[int]) -> list[str]:
        """What it left for all but these. A sentence for each file that held data: these are lost,
        for the memory that they take is what the next stages need. One that cannot be read stays.
        """
        lost = []
        if self.directory is not None and self.directory.is_dir():
            for path in sorted(self.directory.iterdir()):
                if path.name in map(str, but):
                    continue
                known = path.name.isdecimal()
                try:
                    _, pages, whose = self._left(int(path.name)) if known else _NOTHING
                except TableError as error:
                    lost.append(str(error))
                    continue
                if pages:
                    lost.append(
                        f"up to {pages * PAGE} bytes that were written and not flushed are lost: "
                        f"no device takes up {path} ({whose or 'no UUID'})"
                    )
                if problem := remove_file(path):
                    lost.append(problem)
        return lost
