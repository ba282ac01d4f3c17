"""How volumes and volume groups are named on a command line.

`vg/lv`, `/dev/vg/lv`, `/dev/mapper/<dm name>` and the paths under the run directory's `dev/` all
name a volume, as does a link to one of those; `vg`, `/dev/vg` and `vg/` a volume group (lvm(8)).
A device has the name of its file or disk, or that of a link to it (/dev/disk/by-id/...).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ulvm.activation.names import dm_name, split_dm_name
from ulvm.errors import FormatError, NotFoundError, RefusedError, UsageError
from ulvm.metadata.names import check_new_vg_name, name_problem

__all__ = [
    "InvalidPathError",
    "given_device",
    "given_vg",
    "look_for",
    "new_vg_name",
    "plain_name",
    "split_known",
    "split_volume",
    "vg_name",
]

_MAPPER = "mapper"


class InvalidPathError(NotFoundError):
    """No volume nor group can be named like this: where several are named, none is touched."""


def split_volume(text: str, run_dir: Path, default_vg: str = "") -> tuple[str, str | None]:
    """(VG, LV) of what a user typed; LV None if only a VG was named, which a lone word is unless
    there is a `default_vg` for it. UsageError (exit code 3)."""
    words = _strip(text, run_dir).rstrip("/").split("/")
    if default_vg and len(words) == 1 and text == words[0]:
        words.insert(0, default_vg)
    if len(words) == 2 and words[0] == _MAPPER:
        try:
            vg, lv, layer = split_dm_name(words[1])
        except FormatError:
            raise UsageError(f'"{text}" is not the name of a logical volume.') from None
        if layer:
            raise UsageError(f'"{text}" is an internal device of {vg}/{lv}.')
        words = [vg, lv]
    if len(words) > 2 or not words[0]:
        raise UsageError(f'"{text}": Invalid path for Logical Volume.')
    for word in words:
        problem = name_problem(word)
        if problem is not None and len(words) == 1:
            raise UsageError(f"Volume group name {word} has invalid characters")
        if problem is not None:
            raise UsageError(f'"{text}": Invalid path for Logical Volume: {problem}')
    return words[0], words[1] if len(words) == 2 else None


def split_known(text: str, run_dir: Path, default_vg: str = "") -> tuple[str, str | None]:
    """As `split_volume`, of a volume that is there: what no volume may be called is not there, and
    is left to be looked for. NotFoundError for what can be no group, InvalidPathError for what
    can be no path."""
    try:
        return split_volume(text, run_dir, default_vg)
    except UsageError as error:
        words = plain_name(text, run_dir).split("/")
        if len(words) == 2 and words[0] and words[1] and name_problem(words[0]) is None:
            return words[0], words[1]
        if not text or (len(words) <= 2 and words[0]):
            raise NotFoundError(
                f'Volume group name "{words[0]}" has invalid characters.\n'
                f"Cannot process volume group {words[0]}"
            ) from None
        raise InvalidPathError(error.message) from None


def vg_name(text: str, run_dir: Path) -> str:
    """The VG that a user typed; UsageError if it is rather a volume's name, RefusedError if it can
    be no name at all."""
    name = _strip(text, run_dir).rstrip("/")
    if "/" in name:
        raise UsageError(f"Invalid volume group name {name}.")
    if name_problem(name) is not None:
        raise RefusedError(f'Volume group name "{name}" has invalid characters.')
    return name


def given_vg(text: str, run_dir: Path) -> str:
    """The one VG that a command works on; RefusedError, as for a VG that is not there, if it can
    be no name."""
    name = plain_name(text, run_dir)
    if name_problem(name) is not None:
        raise RefusedError(
            f'Volume group name "{name}" has invalid characters.\n'
            f"Cannot process volume group {name}"
        )
    return name


def plain_name(text: str, run_dir: Path) -> str:
    """Without the directory that it may have been typed with."""
    return _strip(text, run_dir).rstrip("/")


def new_vg_name(text: str, run_dir: Path) -> str:
    """The name that a user typed for a new VG; UsageError if no VG may have it."""
    name = _strip(text, run_dir).rstrip("/")
    check_new_vg_name(name)
    return name


def given_device(text: str, run_dir: Path) -> str:
    """The path by which a scan knows the device that a user typed, whether it is there or not.
    /dev/vg/lv means the volume, whether or not there are links in /dev."""
    if not text:
        return text  # Not the directory that one is in.
    volume = run_dir / "dev" / text.removeprefix("/dev/")
    if text.startswith("/dev/") and not os.path.exists(text) and volume.exists():
        return os.path.realpath(volume)
    return os.path.realpath(text)


def look_for(run_dir: Path, vg: str, lvs: Iterable[str]) -> None:
    """Look volumes up by names that they have no more. Only so the kernel learns that these are
    gone: a loop device over one that is open has its name till then, and whoever gets that name
    next would be taken for what it stands on."""
    tree = run_dir / "dev"
    for lv in lvs:
        for path in (tree / vg / lv, tree / _MAPPER / dm_name(vg, lv)):
            os.path.lexists(path)


def _strip(text: str, run_dir: Path) -> str:
    tree = f"{run_dir / 'dev'}/"
    if text.startswith("/") and not text.startswith(tree):
        with suppress(OSError, ValueError):  # no path at all
            text = next((path for path in _targets(text) if path.startswith(tree)), text)
    for root in (tree, "/dev/"):
        if text.startswith(root):
            return text.removeprefix(root)
    return text


def _targets(path: str) -> Iterator[str]:
    """What a path leads to: by itself a link, or by way of one, as /var/run is."""
    with suppress(OSError):
        yield os.readlink(path)
    folder, name = os.path.split(path)
    yield os.path.join(os.path.realpath(folder), name)
