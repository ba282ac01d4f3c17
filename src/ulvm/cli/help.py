"""`help` and `--help`: all commands with a line each, or one as LVM2 shows it: its forms, then what
each option does. `--longhelp` adds the options that all commands have, notes and examples."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import click

from ulvm.cli.catalogue import Entry, OptionInfo, catalogue, entry_of
from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.cli.loading import load
from ulvm.cli.usage import (
    Synopsis,
    command_options,
    lvm_options,
    option_pieces,
    program_name,
    shared_options,
    synopses,
    text_of,
)
from ulvm.errors import UsageError

__all__ = ["VARIABLES", "help_command", "help_lines", "wants_long"]

_COLUMN = 34
VARIABLES = (
    ("PV", "A disk or a plain file; PV:RANGE, such as PV:0-99 or PV:100+20, extents of it."),
    ("LV", "VG/LV, /dev/VG/LV, or the path of its file. The ending _new: a name not in use."),
    ("Tag", "@TAG: all that has the tag."),
    ("Select", "May be left out with --select."),
    (
        "Size[m|UNIT]",
        "A number and one of bBsSkKmMgGtTpPeE; without one, the letter that is shown.",
    ),
    ("Number[PERCENT]", "Extents, or a part such as 50%VG, 100%FREE, 30%PVS, 20%ORIGIN."),
)


def wants_long(context: click.Context) -> bool:
    """Whether `--longhelp` was given."""
    given = context.find_root().obj
    return isinstance(given, Context) and "--longhelp" in given.words


def help_lines(name: str, command: click.Command, *, long: bool = False) -> list[str]:
    """What `--help` shows of a command, or with `long` `--longhelp`."""
    if name == "dmsetup" and not long:
        from ulvm.cli.dmusage import USAGE

        return [USAGE]
    return _lines(entry_of(name, command), long=long)


def _lines(entry: Entry, *, long: bool) -> list[str]:
    title = f"  {entry.name} - {entry.summary}"
    if entry.subcommands:
        inner = (one for one in entry.subcommands if not one.hidden)
        return [title, "", *_columns((program_name(one.name), one.summary) for one in inner)]
    lines = [title, ""]
    if long:
        lines += [*_description(entry), ""]
    for form in synopses(entry):
        lines += [*_form(form), ""]
    shared = shared_options(entry)
    own = [o for o in command_options(entry) if o not in shared]
    lines += _section("Options:", own)
    lines += _section("Common options for command:", shared)
    if not long:
        common = [text_of(option_pieces(o, pad=False)) for o in lvm_options(entry)]
        names = ", ".join([*common, "-h|--help", "--longhelp"])
        lines += ["  Common options:", *_wrapped(names, " " * 8)]
        lines += ["", "  Use --longhelp to show what these do, and more on the command."]
        return lines
    lines += _section("Common options:", lvm_options(entry))
    lines += ["  Variables:", *_columns(VARIABLES)]
    if entry.examples:
        lines += ["", "  Examples:"]
        for line, what in entry.examples:
            lines += [f"\t{line}", *_wrapped(what, " " * 12)]
    return lines


def _form(form: Synopsis) -> Iterator[str]:
    if form.what:
        yield from (f"  {line}" for line in form.what.split("\n"))
    if form.any_of:
        yield "  Any one of the options in parentheses is required."
    yield f"  {text_of(form.line)}"
    for at, pieces in enumerate(form.any_of):
        end = " )" if at == len(form.any_of) - 1 else ","
        yield f"\t{'( ' if at == 0 else '  '}{text_of(pieces)}{end}"
    if form.names:
        yield f"\t {text_of(form.names)}"
    for pieces in (*form.takes, *([form.more] if form.more else [])):
        yield f"\t{text_of(pieces)}"


def _section(title: str, options: Sequence[OptionInfo]) -> list[str]:
    if not options:
        return []
    rows = [(text_of(option_pieces(option)), option.help) for option in options]
    return [f"  {title}", *_columns(rows), ""]


def _columns(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for left, right in rows:
        indent = "    " + " " * _COLUMN
        lines = _wrapped(right, indent)
        head = f"    {left}"
        if len(head) < len(indent) - 1 and lines:
            yield head.ljust(len(indent)) + lines[0].strip()
            lines = lines[1:]
        else:
            yield head
        yield from lines


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(max(shutil.get_terminal_size().columns, 40 + len(indent)), 100)
    return textwrap.wrap(
        " ".join(text.split()),
        width - 1,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _description(entry: Entry) -> Iterator[str]:
    """Paragraphs; one that begins with a line `\\b`, as click has it, keeps its lines."""
    for number, block in enumerate(entry.description.split("\n\n")):
        if number:
            yield ""
        lines = block.strip("\n").splitlines()
        if lines and lines[0].strip(" ") == "\b":
            yield from (f"    {line}" for line in lines[1:])
        else:
            yield from _wrapped(block, "  ")


@click.command("help")
@click.argument("names", nargs=-1, metavar="[COMMAND...]")
@own_options
def help_command(names: tuple[str, ...]) -> None:
    """Show all commands, or how they are used."""
    if not names:
        click.echo("\n".join(_overview()))
        return
    from ulvm.cli.main import COMMANDS

    words = iter(names)
    unknown = False
    shown: list[str] = []
    word = next(words, None)
    while word is not None:
        if word not in COMMANDS:
            shown.append(f"  {word}: no such command.")
            unknown = True
            word = next(words, None)
            continue
        name, command = word, load(COMMANDS[word], word)
        word = next(words, None)
        if word is not None and isinstance(command, click.Group) and word in command.commands:
            name, command = f"{name} {word}", command.commands[word]
            word = next(words, None)
        shown.append("\n".join(help_lines(name, command)))
    click.echo("\n\n".join(shown))
    if unknown:
        raise UsageError("")


def _overview() -> Iterator[str]:
    yield "  Available ulvm commands:"
    yield "  Use 'ulvm help <command>' for more information"
    yield "   "
    for entry in sorted(catalogue(), key=lambda entry: entry.name):
        if not entry.hidden:
            yield f"  {entry.name:15} {entry.summary}"
