"""A snapshot mounted read-only for a backup program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from ulvm.backup.interrupts import deferred
from ulvm.errors import NotFoundError
from ulvm.mounts import mount_volume, unmount_volume
from ulvm.vgstore.files import private_dir
from ulvm.vgstore.host import Host

__all__ = ["mount_directory", "mounted", "unmount_left"]


def mount_directory(host: Host, vg: str, snapshot: str) -> Path:
    """Where a backup mounts its snapshot."""
    return host.run_dir / "backup" / f"{vg}-{snapshot}"


@contextmanager
def mounted(host: Host, vg: str, snapshot: str, device: Path, say: Say) -> Iterator[Path]:
    """Mount the file system of a snapshot for the block; the directory it is on.

    The snapshot itself can be written, so that a journal can be replayed (into its COW, not
    into the origin); the mount cannot.
    """
    directory = mount_directory(host, vg, snapshot)
    private_dir(host.run_dir)
    private_dir(directory.parent)
    directory.mkdir(exist_ok=True, mode=0o700)
    try:
        try:
            with deferred():  # what came meanwhile is raised at the end of this block
                made = mount_volume(device, directory, read_only=True)
            for note in made.notes:
                say(note)
            yield directory
        finally:
            with deferred(), suppress(NotFoundError):
                unmount_volume(directory)
    finally:
        with suppress(OSError):  # still mounted, if unmounting failed: that error is under way
            directory.rmdir()


def unmount_left(host: Host, vg: str, snapshot: str) -> None:
    """Unmount what a killed backup left mounted."""
    directory = mount_directory(host, vg, snapshot)
    with suppress(NotFoundError):
        unmount_volume(directory)
    with suppress(FileNotFoundError):
        directory.rmdir()


class Say(Protocol):
    def __call__(self, text: str) -> None: ...
