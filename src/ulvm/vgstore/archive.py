"""Text files of a VG's metadata: `backup/<vg>` after each change, `archive/<vg>_NNNNN-R.vg` before.

As LVM2 names and keeps them (vgcfgbackup(8), archiver.c): files are 0600 in directories of 0700,
written beside and renamed. Of the archive, `backup/retain_min` files (10) and all younger than
`backup/retain_days` (30) are kept; `backup/archive` and `backup/backup` turn each off.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path

from ulvm.errors import DeviceError, FormatError
from ulvm.metadata.mda import MAX_TEXT
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.text import TextHeader, vg_and_header, vg_to_text
from ulvm.vgstore.files import write_atomically
from ulvm.vgstore.host import Host

__all__ = [
    "archive_vg",
    "archived",
    "backup_path",
    "backup_vg",
    "backup_words",
    "read_backup",
    "remove_backup",
]

_DAY = 24 * 3600
_MAX_FILE = 4 * MAX_TEXT
"""Bytes; what an area holds is half as long again with its indentation and comments."""


def archive_vg(host: Host, vg: VolumeGroup, command: str) -> Path | None:
    """Keep the VG as it is before a command changes it; the new file, None if turned off."""
    if host.trial or not host.config.get_bool("backup/archive", True):
        return None
    folder = host.archive_dir
    numbers = [n for n, _ in _archived(folder, vg.name)]
    number = max(numbers, default=-1) + 1
    # Of commands that change something alone: it takes a while to load.
    import secrets

    path = folder / f"{vg.name}_{number:05d}-{secrets.randbelow(1 << 31)}.vg"
    _write(host, path, vg, f"Created *before* executing '{command}'")
    _expire(host, vg.name)
    return path


def backup_path(host: Host, vg_name: str) -> Path:
    return host.backup_dir / vg_name


def backup_vg(
    host: Host, vg: VolumeGroup, command: str, *, path: Path | None = None, force: bool = False
) -> Path | None:
    """Keep the VG as it is after a command. None if turned off, unless `force` (vgcfgbackup);
    with `path` into that file, whose directory must be there."""
    if path is not None:
        if not path.parent.is_dir():
            raise DeviceError("Couldn't create temporary text file name.")
        if not host.trial:
            _write(host, path, vg, command)
        return path
    if not force and not host.config.get_bool("backup/backup", True):
        return None
    target = backup_path(host, vg.name)
    if host.trial:
        return target
    _write(host, target, vg, f"Created *after* executing '{command}'")
    return target


def backup_words(host: Host, path: Path, vg: VolumeGroup) -> str:
    """What -v says of a backup."""
    if host.trial:
        return "Test mode: Skipping backup of volume group."
    return f'Creating volume group backup "{path}" (seqno {vg.seqno}).'


def remove_backup(host: Host, vg_name: str) -> None:
    """The VG is gone, or has another name; its archive stays."""
    if host.trial:
        return
    path = backup_path(host, vg_name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DeviceError(f"Failed to remove {path}: {error.strerror}", errno=error.errno) from None


def read_backup(path: Path) -> tuple[VolumeGroup, TextHeader]:
    """What a file of `backup_vg` or `archive_vg`, or LVM2's, holds. DeviceError, FormatError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise DeviceError(f"{path}: open failed: {error.strerror}", errno=error.errno) from error
    if len(data) > _MAX_FILE:
        raise FormatError(f"{path} is too large for metadata.")
    return vg_and_header(data)


def archived(folder: Path, vg_name: str) -> list[Path]:
    """The archive files of a VG, the oldest first."""
    return [path for _, path in _archived(folder, vg_name)]


def _write(host: Host, path: Path, vg: VolumeGroup, description: str) -> None:
    text = vg_to_text(vg, TextHeader.now(description, host.system_id), file_form=True)
    write_atomically(path, text.encode("utf-8", errors="surrogateescape"))


def _archived(folder: Path, vg_name: str) -> list[tuple[int, Path]]:
    """(number, path) of a VG's archive files."""
    pattern = re.compile(re.escape(vg_name) + r"_(\d{5,})-\d+\.vg")
    found = []
    if folder.is_dir():
        for path in folder.iterdir():
            match = pattern.fullmatch(path.name)
            if match:
                found.append((int(match.group(1)), path))
    return sorted(found)


def _expire(host: Host, vg_name: str) -> None:
    keep = max(1, host.config.get_int("backup/retain_min", 10))
    oldest = time.time() - host.config.get_int("backup/retain_days", 30) * _DAY
    files = _archived(host.archive_dir, vg_name)
    for _, path in files[:-keep]:
        # One that stays is no reason to refuse a change of the group.
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
