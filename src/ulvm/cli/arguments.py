"""What the commands for logical volumes share: words of options, and lists of volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from ulvm.cli.syntax import no_such_syntax
from ulvm.cli.words import (
    ALLOC,
    PERMISSION,
    READ_AHEAD,
    YES_NO,
    Number,
    OneOf,
    SegmentType,
)
from ulvm.errors import UlvmError, UsageError
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import parse_sectors
from ulvm.units import display_size

__all__ = [
    "ALLOC",
    "PERMISSION",
    "READ_AHEAD",
    "YES_NO",
    "Number",
    "OneOf",
    "SegmentType",
    "Stripes",
    "check_mode",
    "each",
    "mode_option",
    "no_such_syntax",
    "parse_stripes",
    "select_option",
    "stripe_options",
    "vg_uuid_option",
    "wants_active",
]

_F = TypeVar("_F", bound=Callable[..., Any])

_MAX_STRIPES = 128
_MIN_STRIPE = 8
"""Sectors: a page."""

_ACTIVE_WORDS = {
    **dict.fromkeys(("y", "ay", "e", "ey", "ly", "aay", "aey", "aly", "s", "sy"), True),
    **dict.fromkeys(("n", "en", "ln", "aln"), False),
}


_MODES = ("partial", "degraded", "complete")
"""Of --activationmode."""


class Stripes(NamedTuple):
    """What -i and -I say: None where they do not; `size` in sectors."""

    number: int | None
    size: int | None


def stripe_options(function: _F) -> _F:
    """-i and -I, as `stripes` and `stripesize`; `parse_stripes` reads them."""
    size = click.option("-I", "--stripesize", help="Size of a stripe's chunk (default 64k).")
    count = click.option("-i", "--stripes", type=Number(), help="Spread over this many PVs.")
    return count(size(function))


def mode_option(function: _F) -> _F:
    """--activationmode, which `check_mode` reads."""
    option = click.option(
        "--activationmode", metavar="|".join(_MODES), help="partial: with missing PVs."
    )
    return option(function)


def check_mode(word: str | None) -> None:
    """UsageError in LVM's words."""
    if word is not None and word not in _MODES:
        raise UsageError("Invalid activation mode given.")


select_option = click.option(
    "-S",
    "--select",
    metavar="SELECTION",
    help="Of what is named, or of all: for which this is true.",
)
"""-S of commands that are no reports; `cli.choose` reads it."""


vg_uuid_option = click.option(
    "--vguuid", hidden=True, help="UUID of the VG that is meant, where another one has its name."
)
"""Of commands that others start in the background; for `Session.mean`."""


def parse_stripes(stripes: int | None, stripesize: str | None) -> Stripes:
    """UsageError in LVM's words."""
    if stripes == 0:
        raise UsageError("--stripes may not be zero.")
    if stripes is not None and stripes > _MAX_STRIPES:
        raise UsageError(f"Number of stripes ({stripes}) must be between 1 and {_MAX_STRIPES}.")
    if stripesize is None:
        return Stripes(stripes, None)
    size = parse_sectors(stripesize, "--stripesize", unit="k")
    if stripes == 1:
        return Stripes(stripes, size)  # which is ignored, whatever it is
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
