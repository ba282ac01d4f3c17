"""All commands with their options, read from the click commands themselves: what help, man pages
and completion are made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import click

from ulvm.cli.common_options import common_options
from ulvm.cli.examples import EXAMPLES, Example
from ulvm.cli.loading import load

__all__ = ["COMMON", "Entry", "OptionInfo", "catalogue", "entry_of"]

_SIZE = "Size[m|UNIT]"
_SMALL_SIZE = "Size[k|UNIT]"
_VALUES = {
    "--activate": "y|n|ay",
    "--bootloaderareasize": _SIZE,
    "--chunksize": _SMALL_SIZE,
    "--dataalignment": _SMALL_SIZE,
    "--dataalignmentoffset": _SMALL_SIZE,
    "--deldev": "PV",
    "--addtag": "Tag",
    "--deltag": "Tag",
    "--adddev": "PV",
    "--devices": "PV,...",
    "--exec": "Command",
    "--extents": "Number[PERCENT]",
    "--file": "File",
    "--for": "Time",
    "--measure": "Time",
    "--metadatasize": _SIZE,
    "--physicalextentsize": _SIZE,
    "--quiesce": "Command",
    "--readahead": "auto|none|Number",
    "--resume": "Command",
    "--setphysicalvolumesize": _SIZE,
    "--size": _SIZE,
    "--sort": "[+|-]Field,...",
    "--stripesize": _SMALL_SIZE,
    "--table": "Table",
    "--units": "[Number]r|R|h|H|b|B|s|S|k|K|m|M|g|G|t|T|p|P|e|E",
    "--vgmetadatacopies": "all|unmanaged|Number",
    "--virtualsize": _SIZE,
    "lvextend --extents": "[+]Number[PERCENT]",
    "lvextend --size": "[+]Size[m|UNIT]",
    "lvreduce --extents": "[-]Number[PERCENT]",
    "lvreduce --size": "[-]Size[m|UNIT]",
    "lvresize --extents": "[+|-]Number[PERCENT]",
    "lvresize --size": "[+|-]Size[m|UNIT]",
    "pvscan --activate": "ay",
    "pvmove --name": "LV",
}
"""What LVM2's manual pages call the values of these options, of one command or of all."""


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """An option: its spellings, the word for its value ("" if it takes none), what it does."""

    spellings: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    repeatable: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A command, or one of a group such as `daemon status`."""

    name: str
    summary: str
    description: str
    arguments: str
    options: tuple[OptionInfo, ...]
    subcommands: tuple[Entry, ...] = ()
    hidden: bool = False

    @property
    def examples(self) -> tuple[Example, ...]:
        return EXAMPLES.get(self.name, ())

    def spellings(self) -> list[str]:
        """Of all options that are shown."""
        return [s for option in self.options if not option.hidden for s in option.spellings]


def catalogue(names: Iterable[str] | None = None) -> Iterator[Entry]:
    """The entries of these commands, or of all, in the order of the table."""
    from ulvm.cli.main import COMMANDS

    for name, target in COMMANDS.items():
        if names is None or name in names:
            yield _entry(name, load(target, name))


def _entry(name: str, command: click.Command) -> Entry:
    inner: Mapping[str, click.Command] = {}
    if isinstance(command, click.Group):
        inner = command.commands
    arguments = " ".join(
        p.make_metavar(click.Context(command))
        for p in command.params
        if isinstance(p, click.Argument)
    )
    return Entry(
        name,
        command.get_short_help_str(limit=500).rstrip("."),
        _description(command.help or ""),
        arguments,
        tuple(_option(name, command, p) for p in command.params if isinstance(p, click.Option)),
        tuple(_entry(f"{name} {word}", one) for word, one in inner.items()),
        command.hidden,
    )


def _option(name: str, command: click.Command, option: click.Option) -> OptionInfo:
    takes_none = option.is_flag or option.count
    return OptionInfo(
        (*option.opts, *option.secondary_opts),
        "" if takes_none else _value(name, command, option),
        tuple(getattr(option.type, "words", ())),
        option.help or "",
        option.count or option.multiple,
        option.hidden,
    )


def _value(name: str, command: click.Command, option: click.Option) -> str:
    """The word for an option's value as LVM2 writes it: variables begin with a capital letter,
    what is typed as it stands is in small ones."""
    long = next((o for o in option.opts if o.startswith("--")), option.opts[-1])
    known = _VALUES.get(f"{name} {long}") or _VALUES.get(long)
    if known is not None:
        return known
    if isinstance(option.type, click.IntRange):
        return "Number"
    word = option.make_metavar(click.Context(command))
    return {"TEXT": "String", "INTEGER": "Number", "ID": "String"}.get(
        word, re.sub(r"[A-Z]{5,}|SIZE|NAME|FILE|TYPE|PATH", lambda m: m[0].capitalize(), word)
    )


def entry_of(name: str, command: click.Command) -> Entry:
    """Of a command that is loaded; `name` with that of its group."""
    return _entry(name, command)


def _description(text: str) -> str:
    """The docstring of a command, without its indentation."""
    lines = text.expandtabs().splitlines()
    depth = min((len(x) - len(x.lstrip()) for x in lines[1:] if x.strip()), default=0)
    return "\n".join([*lines[:1], *(line[depth:] for line in lines[1:])]).strip()


@click.command()
@common_options
def _common() -> None:
    """For the options that all commands share."""


COMMON = frozenset(o.opts[-1] for o in _common.params if isinstance(o, click.Option))
"""The long spellings of those."""
