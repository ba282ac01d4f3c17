"""Long options may be cut short as long as they stay unmistakable, as getopt_long(3) has it, and
written with or without dashes between their words, as LVM2 has it: --report-format. What is no list
and does not count may be given once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

__all__ = ["HELP_OPTIONS", "AmbiguousOption", "RepeatedOption", "expanded"]


HELP_OPTIONS = ("-h", "--help", "--longhelp")


class AmbiguousOption(click.UsageError):
    """`message` is getopt's own sentence, without the program's name."""


class RepeatedOption(click.UsageError):
    """`message` is LVM2's sentence."""


def expanded(words: Iterable[str], command: click.Command, *, once: bool = False) -> list[str]:
    """The words with their long options in full; what is no option of the command stays, for the
    parser to refuse. AmbiguousOption; with `once` RepeatedOption. A command that passes its words
    on gets them as they are."""
    if isinstance(command, click.Group) or command.context_settings.get("ignore_unknown_options"):
        return list(words)
    options = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    takes_value = {name: not (o.is_flag or o.count) for name, o in options.items()}
    takes_value |= dict.fromkeys(HELP_OPTIONS, False)
    given: list[str] = []
    found = list(_expand(iter(words), takes_value, given))
    if once:
        _check_repeated([options[name] for name in given if name in options])
    return found


def _check_repeated(given: Iterable[click.Option]) -> None:
    seen: set[str | None] = set()
    for option in given:
        if option.name in seen and not (option.multiple or option.count):
            spellings = sorted(option.opts, key=len)
            raise RepeatedOption(f"Option {'/'.join(spellings[:2])} may not be repeated.")
        seen.add(option.name)


def _expand(words: Iterator[str], takes_value: dict[str, bool], found: list[str]) -> Iterator[str]:
    """`found` gets the options by name, in their order."""
    for word in words:
        if word == "--":
            yield word
            break
        if word.startswith("--"):
            given, equals, value = word.partition("=")
            name = _whole(given, takes_value)
            found.append(name)
            yield name + equals + value
            wants_more = takes_value.get(name, False) and not equals
        else:
            yield word
            wants_more = word.startswith("-") and _cluster(word[1:], takes_value, found)
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


def _cluster(letters: str, takes_value: dict[str, bool], found: list[str]) -> bool:
    """Whether -abc ends with an option whose value is the next word."""
    for at, letter in enumerate(letters):
        found.append(f"-{letter}")
        if takes_value.get(f"-{letter}", False):
            return at == len(letters) - 1
    return False
