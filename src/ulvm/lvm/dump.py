"""What a report of a fault should hold (lvmdump(8)): versions, settings, devices, tables, metadata,
logs, each in a file of its own.

What is asked of this program is asked of a process of its own with a time limit, so that a daemon
that hangs costs a gap and not the report. Nothing of the volumes' content is taken.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ulvm import __version__
from ulvm.errors import RefusedError, UlvmError
from ulvm.vgstore.devices import read_devices
from ulvm.vgstore.host import Host

__all__ = ["DumpOptions", "dump_name", "pack", "write_dump"]

_SECONDS = 60
_MAX_LOG = 1 << 20
_HEADER = 1 << 20
"""Bytes from the begin of a PV: label and first metadata area."""

_MAX_NAME = 200
"""Bytes of a PV's path that name its file: there is room for more in every file system."""

_ALWAYS = {
    "dmsetup_info": "dmsetup info -c",
    "dmsetup_table": "dmsetup table",
    "dmsetup_status": "dmsetup status",
    "dmsetup_tree": "dmsetup ls --tree",
    "daemon_status": "daemon status --json",
    "monitor_status": "monitor status",
    "lvmconfig": "lvmconfig --typeconfig full",
    "lvmconfig_diff": "lvmconfig --typeconfig diff",
}
_ADVANCED = {
    "pvs": "pvs -a -o +all",
    "vgs": "vgs -o +all",
    "lvs": "lvs -a -o +all",
    "pvscan": "pvscan -v",
    "vgscan": "vgscan -v",
}
_SYSTEM = {
    "lsblk": ["lsblk", "-O"],
    "losetup": ["losetup", "--list"],
    "uptime": ["uptime"],
    "free": ["free", "-m"],
    "systemctl": ["systemctl", "--no-pager", "status", "--all"],
    "journal": ["journalctl", "--no-pager", "-b", "-n", "5000"],
}


@dataclass(frozen=True, slots=True)
class DumpOptions:
    """Reports of all there is, the metadata areas byte by byte, and what the system has to say."""

    advanced: bool = False
    metadata: bool = False
    system: bool = False


def dump_name(seconds: str) -> str:
    """The name of a dump; `seconds` is the time as digits."""
    return f"lvmdump-{platform.node() or 'host'}-{seconds}"


def write_dump(
    host: Host, directory: Path, options: DumpOptions, say: Callable[[str], None]
) -> None:
    """Write all files to a directory that does not exist yet. RefusedError if it does."""
    try:
        directory.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise RefusedError(f"Fatal: {directory} already exists.") from None
    say(f"Creating dump directory: {directory}")
    say("Gathering version info...")
    _write(directory / "versions", "\n".join(_versions()) + "\n")
    say("Gathering dmsetup and daemon info...")
    _commands(host, directory, _ALWAYS)
    say("Gathering process info...")
    _program(directory / "ps_info", ["ps", "alx"])
    say("Gathering console messages...")
    _tail(host.run_dir / "ulvmd.log", directory / "ulvmd.log")
    say("Gathering configuration and metadata backups...")
    _copy_settings(host, directory / "etc")
    say("Gathering device nodes and mounts...")
    _write(directory / "dev_listing", "\n".join(_listing(host.run_dir)) + "\n")
    _copy(Path("/proc/self/mountinfo"), directory / "mountinfo")
    _copy(Path("/proc/devices"), directory / "proc_devices")
    if options.advanced:
        say("Gathering advanced info...")
        _commands(host, directory, _ADVANCED)
    if options.metadata:
        say("Gathering LVM metadata from the PVs...")
        _metadata(host, directory / "metadata")
    if options.system:
        say("Gathering system info...")
        for name, words in _SYSTEM.items():
            _program(directory / f"system_{name}", words)


def pack(directory: Path, archive: Path) -> None:
    """Turn a dump's directory into a new compressed archive, which is never anybody else's."""
    descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(directory, arcname=directory.name)
    shutil.rmtree(directory)


def _versions() -> Iterator[str]:
    yield f"ulvm {__version__}"
    yield f"Python {sys.version}"
    yield " ".join(platform.uname())


def _commands(host: Host, directory: Path, commands: dict[str, str]) -> None:
    for name, line in commands.items():
        _program(directory / name, host.command(*line.split()))


def _program(place: Path, words: list[str]) -> None:
    """What a program says, and how it ends."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        ending = f"[exit code {done.returncode}]\n" if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        said, ending = error.stdout or b"", f"[no end after {_SECONDS} s]\n"
    except OSError as error:
        said, ending = b"", f"[{words[0]}: {error.strerror}]\n"
    place.write_bytes(said + ending.encode())


def _copy_settings(host: Host, place: Path) -> None:
    place.mkdir()
    for name in ("ulvm.conf", "lvm.conf", "lvmlocal.conf"):
        _copy(host.system_dir / name, place / name)
    for folder in (host.devices_file.parent, host.backup_dir, host.archive_dir):
        if folder.is_dir():
            (place / folder.name).mkdir(exist_ok=True)
            for file in sorted(folder.iterdir()):
                _copy(file, place / folder.name / file.name)


def _copy(source: Path, place: Path) -> None:
    """What is there and can be read; else why not."""
    try:
        place.write_bytes(source.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        return
    except OSError as error:
        _write(place, f"[{error.strerror}]\n")


def _tail(source: Path, place: Path) -> None:
    try:
        with source.open("rb") as file:
            file.seek(max(0, source.stat().st_size - _MAX_LOG))
            place.write_bytes(file.read())
    except FileNotFoundError:
        return


def _listing(run_dir: Path) -> Iterator[str]:
    """The run directory's files, those in it that are volumes without being opened."""
    for folder, names, files in os.walk(run_dir):
        names.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            try:
                found = os.lstat(path)
            except OSError as error:
                yield f"{path}: {error.strerror}"
                continue
            yield f"{found.st_mode:o} {found.st_size} {path}"


def _metadata(host: Host, place: Path) -> None:
    place.mkdir()
    for entry in read_devices(host):
        path = os.fsencode(entry.path.strip("/").replace("/", "_"))
        name = os.fsdecode(path[-_MAX_NAME:])
        while (place / name).exists():  # a/b and a_b, or two with one end
            name += "_"
        try:
            device = host.opener(entry.path, False)
            try:
                data = device.read(0, min(_HEADER, device.size))
            finally:
                device.close()
        except UlvmError as error:
            _write(place / name, f"[{error}]\n")
            continue
        (place / name).write_bytes(data)


def _write(place: Path, text: str) -> None:
    place.write_text(text, encoding="utf-8", errors="surrogateescape")
