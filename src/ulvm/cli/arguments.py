"""What the commands for logical volumes share: words of options, and lists of volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from ulvm.cli.syntax import no_such_syntax
from ulvm.errors import NotFoundError, UlvmError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import split_volume
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import parse_sectors
from ulvm.units import display_size, parse_u64

__all__ = [
    "PERMISSION",
    "POLICY",
    "YES_NO",
    "Number",
    "OneOf",
    "Stripes",
    "each",
    "no_such_syntax",
    "parse_stripes",
    "stripe_options",
    "volumes_of",
    "wants_active",
]

_F = TypeVar("_F", bound=Callable[..., Any])

_MAX_STRIPES = 128
_MIN_STRIPE = 8
"""Sectors: a page."""

_ACTIVE_WORDS = {
    **dict.fromkeys(("y", "ay", "ey", "ly", "aay", "aey", "aly", "sy"), True),
    **dict.fromkeys(("n", "an", "en", "ln", "aln"), False),
}


def _invalid(param: click.Parameter | None, value: str) -> UsageError:
    """By the first long spelling of the option."""
    spellings = param.opts if param is not None else []
    long = next((o for o in spellings if o.startswith("--")), "option")
    return UsageError(f"Invalid argument for {long}: {value}")


class OneOf(click.ParamType["str"]):
    """An option's value out of a few words; refused in LVM's words."""

    name = "word"

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "|".join(self.words)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.words:
            raise _invalid(param, value)
        return value


class Number(click.ParamType["int"]):
    """A whole number, at most `most`; refused in LVM's words."""

    name = "number"

    def __init__(self, most: int = (1 << 32) - 1) -> None:
        self.most = most

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        number = parse_u64(value)
        if number is None or number > self.most:
            raise _invalid(param, value)
        return number


YES_NO = OneOf("y", "n")
POLICY = OneOf("contiguous", "cling", "normal", "anywhere")
PERMISSION = OneOf("r", "rw")


class Stripes(NamedTuple):
    """What -i and -I say: None where they do not; `size` in sectors."""

    number: int | None
    size: int | None


def stripe_options(function: _F) -> _F:
    """-i and -I, as `stripes` and `stripesize`; `parse_stripes` reads them."""
    size = click.option("-I", "--stripesize", help="Size of a stripe's chunk (default 64k).")
    count = click.option("-i", "--stripes", type=Number(), help="Spread over this many PVs.")
    return count(size(function))


def parse_stripes(stripes: int | None, stripesize: str | None) -> Stripes:
    """UsageError in LVM's words."""
    if stripes == 0:
        raise UsageError("--stripes may not be zero.")
    if stripes is not None and stripes > _MAX_STRIPES:
        raise UsageError(f"Number of stripes ({stripes}) must be between 1 and {_MAX_STRIPES}.")
    if stripesize is None:
        return Stripes(stripes, None)
    size = parse_sectors(stripesize, "--stripesize", unit="k")
    if size < _MIN_STRIPE or size & (size - 1):
        raise UsageError(f"Invalid stripe size {display_size(size)}.")
    return Stripes(stripes, size)


def wants_active(word: str) -> bool:
    """The value of -a; UsageError."""
    if word not in _ACTIVE_WORDS:
        raise UsageError(f"Invalid argument for --activate: {word}")
    return _ACTIVE_WORDS[word]


def each(session: Session, items: Sequence[str], work: Callable[[str], None]) -> int:
    """Do the work for each; go on after a failure, and fail in the end. Exit code."""
    status = 0
    for item in items:
        try:
            work(item)
        except UsageError:
            raise
        except UlvmError as error:
            session.warn(error.message)
            status = error.exit_code
    return status


def volumes_of(session: Session, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(`vg/lv` of the volumes named, those of a VG for its name; sentences about missing ones).
    In the order of the metadata, whatever order they were named in, as LVM does."""
    scan = session.scan()
    chosen: dict[str, set[str]] = {}
    failures: list[str] = []
    for name in names:
        try:
            vg_name, lv_name = split_volume(name, session.host.run_dir)
        except UsageError as error:
            failures.append(error.message)
            continue
        try:
            vg = scan.vg(vg_name)
            if lv_name is None:
                wanted = {lv.name for lv in vg.visible_lvs()}
            else:
                wanted = {lvm_lv.get(vg, lv_name).name}
            chosen.setdefault(vg_name, set()).update(wanted)
        except NotFoundError as error:
            failures += error.message.splitlines()
            if all(vg.name != vg_name for vg in scan.vgs):
                failures.append(f"Cannot process volume group {vg_name}")
    found = []
    for vg_name in sorted(chosen):
        found += [
            f"{vg_name}/{lv.name}" for lv in scan.vg(vg_name).lvs if lv.name in chosen[vg_name]
        ]
    return found, list(dict.fromkeys(failures))
