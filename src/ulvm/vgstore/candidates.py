"""Which files and disks are looked at as physical volumes (lvm.conf(5), section `devices`).

| `use_devicesfile` | looked at |
| --- | --- |
| 1 | what the devices file lists |
| not set | that, and what lies in the directories of `scan` if that is set |
| 0 | what lies in the directories of `scan` (`/dev` if not set) |

In a scanned directory and those below it, disks count and, outside /dev, plain files; links to
either count by what they lead to. Directories that are links are not entered, nor is the host's own
run directory: active volumes are looked at with `scan_lvs` alone, wherever they are named.

Of what was found, `global_filter` and `filter` must both accept: of each name of a device the first
pattern that fits says whether it is accepted; a device is accepted if one of its names is, or none
is rejected (LVM2's rule). Here they hold for the devices file as well, where LVM2 ignores them.
With `--devices` those that it names stand for all of the table.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ulvm.errors import RefusedError
from ulvm.vgstore.devices import lost_words, read_devices, uses_devices_file
from ulvm.vgstore.host import Host

__all__ = ["Candidates", "DeviceFilter", "find_candidates", "is_volume", "min_sectors"]

_SETTINGS = ("devices/global_filter", "devices/filter")
_MIN_KIB = 2048
_LEAST_KIB = 512
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Candidates(NamedTuple):
    """Paths to look at, in order; those that are not looked at, and why; what is said about it."""

    paths: tuple[str, ...]
    rejected: Mapping[str, str]
    warnings: tuple[str, ...]


def min_sectors(host: Host) -> int:
    """Of a PV: devices/pv_min_size (KiB), which is never below 512 KiB."""
    return max(_LEAST_KIB, host.config.get_int("devices/pv_min_size", _MIN_KIB)) * 2


def find_candidates(host: Host, extra_paths: Iterable[str] = ()) -> Candidates:
    """`extra_paths` are looked at as well, so far as the filters let them and, without a devices
    file, a scan finds them: later commands must see them, too. RefusedError for a filter that is
    not one."""
    filters = [DeviceFilter(_patterns(host, name)) for name in _SETTINGS]
    warnings: list[str] = []
    names: dict[str, set[str]] = {}
    for path in host.only_devices:
        names.setdefault(os.path.realpath(path), set()).add(path)
    if uses_devices_file(host) and not host.only_devices:
        for entry in read_devices(host):
            if entry.lost:
                warnings.append(lost_words(entry))
                continue
            names.setdefault(entry.path, set()).add(entry.path)
    scanned = _scanned(host)
    for directory in scanned:
        if not os.path.isdir(directory):
            warnings.append(f"Ignoring {directory}: No such file or directory.")
            continue
        for name in _walk(directory, str(host.run_dir)):
            names.setdefault(os.path.realpath(name), set()).add(name)
    volumes = os.path.realpath(host.run_dir / "dev")
    layered = host.config.get_bool("devices/scan_lvs", False)
    if layered and scanned:
        for path in _volumes(volumes):
            names.setdefault(path, set()).add(path)
    rejected = {}
    for path in extra_paths:
        if path not in names and (host.only_devices or not uses_devices_file(host)):
            there = host.only_devices and os.path.exists(path)
            rejected[path] = "device is not in devices list" if there else "device not found"
        else:
            names.setdefault(path, set()).add(path)
    paths = []
    for path, aliases in names.items():
        internal = path.startswith(f"{volumes}/mapper/")
        if path.startswith(f"{volumes}/") and (internal or not layered):
            rejected[path] = "device is an LV"
        elif all(one.accepts({path, *aliases}) for one in filters):
            paths.append(path)
        else:
            rejected[path] = "device is rejected by filter config"
    return Candidates(tuple(paths), rejected, tuple(warnings))


def _patterns(host: Host, setting: str) -> list[str]:
    value = host.config.get(setting)
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str) for item in items):
        raise RefusedError(
            "Filter patterns must be enclosed in quotes.\nFailed to create regex device filter"
        )
    return [str(item) for item in items]


def is_volume(host: Host, path: str) -> bool:
    """The path is that of a volume of ours, in the run directory."""
    return os.path.realpath(path).startswith(f"{os.path.realpath(host.run_dir / 'dev')}/")


def _scanned(host: Host) -> list[str]:
    if host.only_devices:
        return []
    use_file = host.config.get("devices/use_devicesfile")
    if use_file is not None and uses_devices_file(host):
        return []
    return host.config.get_list("devices/scan", [] if use_file is None else ["/dev"])


def _volumes(tree: str) -> Iterator[str]:
    """The active volumes, each by the file of its own name."""
    for group in _listed(tree):
        if group != "mapper":
            yield from (f"{tree}/{group}/{name}" for name in _listed(f"{tree}/{group}"))


def _listed(directory: str) -> list[str]:
    """Nothing if it is not there: the last volume of its group may be deactivated just now."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _walk(directory: str, run_dir: str) -> Iterator[str]:
    """Names of disks and plain files, sorted; what cannot be read is passed over."""
    files_too = Path(directory).parts[:2] != ("/", "dev")
    try:
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.path != run_dir:
                yield from _walk(entry.path, run_dir)
            continue
        try:
            mode = os.stat(entry.path).st_mode
        except OSError:
            continue
        if stat.S_ISBLK(mode) or (files_too and stat.S_ISREG(mode)):
            yield entry.path


class DeviceFilter:
    """A list of patterns, `a` to accept or `r` to reject, and an expression between a pair of
    separators: `a|^/dev/sd|`. RefusedError in LVM's words."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_pattern(text) for text in patterns]

    def accepts(self, names: Iterable[str]) -> bool:
        """A device with all these names."""
        rejected = False
        for name in names:
            for accept, expression in self._patterns:
                if expression.search(name):
                    if accept:
                        return True
                    rejected = True
                    break
        return not rejected


def _pattern(text: str) -> tuple[bool, re.Pattern[str]]:
    failed = f'Invalid filter pattern "{text}".\nFailed to create regex device filter'
    if text[:1] not in ("a", "r"):
        raise RefusedError(f"Pattern must begin with 'a' or 'r'.\n{failed}")
    start = text[1:2]
    end = _CLOSING.get(start, start)
    if not start or len(text) < 3 or not text.endswith(end):
        raise RefusedError(f"Invalid separator at end of regex.\n{failed}")
    try:
        return text[0] == "a", re.compile(text[2:-1])
    except re.error as error:
        raise RefusedError(f"Parse error in regex: {error}\n{failed}") from error
