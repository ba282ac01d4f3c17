"""`ulvm monitor`: how full the snapshots are, and until when they last."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import click

from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.errors import NotFoundError
from ulvm.lvm.names import split_volume
from ulvm.units import display_size

__all__ = ["monitor"]

_HEADINGS = ("Snapshot", "COW", "Full", "Rate", "Full in", "At", "")
_NEVER_SECONDS = 10 * 365 * 86400


@click.group()
def monitor() -> None:
    """Look at the watch that the daemon keeps over snapshots.

    It warns in its log from 80 % on, and extends a snapshot that is fuller than
    activation/snapshot_autoextend_threshold (70 %) by activation/snapshot_autoextend_percent (20 %)
    as long as the volume group has room. 100 for the threshold turns that off.
    """


@monitor.command()
@click.argument("names", nargs=-1, metavar="[VG|VG/LV...]")
@click.option("--json", "as_json", is_flag=True, help="For programs: sectors and seconds.")
@own_options
@click.pass_obj
def status(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """Show each active snapshot's fill, its rate, and when it is full if that goes on.

    The rate is that of the last minute.
    """
    session = context.session()
    wanted: list[tuple[str | None, str | None]] = [
        split_volume(name, session.host.run_dir) for name in names
    ]
    dm = session.dm_if_running
    found = [] if dm is None else dm.monitor_report()
    shown = []
    for vg, lv in wanted or [(None, None)]:
        chosen = [s for s in found if vg in (None, s["vg"]) and lv in (None, s["lv"])]
        if lv is not None and not chosen:
            raise NotFoundError(f"{vg}/{lv} is no active snapshot.")
        if vg is not None and not chosen:
            session.find_vg(vg)  # NotFoundError
        shown += [s for s in chosen if s not in shown]
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    if not shown:
        session.say("No snapshot is active.")
        return
    for line in _table([_row(snapshot, time.time()) for snapshot in shown]):
        session.say(line)
    policy = shown[0]
    if policy["threshold"] is None:
        session.say("Snapshots are not extended: activation/snapshot_autoextend_threshold is 100.")
    else:
        session.say(
            f"Above {policy['threshold']}% a snapshot is extended by {policy['percent']}%, "
            "as long as its volume group has room."
        )
    for snapshot in shown:
        if snapshot["problem"]:
            session.warn(
                f"WARNING: Snapshot {snapshot['vg']}/{snapshot['lv']} cannot be extended: "
                f"{snapshot['problem']}"
            )


def _row(snapshot: dict[str, Any], now: float) -> tuple[str, ...]:
    name = f"{snapshot['vg']}/{snapshot['lv']}"
    note = "" if snapshot["monitored"] else "not monitored"
    if snapshot["state"] == "invalid":
        return (name, "", "", "", "", "", "invalid: it should be removed")
    size, full = display_size(snapshot["total"]), f"{100 * snapshot['full']:.2f}%"
    if not snapshot["monitored"]:
        return (name, size, full, "", "", "", note)
    rate, seconds = snapshot["rate"], snapshot["seconds"]
    speed = f"{display_size(round(rate)).strip()}/s" if rate >= 1 else "0"
    if seconds is None or seconds > _NEVER_SECONDS:
        return (name, size, full, speed, "never", "", note)
    when = time.localtime(now + seconds)
    form = "%H:%M:%S" if seconds < 43200 else "%Y-%m-%d %H:%M"
    return (name, size, full, speed, _duration(seconds), time.strftime(form, when), note)


def _duration(seconds: float) -> str:
    """`95 s`, `12 min`, `5.2 h`, `3.1 d`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The name to the left, numbers to the right."""
    lines = [_HEADINGS, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADINGS))]
    return [
        "  ".join(
            word.ljust(width) if i in (0, len(widths) - 1) else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
