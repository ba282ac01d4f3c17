"""Small files that must be whole or absent: written beside, synced, renamed."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from ulvm.errors import DeviceError
from ulvm.faultpoints import reach

__all__ = ["private_dir", "write_atomically"]

_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
"""Links, often to a file, and not to be replaced all the same."""


def private_dir(path: Path) -> None:
    """Make the directory and those that it lies in; DeviceError if that cannot be. All that are
    made have mode 0700: whoever could write to the system directory would give us our settings."""
    try:
        missing = takewhile(lambda place: not place.is_dir(), (path, *path.parents))
        for place in reversed(list(missing)):
            place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DeviceError(
            f"Cannot create directory {path}: {error.strerror}", errno=error.errno
        ) from error


def _write_in_place(path: Path, data: bytes, stream: int | None) -> None:
    """`stream`: the descriptor that the path stands for. Opened anew a file would begin at its
    start, and what is said there later would be written over this."""
    try:
        with open(path if stream is None else os.dup(stream), "wb") as file:
            file.write(data)
    except OSError as error:
        raise DeviceError(f"Failed to write {path}: {error.strerror}", errno=error.errno) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file, mode 0600: a reader or a crash sees the old one or the new one, whole.

    DeviceError when the file system will not have it; the old file is then as it was. What is there
    and no file (/dev/stdout, /dev/null, a pipe) is not replaced but written to.
    """
    private_dir(path.parent)
    stream = _STREAMS.get(str(path))
    if stream is not None or (path.exists() and not path.is_file()):
        _write_in_place(path, data, stream)
        return
    temporary: str | None = None
    try:
        import tempfile  # and all that it imports, for writing alone

        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        reach(f"before {path.parent.name}/ is renamed into")
        os.replace(temporary, path)
        temporary = None
        reach(f"after {path.parent.name}/ was renamed into")
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise DeviceError(f"Failed to write {path}: {error.strerror}", errno=error.errno) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # what failed before counts, in its own words
                os.unlink(temporary)
