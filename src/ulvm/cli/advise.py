"""`ulvm advise`: what size a snapshot of a volume should have."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.errors import UsageError
from ulvm.units import SECTOR, display_size

if TYPE_CHECKING:
    from ulvm.lvm.advise import Advice

__all__ = ["advise", "parse_duration"]

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 100 * 365 * 86400.0
_MEASURE_AT_MOST = 300.0
_ROWS = 8
_WIDTH = 40


def parse_duration(text: str, option: str) -> float:
    """Seconds of `90`, `90s`, `1.5h`, `2d`; UsageError, also for what no clock lasts."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST:
        raise UsageError(f"Invalid argument for {option}: {text}")
    return seconds


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _slot, _slots: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("  {task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda slot, slots: bar.update(task, completed=slot, total=slots)


@click.command()
@click.argument("volume", metavar="VG/LV")
@click.option("--for", "lifetime", default="1h", help="How long the snapshot is to live: 90s, 2h.")
@click.option("--measure", help="How long to watch (default: as long, at most 5 minutes).")
@click.option("--json", "as_json", is_flag=True, help="For programs: bytes and seconds.")
@own_options
@click.pass_obj
def advise(
    context: Context, volume: str, lifetime: str, measure: str | None, as_json: bool
) -> None:
    """Say what size to give to a snapshot of a volume that is in use.

    Watches for a while which chunks are written; no snapshot is made for that. A chunk is copied
    into a snapshot once, so what counts is how many different ones are written. The answer holds as
    long as the load is as it was meanwhile: watch at the time at which the snapshot is to live.
    Ctrl-C ends the watch early.

    \b
    ulvm advise vg/lv --for 1h --measure 10m
    """
    seconds = parse_duration(lifetime, "--for")
    if measure is None:
        watch = min(seconds, _MEASURE_AT_MOST)
    else:
        watch = parse_duration(measure, "--measure")
    session = context.session()
    vg_name, lv_name = session.resolve_lv(volume)
    from ulvm.lvm.advise import measure_changes

    with _progress(f"Watching {vg_name}/{lv_name}") as progress:
        found = measure_changes(
            session, vg_name, lv_name, lifetime=seconds, measure=watch, progress=progress
        )
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
        return
    for line in _lines(found):
        session.say(line)


def _lines(found: Advice) -> list[str]:
    changed = found.changed_bytes(found.measured)
    name = f"{found.vg_name}/{found.lv_name}"
    lines = [
        f"In {_duration(found.measured)} {_size(changed)} of {name} changed; after so long a "
        "snapshot holds:",
        "",
        *_picture(found),
        "",
        f"Size of a snapshot that is to live {_duration(found.lifetime)}:",
        "",
        f"{'Chunk':>7}{'Expected':>14}{'95%':>14}{'99%':>14}",
    ]
    for chunk in found.chunks:
        sizes = (chunk.expected, chunk.in_95, chunk.in_99)
        words = [display_size(extents * found.extent_size) for extents in sizes]
        mark = "  <-" if chunk is found.best else ""
        lines.append(
            f"{chunk.chunk_size >> 10:>6}k" + "".join(f"{word:>14}" for word in words) + mark
        )
    best = found.best
    lines += ["", f"lvcreate -s -l {best.in_99} -c {best.chunk_size >> 10}k -n NAME {name}"]
    if best.in_99 >= best.largest:
        lines.append("With so many extents it can never overflow: every chunk has room.")
    if found.lifetime > found.measured:
        lines.append(
            f"What lies beyond {_duration(found.measured)} supposes that the load stays as it was."
        )
    return lines


def _picture(found: Advice) -> list[str]:
    """What has changed after so long: # measured, . beyond that."""
    longest = max(found.lifetime, found.measured)
    times = [longest * (row + 1) / _ROWS for row in range(_ROWS)]
    sizes = [found.changed_bytes(seconds) for seconds in times]
    most = max(*sizes, 1.0)
    return [
        f"{_duration(seconds):>8}  "
        + ("#" if seconds <= found.measured * 1.001 else ".") * round(_WIDTH * size / most)
        + f" {_size(size)}"
        for seconds, size in zip(times, sizes, strict=True)
    ]


def _size(bytes_: float) -> str:
    return display_size(round(bytes_ / SECTOR)).strip()


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (seconds >= length and seconds % length == 0):
            return f"{seconds / length:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.1f} s".replace(".0 ", " ")


def _as_json(found: Advice) -> dict[str, object]:
    extent = found.extent_size * SECTOR
    return {
        "vg": found.vg_name,
        "lv": found.lv_name,
        "for": found.lifetime,
        "measured": found.measured,
        "changed": round(found.changed_bytes(found.measured)),
        "chunks": [
            {
                "chunk_size": chunk.chunk_size,
                "expected": chunk.expected * extent,
                "95": chunk.in_95 * extent,
                "99": chunk.in_99 * extent,
                "best": chunk is found.best,
            }
            for chunk in found.chunks
        ],
    }
