"""Long options may be cut short as long as they stay unmistakable, as getopt_long(3) has it, and
written with or without dashes between their words, as LVM2 has it: --report-format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

__all__ = ["HELP_OPTIONS", "AmbiguousOption", "expanded"]


HELP_OPTIONS = ("-h", "--help", "--longhelp")


class AmbiguousOption(click.UsageError):
    """`message` is getopt's own sentence, without the program's name."""


def expanded(words: Iterable[str], command: click.Command) -> list[str]:
    """The words with their long options in full; what is no option of the command stays, for the
    parser to refuse. AmbiguousOption. A command that passes its words on gets them as they are."""
    if command.context_settings.get("ignore_unknown_options"):
        return list(words)
    takes_value = {
        name: not (option.is_flag or option.count)
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    takes_value |= dict.fromkeys(HELP_OPTIONS, False)
    return list(_expand(iter(words), takes_value))


def _expand(words: Iterator[str], takes_value: dict[str, bool]) -> Iterator[str]:
    for word in words:
        if word == "--":
            yield word
            break
        if word.startswith("--"):
            given, equals, value = word.partition("=")
            name = _whole(given, takes_value)
            yield name + equals + value
            wants_more = takes_value.get(name, False) and not equals
        else:
            yield word
            wants_more = word.startswith("-") and _cluster_wants_more(word[1:], takes_value)
        if wants_more:
            yield from _one(words)
    yield from words


def _one(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        yield word
        return


def _whole(given: str, takes_value: dict[str, bool]) -> str:
    if given in takes_value:
        return given
    plain = _without_dashes(given)
    known = {_without_dashes(name): name for name in takes_value if name.startswith("--")}
    if plain in known:
        return known[plain]
    found = sorted(name for name in known if name.startswith(plain))
    if len(found) > 1:
        names = " ".join(f"'{name}'" for name in found)
        raise AmbiguousOption(f"option '{plain}' is ambiguous; possibilities: {names}")
    return known[found[0]] if found else plain


def _without_dashes(name: str) -> str:
    return "--" + name.replace("-", "")


def _cluster_wants_more(letters: str, takes_value: dict[str, bool]) -> bool:
    """Whether -abc ends with an option whose value is the next word."""
    for at, letter in enumerate(letters):
        if takes_value.get(f"-{letter}", False):
            return at == len(letters) - 1
    return False
