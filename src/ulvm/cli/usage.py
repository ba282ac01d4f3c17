"""How a command is used: its forms with the spellings and values of its options, as `--help`, the
manual pages and the answer to a wrong command line show them.

What is shown consists of pieces: `bold` for what is typed as it stands, `italic` for what stands
for something, `plain` between them. In a terminal all are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from ulvm.cli.catalogue import COMMON, Entry, OptionInfo
from ulvm.cli.forms import FORMS, Form

__all__ = [
    "AUTOBACKUP",
    "Piece",
    "Synopsis",
    "command_options",
    "lvm_options",
    "marked",
    "nearest",
    "option_pieces",
    "program_name",
    "shared_options",
    "synopses",
    "text_of",
]

Piece: TypeAlias = tuple[str, str]
"""Style and text."""

AUTOBACKUP = "--autobackup"
"""LVM2 counts it to the options of the commands that have it."""
_LVM_NAMES = ("pv", "vg", "lv", "dmsetup", "blkdeactivate", "fsadm", "lsblk")


class Synopsis(NamedTuple):
    """A form. `line`: what it must have; `any_of`: options of which it must have one, then `names`;
    `takes`: what stands in brackets below; `more`: arguments at the end, in brackets."""

    what: str
    line: list[Piece]
    any_of: list[list[Piece]]
    names: list[Piece]
    takes: list[list[Piece]]
    more: list[Piece]


def synopses(entry: Entry) -> list[Synopsis]:
    """All forms of a command that is no group."""
    forms = FORMS.get(entry.name)
    if forms is None:
        forms = (Form(needs=entry.arguments),)
    alone = len(forms) == 1
    return [_synopsis(entry, form, alone=alone) for form in forms]


def _synopsis(entry: Entry, form: Form, *, alone: bool) -> Synopsis:
    line: list[Piece] = [("bold", program_name(entry.name))]
    for word in form.needs.split():
        line += [("plain", " "), *_word(entry, word)]
    takes = [_bracketed(_option(entry, word, pad=True)) for word in form.takes.split()]
    takes.append(_bracketed([("italic", "OPTIONS" if alone else "COMMON_OPTIONS")]))
    any_of = [_option(entry, word, pad=True) for word in form.any_of.split()]
    names, more = marked(form.names), list[Piece]()
    if names and not any_of:
        names, more = [], _bracketed(names)
    return Synopsis(form.what, line, any_of, names, takes, more)


def program_name(name: str) -> str:
    """What is typed for a command: LVM2's have their names to themselves."""
    return name if name.startswith(_LVM_NAMES) else f"ulvm {name}"


def _bracketed(pieces: Iterable[Piece]) -> list[Piece]:
    return [("plain", "[ "), *pieces, ("plain", " ]")]


def _word(entry: Entry, word: str) -> list[Piece]:
    return _option(entry, word) if word.startswith("--") else marked(word)


def _option(entry: Entry, word: str, *, pad: bool = False) -> list[Piece]:
    name, _, value = word.partition("=")
    option = next(o for o in entry.options if name in o.spellings)
    long = [spelling for spelling in option.spellings if spelling.startswith("--")]
    one = replace(option, spellings=(*(s for s in option.spellings if s not in long), long[0]))
    return option_pieces(one, value, pad=pad)


def option_pieces(option: OptionInfo, value: str = "", *, pad: bool = True) -> list[Piece]:
    """-l|--list, or --list with room before it where `pad`; with its value, or this one."""
    short = [name for name in option.spellings if not name.startswith("--")]
    long = [name for name in option.spellings if name.startswith("--")]
    pieces: list[Piece] = [] if short or not pad else [("plain", "   ")]
    for name in (*short, *long):
        pieces += [("plain", "|")] if pieces and pieces[-1][0] == "bold" else []
        pieces.append(("bold", name))
    value = value or option.value
    return [*pieces, *([("plain", " "), *marked(value)] if value else [])]


def marked(text: str) -> list[Piece]:
    """Words in small letters are typed as they stand, others stand for something."""
    return [
        (("bold" if word.islower() else "italic") if word[0].isalpha() else "plain", word)
        for word in re.findall(r"[A-Za-z_]+|[^A-Za-z_]+", text)
    ]


def text_of(pieces: Iterable[Piece]) -> str:
    """Without styles."""
    return "".join(text for _, text in pieces)


# -- options --------------------------------------------------------------------------------------


def command_options(entry: Entry) -> list[OptionInfo]:
    """What is shown of a command's own options."""
    return [o for o in entry.options if not o.hidden and not _is_shared(o)]


def shared_options(entry: Entry) -> list[OptionInfo]:
    """Of its own options those that no form names, with --autobackup where there is one: LVM2's
    common options for the command."""
    forms = FORMS.get(entry.name, (Form(),))
    if len(forms) == 1:
        return []
    named = {
        word.partition("=")[0]
        for form in forms
        for word in f"{form.needs} {form.takes} {form.any_of}".split()
    }
    return [o for o in command_options(entry) if not named & {*o.spellings}]


def lvm_options(entry: Entry) -> list[OptionInfo]:
    """What is shown of those that all commands have: LVM2's common options for lvm."""
    return [o for o in entry.options if not o.hidden and _is_shared(o)]


def _is_shared(option: OptionInfo) -> bool:
    return option.spellings[-1] in COMMON and AUTOBACKUP not in option.spellings


# -- a wrong command line -------------------------------------------------------------------------


def nearest(entry: Entry, words: Sequence[str]) -> list[str]:
    """What LVM2 shows of a command line that no form fits: the form, if there is but one, or the
    one of which most required options were given; without any of them, nothing."""
    shown = synopses(entry)
    if entry.name not in FORMS:
        return []
    if len(shown) == 1:
        return ["Correct command syntax is:", text_of(shown[0].line), ""]
    forms = FORMS[entry.name]
    given = [_given(entry, form, words) for form in forms]
    if not max(given):
        return []
    at = given.index(max(given))
    found = shown[at]
    return ["Nearest similar command has syntax:", text_of(found.line), *found.what.split("\n"), ""]


def _given(entry: Entry, form: Form, words: Sequence[str]) -> int:
    """How many of the options that a form must have are among the words."""
    count = 0
    for word in form.needs.split():
        if not word.startswith("--"):
            continue
        name, _, value = word.partition("=")
        names = ("--size", "--extents") if name == "--size" else (name,)  # -l stands for -L
        spellings = {s for o in entry.options for s in o.spellings if {*names} & {*o.spellings}}
        has = any(
            one.partition("=")[0] in spellings or one[:2] in spellings - {"--"} for one in words
        )
        count += has and (not value or value in words or f"{name}={value}" in words)
    return count
