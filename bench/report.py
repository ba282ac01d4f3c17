"""What was measured, as text, as Markdown and as pictures.

    python -m bench.report build/bench.json docs/performance.md

puts tables and pictures between the two marks of the document, and the pictures beside it, into a
directory of its name without the suffix.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bench.chart import Bar, Group, bars
from bench.model import Goal, Report, RowResult

__all__ = ["goals_text", "main", "row_text", "write_document"]

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"

_CHARTS = (
    ("read", "Random reads of 4 KiB", ("read-*",)),
    ("write", "Random writes of 4 KiB, and mixes", ("write-*", "mix-*", "rewrite-*")),
    ("first", "First writes of 4 KiB, to be copied before", ("first-*",)),
    ("sequential", "Sequential", ("sequential-*",)),
    ("fuse", "Through FUSE", ("fuse-*",)),
    ("backup", "Backup and restore", ("backup", "restore")),
    ("growth", "Growth and four connections", ("growth-*", "clients4-*")),
    ("snapshot", "Snapshots, stores, commands", ("*",)),
)
"""Sections of the document: name of the picture, title, rows. A row is in the first that fits."""

_PEERS = ("nbd", "qemu", "dd ", "kernel", "python")
"""How their names begin; all else is ulvm in one form or another."""


def _number(value: float, unit: str) -> str:
    if unit in ("IOPS", "MiB/s"):
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _with_spread(row: RowResult, label: str) -> str:
    values = row.values(label)
    low, high = _number(min(values), row.unit), _number(max(values), row.unit)
    return f"{_number(row.median(label), row.unit)} ({low} to {high})"


def _against(row: RowResult, label: str) -> str:
    """How the first contestant stands to this one; above 1 it has more of what the row counts."""
    other = row.median(label)
    return f"{row.median(next(iter(row.samples))) / other:.2f} x" if other else ""


def _busiest(row: RowResult, label: str) -> str:
    """Shares of a core, in per cent, of the server and of fio."""
    server = [sample.server for sample in row.samples[label] if sample.server is not None]
    client = [sample.client for sample in row.samples[label] if sample.client is not None]
    if not server or not client:
        return ""
    middle = len(server) // 2
    return f"{sorted(server)[middle]:.0%} / {sorted(client)[middle]:.0%}".replace("%", " %")


def row_text(row: RowResult) -> str:
    """Some lines for the terminal: a contestant each."""
    width = max(len(label) for label in row.samples)
    return "\n".join(
        f"  {label:{width}}  {_with_spread(row, label):>36} {row.unit}"
        + (f"  {_against(row, label):>9}" if number else "")
        for number, label in enumerate(row.samples)
    )


# -- goals ---------------------------------------------------------------------------------------


def _goals(report: Report) -> Iterator[tuple[RowResult, Goal, str, str]]:
    """(row, goal, what it came to, the verdict)"""
    for row in report.rows:
        for goal in row.goals:
            ratio, reached = row.ratio(goal), row.reached(goal)
            if ratio is None:
                yield row, goal, "", "not measured"
            else:
                unit = "x" if goal.of else row.unit
                verdict = "reached" if reached else "not reached"
                yield row, goal, f"{_number(ratio, unit)} {unit}", verdict


def _bound(goal: Goal, row: RowResult) -> str:
    word = "at least" if goal.least else "at most"
    return f"{word} {goal.bound:.3g} {'x' if goal.of else row.unit}"


def goals_text(report: Report) -> str:
    """The goals for the terminal, and how many of them are reached."""
    lines, reached = [], 0
    for row, goal, found, verdict in _goals(report):
        reached += verdict == "reached"
        lines.append(f"  {row.name:30} {goal.text:44} {found:>12}  {verdict}")
    return "\n".join([f"Goals: {reached} of {len(lines)} reached", *lines])


def _goals_table(report: Report) -> Iterator[str]:
    yield "| row | goal | bound | measured | |"
    yield "| --- | --- | --- | --- | --- |"
    for row, goal, found, verdict in _goals(report):
        word = f"**{verdict}**" if verdict != "reached" else verdict
        yield f"| {row.title} | {goal.text} | {_bound(goal, row)} | {found} | {word} |"


# -- the document --------------------------------------------------------------------------------


def _section(report: Report, globs: Sequence[str], taken: set[str]) -> list[RowResult]:
    found = [
        row
        for row in report.rows
        if row.name not in taken and any(fnmatchcase(row.name, glob) for glob in globs)
    ]
    taken.update(row.name for row in found)
    return found


def _table(rows: Sequence[RowResult]) -> Iterator[str]:
    yield "| row | contestant | median (least to greatest) | unit | ulvm to it | server / fio |"
    yield "| --- | --- | ---: | --- | ---: | ---: |"
    for row in rows:
        for number, label in enumerate(row.samples):
            title = f"{row.title} (`{row.name}`)" if not number else ""
            against = _against(row, label) if number else ""
            yield (
                f"| {title} | {label} | {_with_spread(row, label)} | {row.unit} | {against} "
                f"| {_busiest(row, label)} |"
            )


def _picture(rows: Sequence[RowResult], title: str) -> str:
    groups = [
        Group(
            row.title if row.more else f"{row.title}: less is better",
            [
                Bar(
                    label,
                    row.median(label),
                    min(row.values(label)),
                    max(row.values(label)),
                    f"{_number(row.median(label), row.unit)} {row.unit}",
                    ours=not label.startswith(_PEERS),
                )
                for label in row.samples
            ],
        )
        for row in rows
    ]
    return bars(title, groups)


def _document(report: Report, folder: Path) -> Iterator[str]:
    machine = "; ".join(f"{name} {value}" for name, value in report.machine.items())
    options = report.options
    yield (
        f"Measured on: {machine}. Medians of {options['rounds']} rounds of {options['seconds']} s, "
        f"volumes of {options['size']} MiB.\n"
    )
    yield "### Goals\n"
    yield from _goals_table(report)
    taken: set[str] = set()
    folder.mkdir(exist_ok=True)
    for name, title, globs in _CHARTS:
        rows = _section(report, globs, taken)
        if not rows:
            continue
        yield f"\n### {title}\n"
        (folder / f"{name}.svg").write_text(_picture(rows, title))
        yield f"![{title}]({folder.name}/{name}.svg)\n"
        yield from _table(rows)
    if report.left_out:
        yield "\nLeft out: " + "; ".join(f"{row}, {why}" for row, why in report.left_out.items())


def write_document(report: Report, path: Path) -> None:
    """Put the results between the marks; ValueError if the document has none."""
    text = path.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the lines {_BEGIN} and {_END}")
    body = "\n".join(_document(report, path.with_suffix("")))
    path.write_text(f"{before}{begin}\n{body}\n{end}{after}")


def main(words: Sequence[str]) -> int:
    if len(words) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    write_document(Report.load(Path(words[0])), Path(words[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
