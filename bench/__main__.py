"""`python -m bench`: measure, and print what came out.

    python -m bench [--quick] [--rows GLOB]... [--rounds N] [--seconds S] [--size MIB]
                    [--directory DIR] [--json FILE] [--list]

The JSON file is written after every row, so a run that is cut short is not lost; with --again the
rows that it holds are kept and the rest is measured.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from bench.backups import BACKUPS
from bench.bed import MIB, making
from bench.commands import COMMANDS
from bench.machine import describe, source
from bench.model import Report, Row, RowResult
from bench.report import goals_text, row_text
from bench.rows import LOADS
from bench.snapshots import SNAPSHOTS
from bench.stores import STORES

__all__ = ["QUICK", "ROWS", "main", "run"]

ROWS: list[Row] = [*LOADS, *SNAPSHOTS, *STORES, *COMMANDS, *BACKUPS]

QUICK = (
    "read-plain-qd16", "read-snapshot-qd16", "write-plain-qd16", "rewrite-origin-1",
    "first-origin-qd16", "first-origin-flush32", "sequential-read-1m", "sequential-write-1m",
    "fuse-read-qd1", "start-up", "backup",
)  # fmt: skip
"""What stands for the rest where there is little time."""


def run(rows: list[Row], report: Report, options: argparse.Namespace) -> None:
    """Measure the rows one after the other and put them into the report, which is saved each time.
    A row whose programs are not here, or that fails, is left out, with the reason."""
    with making(
        options.directory, options.size * MIB, options.rounds, options.seconds, _told
    ) as bed:
        report.machine = {**describe(bed), **report.machine}
        for row in rows:
            missing = [name for name in row.programs if shutil.which(name) is None]
            if missing:
                report.left_out[row.name] = f"not installed: {', '.join(missing)}"
                continue
            print(f"{row.name}: {row.title}, {row.unit}", flush=True)
            try:
                samples = row.measure(bed)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                # The other rows are worth an hour.
                report.left_out[row.name] = f"failed: {error}"
                print(f"  {error}", file=sys.stderr, flush=True)
                continue
            result = RowResult(row.name, row.title, row.unit, row.more, samples, row.goals)
            report.rows.append(result)
            report.left_out.pop(row.name, None)
            print(row_text(result), flush=True)
            report.save(options.json)


def _told(text: str) -> None:
    print(f"    {text}", flush=True)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="ulvm beside its peers")
    parser.add_argument("--quick", action="store_true", help="few rows, three short rounds")
    parser.add_argument("--rows", action="append", metavar="GLOB", help="rows by name; many times")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--seconds", type=float, help="of one load; default 2")
    parser.add_argument("--size", type=int, help="MiB of a volume; default 512")
    parser.add_argument("--directory", type=Path, help="where images go; default /var/tmp")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--again", action="store_true", help="keep the rows that the file has")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    options = parser.parse_args(words)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 2.0)
    options.size = options.size or (256 if options.quick else 512)
    return options


def main(words: list[str] | None = None) -> int:
    """0, whatever was reached; 1 if a row failed, 2 if no row has such a name."""
    options = _options(words)
    wanted = options.rows or (QUICK if options.quick else ["*"])
    rows = [row for row in ROWS if any(fnmatchcase(row.name, glob) for glob in wanted)]
    if not rows:
        print(f"no row is named {', '.join(wanted)}", file=sys.stderr)
        return 2
    if options.list:
        for row in rows:
            print(f"{row.name:32}{row.title}")
        return 0
    options.json.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(options, name) for name in ("rounds", "seconds", "size")}
    report = Report({}, settings)
    if options.again and options.json.exists():
        report = Report.load(options.json)
        if report.options != settings or report.machine.get("ulvm") != source():
            print(f"{options.json} is of other settings, or of another source", file=sys.stderr)
            return 2
        rows = [row for row in rows if report.find(row.name) is None]
    run(rows, report, options)
    report.save(options.json)
    print(goals_text(report))
    return int(any(why.startswith("failed") for why in report.left_out.values()))


if __name__ == "__main__":
    sys.exit(main())
