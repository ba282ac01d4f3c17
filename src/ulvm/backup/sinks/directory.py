"""The directory that backups lie in: a file that looks complete is complete.

A backup is two files, `NAME.raw.zst` and `NAME.json`, NAME being `vg-lv-time`. Both are written
under hidden names (`.NAME….partial`), made durable, and renamed: the image first, the manifest
last, and after each renaming the directory is made durable. What fails or is interrupted behind
that is taken back the other way round: the manifest goes, the directory is made durable, then the
image goes. A crash at any point leaves hidden files, or an image without manifest, never a
manifest without its whole image.

A partial file is held with flock by the backup that writes it. The lock dies with the process,
so a partial file that nobody holds is litter of one that was killed, and the next backup into
the directory removes it. Between its creation and its lock a living backup's file looks like
litter too. So who has the lock, to write or to remove, looks whether the name is still that of
the file it locked; if not, the writer creates it anew and the remover leaves it alone. A name
that has been seen so stays, since only the holder of the lock removes it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ulvm.backup.fileio import sync, sync_directory, write_whole
from ulvm.backup.interrupts import deferred
from ulvm.backup.manifest import IMAGE_SUFFIX, MANIFEST_SUFFIX, Manifest
from ulvm.errors import DeviceError, ExistsError, NotFoundError
from ulvm.faultpoints import reach

__all__ = ["BackupFiles", "backup_name", "remove_litter"]

_PARTIAL = ".partial"


def backup_name(vg: str, lv: str, time: datetime) -> str:
    """The stem of both files' names: `vg-lv-20240501T120000Z`."""
    return f"{vg}-{lv}-{time.astimezone(UTC).strftime('%Y%m%dT%H%M%SZ')}"


def remove_litter(directory: Path) -> list[str]:
    """Remove the partial files of backups that were killed; their names."""
    removed = []
    for path in sorted(directory.glob(f".*{_PARTIAL}")):
        if not path.name.endswith((IMAGE_SUFFIX + _PARTIAL, MANIFEST_SUFFIX + _PARTIAL)):
            continue
        try:
            # For writing: NFS makes an exclusive flock a lock of fcntl, which asks for that.
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # gone meanwhile, or not ours to touch
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(os.fstat(fd), path):
                path.unlink()
                removed.append(path.name)
        except OSError:
            continue  # its backup lives; or that cannot be told (no locks there), or not removed
        finally:
            os.close(fd)
    return removed


class BackupFiles:
    """The two files of one backup while it is written; `fd` is the image's.

    Use as a context: what is not committed at its end is removed.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.image_path = directory / (name + IMAGE_SUFFIX)
        self.manifest_path = directory / (name + MANIFEST_SUFFIX)
        self._directory = directory
        self._partial_image = _partial(self.image_path)
        self._partial_manifest = _partial(self.manifest_path)
        self.committed = False
        """Whether both files have their names, durably."""
        self._manifest: os.stat_result | None = None
        """The manifest's file, once there is one: what else has its name is not ours to remove."""
        if not directory.is_dir():
            raise NotFoundError(f"{directory} is not a directory.")
        self.fd = _create(self._partial_image)
        try:
            self._check_free()
        except BaseException:
            self.__exit__()
            raise

    def _check_free(self) -> None:
        """ExistsError for a backup of this name. Behind the making of the partial image, which
        another backup of the name would have to make before it could be complete."""
        for path in (self.image_path, self.manifest_path):
            if os.path.lexists(path):
                raise ExistsError(f"{path} exists already.")

    def __enter__(self) -> BackupFiles:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with deferred():
                if not self.committed:
                    self._take_back()
        finally:
            os.close(self.fd)

    def _take_back(self) -> None:
        """Remove what there is. DeviceError if a manifest cannot be removed durably: its image
        stays then."""
        try:
            self._partial_manifest.unlink(missing_ok=True)
            if self._manifest is not None and _is_named(self._manifest, self.manifest_path):
                self.manifest_path.unlink()
                sync_directory(self._directory)
            for path in (self.image_path, self._partial_image):
                if _is_named(os.fstat(self.fd), path):
                    path.unlink()
        except OSError as error:
            raise DeviceError(
                f"Cannot take {self.image_path} back: {error.strerror}.", errno=error.errno
            ) from error

    def commit(self, manifest: Manifest) -> None:
        """Give both files their names. The image is durable already; DeviceError otherwise."""
        with _created(self._partial_manifest) as fd:
            self._manifest = os.fstat(fd)
            write_whole(fd, manifest.to_json().encode(), 0, self.manifest_path.name)
            sync(fd, self.manifest_path.name)
            try:
                reach("before the image is renamed")
                self._partial_image.rename(self.image_path)
                reach("between image and manifest")
                sync_directory(self._directory)
                self._partial_manifest.rename(self.manifest_path)
                reach("after the manifest was renamed")
                sync_directory(self._directory)
            except OSError as error:
                raise DeviceError(
                    f"Cannot complete {self.image_path}: {error.strerror}.", errno=error.errno
                ) from error
            self.committed = True


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PARTIAL}")


def _create(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceError(f"Cannot create {path}: {error.strerror}.", errno=error.errno) from error
    try:
        # Nobody but a remover of litter has the lock of a file so new, and only for a moment.
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_named(os.fstat(fd), path):
            return fd
    except BaseException as error:
        with suppress(OSError):
            if _is_named(os.fstat(fd), path):
                path.unlink()
        os.close(fd)
        if isinstance(error, OSError):
            raise DeviceError(
                f"Cannot lock {path}: {error.strerror}.", errno=error.errno
            ) from error
        raise
    os.close(fd)
    return _create(path)


def _is_named(file: os.stat_result, path: Path) -> bool:
    """Whether a file is the one of this name."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(file, found)


@contextmanager
def _created(path: Path) -> Iterator[int]:
    fd = _create(path)
    try:
        yield fd
    finally:
        os.close(fd)
