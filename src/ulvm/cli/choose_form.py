"""Which form of a command a command line means, and whether that takes all that is given.

LVM2's rule: of the forms whose required options are there, the one of which most were given; among
equals the one that leaves fewest options over; among these the first. What it does not take is
refused by name. The forms are those of `lvm help`, without what is for other types of volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
from click.core import ParameterSource

from ulvm.cli.syntax import no_such_syntax
from ulvm.errors import UsageError

__all__ = ["Options", "check_form"]


@dataclass(frozen=True, slots=True)
class Options:
    """Of a form, by their parameters' names: `needs` all of them, or with `any_of` one of these;
    `takes` others besides."""

    needs: frozenset[str] = frozenset()
    any_of: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


def _form(needs: str = "", any_of: str = "", takes: str = "") -> Options:
    return Options(frozenset(needs.split()), frozenset(any_of.split()), frozenset(takes.split()))


_SHARED = {
    "lvchange": frozenset({"select", "force", "ignoremonitoring"}),
    "vgchange": frozenset({"select", "force", "ignoremonitoring"}),
}
"""Options that every form of the command takes, beyond those of `cli.context`."""
_FORMS: Mapping[str, Sequence[Options]] = {
    "lvchange": (
        _form(
            any_of="contiguous permission readahead setactivationskip zero persistent addtag "
            "deltag alloc setautoactivation profile metadataprofile "
            "detachprofile",
            takes="activate poll watch",
        ),
        _form("resync", takes="activate"),
        _form(
            "activate",
            takes="partial ignoreactivationskip activationmode poll watch ignorelockingfailure "
            "sysinit readonly",
        ),
        _form("refresh", takes="partial activationmode poll watch"),
        _form("watch"),
        _form("poll", takes="watch"),
        _form("persistent minor", takes="major activate poll watch"),
    ),
    "vgchange": (
        _form(
            any_of="logicalvolume maxphysicalvolumes uuid physicalextentsize resizeable addtag "
            "deltag alloc pvmetadatacopies vgmetadatacopies setautoactivation "
            "profile metadataprofile detachprofile",
            takes="poll",
        ),
        _form("monitor", takes="sysinit ignorelockingfailure poll"),
        _form("poll", takes="ignorelockingfailure"),
        _form(
            "activate",
            takes="ignoreactivationskip partial activationmode sysinit readonly "
            "ignorelockingfailure monitor poll autoactivation",
        ),
        _form("refresh", takes="sysinit ignorelockingfailure poll"),
        _form("systemid"),
        _form("lockstart"),
        _form("lockstop"),
        _form("locktype"),
    ),
}


def check_form(command: str) -> None:
    """UsageError, in LVM2's words, for a line of the running command that no form fits, or that
    has an option that the nearest one does not take."""
    context = click.get_current_context()
    own = _SHARED[command].union(*(f.needs | f.any_of | f.takes for f in _FORMS[command]))
    given = [
        option
        for option in context.command.params
        if option.name in own
        and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    names = {option.name for option in given if option.name is not None} - _SHARED[command]
    best: Options | None = None
    rank = (0, 0)
    for form in _FORMS[command]:
        if not form.needs <= names or (form.any_of and not form.any_of & names):
            continue
        matched = form.needs | (form.any_of & names)
        found = (len(matched), -len(names - matched - form.takes))
        if best is None or found > rank:
            best, rank = form, found
    if best is None:
        raise no_such_syntax(command)
    taken = best.needs | best.any_of | best.takes
    for option in given:
        if option.name in names and option.name not in taken:
            raise UsageError(f"Command does not accept option: {_shown(option, context)}.")


def _shown(option: click.Parameter, context: click.Context) -> str:
    """With its value, if that is a word."""
    name = next(name for name in option.opts if name.startswith("--"))
    value = context.params.get(option.name or "")
    word = value[0] if isinstance(value, tuple) else value
    return f"{name} {word}" if isinstance(word, str) else name
