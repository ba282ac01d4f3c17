"""Completion for bash, zsh and fish: what may stand where in a command line.

The scripts (`cli.completion_shells`) hold all commands, options, words and fields of reports, and
ask the program for nothing but the names of groups, volumes, disks and mapped devices. `--links`
lets them serve LVM2's names as well, for who has the command links first in PATH.
"""

from __future__ import annotations

from dataclasses import dataclass

from ulvm.cli.catalogue import Entry, OptionInfo, catalogue
from ulvm.cli.completion_shells import SHELLS, Completed, Value
from ulvm.cli.links import link_names

__all__ = ["completed_command", "completion_script", "field_names"]


@dataclass(frozen=True)
class _Arguments:
    """Kinds of a command's first argument and of those behind it: `groups`, `volumes` (groups as
    well), `disks` (PVs and files), `devices` (of dmsetup), `files`, `words`, or nothing."""

    first: str
    rest: str


_ARGUMENTS = {
    "pvs": _Arguments("disks", "disks"),
    "vgcreate": _Arguments("", "disks"),
    "vgextend": _Arguments("groups", "disks"),
    "vgreduce": _Arguments("groups", "disks"),
    "vgsplit": _Arguments("groups", "disks"),
    "vgimportclone": _Arguments("disks", "disks"),
    "vgmknodes": _Arguments("volumes", "volumes"),
    "lvcreate": _Arguments("volumes", "disks"),
    "lvextend": _Arguments("volumes", "disks"),
    "lvresize": _Arguments("volumes", "disks"),
    "lvmdump": _Arguments("", ""),
    "lvscan": _Arguments("", ""),
    "vgscan": _Arguments("", ""),
    "lvmdiskscan": _Arguments("", ""),
    "lvmdevices": _Arguments("", ""),
    "fullreport": _Arguments("groups", "groups"),
    "blkdeactivate": _Arguments("volumes", "volumes"),
    "fsadm": _Arguments("words", "volumes"),
    "mount": _Arguments("volumes", "files"),
    "umount": _Arguments("volumes", ""),
    "backup": _Arguments("volumes", ""),
    "advise": _Arguments("volumes", ""),
    "restore": _Arguments("files", "groups"),
    "monitor": _Arguments("words", "volumes"),
    "devices": _Arguments("words", "disks"),
    "dmsetup": _Arguments("words", "devices"),
    "help": _Arguments("words", "words"),
    "man": _Arguments("words", ""),
    "completion": _Arguments("words", ""),
}
_BY_FAMILY = {
    "pv": _Arguments("disks", "disks"),
    "vg": _Arguments("groups", "groups"),
    "lv": _Arguments("volumes", "volumes"),
}
_VALUES = {
    "Field,...": "fields",
    "[+|-]Field,...": "fields",
    "Selection": "fields",
    "PV": "disks",
    "PV,...": "disks",
    "VG": "groups",
    "LV": "volumes",
    "File": "files",
    "Path": "files",
    "Directory": "files",
}
"""By the word for an option's value. After others nothing is offered."""
_SIZE_LETTERS = tuple("bskmgtpe")


def completion_script(shell: str, *, links: bool = False) -> str:
    """The script for a shell of `SHELLS`; `links`: for LVM2's names, too."""
    entries = [entry for entry in catalogue() if not entry.hidden]
    names = [entry.name for entry in entries]
    completed = [_completed(entry, names) for entry in entries]
    return SHELLS[shell](completed, ["ulvm", *(link_names() if links else ())], _fields())


def completed_command(name: str) -> Completed | None:
    """What may stand in a line of this command."""
    from ulvm.cli.main import COMMANDS

    entry = next((entry for entry in catalogue([name]) if not entry.hidden), None)
    return None if entry is None else _completed(entry, list(COMMANDS))


def field_names(kind: str) -> list[str]:
    """Of `fields` or `dmfields`; of another kind none."""
    return _fields().get(kind, [])


def _completed(entry: Entry, names: list[str]) -> Completed:
    words = _words(entry, names)
    family = _Arguments("words", "") if words else _Arguments("files", "files")
    arguments = _ARGUMENTS.get(entry.name) or _BY_FAMILY.get(entry.name[:2], family)
    if entry.name in ("lvmconfig", "config", "dumpconfig"):
        arguments = _Arguments("words", "words")
    seen: dict[tuple[str, ...], OptionInfo] = {}
    for one in (entry, *entry.subcommands):
        seen.update({option.spellings: option for option in one.options if not option.hidden})
    values = {spellings: _value(entry, option) for spellings, option in seen.items()}
    return Completed(
        entry.name, entry.summary, arguments.first, arguments.rest, words, seen, values
    )


def _words(entry: Entry, names: list[str]) -> list[str]:
    """What may be the first argument, where that is a word."""
    if entry.name in ("help", "man"):
        return names
    if entry.name == "dmsetup":
        from ulvm.cli.dmsetup import COMMANDS

        return list(COMMANDS)
    if entry.name in ("lvmconfig", "config", "dumpconfig"):
        from ulvm.vgstore.settings import known_settings

        used = (s.path for s in known_settings().values() if s.has_effect)
        return [path for path in used if "<" not in path]
    if entry.name == "fsadm":
        return ["check", "resize"]
    if entry.name == "completion":
        return list(SHELLS)
    return [inner.name.split(" ")[-1] for inner in entry.subcommands]


def _value(entry: Entry, option: OptionInfo) -> Value | None:
    """None for an option without a value."""
    if not option.value:
        return None
    if option.choices:
        return Value("words", option.choices)
    if "--activate" in option.spellings:
        return Value("words", tuple(option.value.split("|")))
    if "--units" in option.spellings:
        return Value("words", ("r", "h", *_SIZE_LETTERS))
    if entry.name == "dmsetup" and {"--options", "--sort", "--select"} & {*option.spellings}:
        return Value("dmfields")
    return Value(_VALUES.get(option.value, ""))


def _fields() -> dict[str, list[str]]:
    """The fields of reports, and of `dmsetup info -c`."""
    from ulvm.report.catalogue import DEVICES, VOLUMES

    return {
        "fields": [e.name for section in VOLUMES for e in section.entries] + ["help", "all"],
        "dmfields": [e.name for section in DEVICES for e in section.entries] + ["help"],
    }
