"""What is measured and what came out of it: rows, samples, results, and their JSON.

A row is one line of the table: contestants that do the same work, in turns, so many rounds. The
value of a contestant is the median over the rounds; its spread is from the least to the greatest.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bench.bed import Bed

__all__ = ["Goal", "Measured", "Report", "Row", "RowResult", "Sample", "best", "turns"]

FORMAT = 1
"""Of the JSON file; goes up when a reader of the old one would misread it."""


@dataclass(frozen=True)
class Sample:
    """One measurement. `server` and `client` are processor time as shares of one core over the
    run, None where it was not looked at: near 1 a thread that does one thing has no more to
    give."""

    value: float
    server: float | None = None
    client: float | None = None


Measured = dict[str, list[Sample]]
"""Contestant -> its samples, one a round."""


@dataclass(frozen=True)
class Goal:
    """`value of the first contestant / best of the others` is at least or at most `bound`; with no
    others the value itself is. Ratios are of medians, and above 1 when the first is better where
    `least`, below where `most`."""

    text: str
    bound: float
    least: bool
    of: tuple[str, ...] = ()


class Row(Protocol):
    """One line of the table. `unit` with `more`: whether more of it is better."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def more(self) -> bool: ...
    @property
    def goals(self) -> tuple[Goal, ...]: ...
    @property
    def programs(self) -> tuple[str, ...]:
        """What must be installed, or the row is left out with a word about it."""

    def measure(self, bed: Bed) -> Measured: ...


@dataclass
class RowResult:
    """A row as measured."""

    name: str
    title: str
    unit: str
    more: bool
    samples: Measured
    goals: tuple[Goal, ...] = ()

    def values(self, contestant: str) -> list[float]:
        return [sample.value for sample in self.samples[contestant]]

    def median(self, contestant: str) -> float:
        return statistics.median(self.values(contestant))

    def ratio(self, goal: Goal) -> float | None:
        """What the goal's bound is held against; None if nobody whom it names was measured."""
        first = next(iter(self.samples), None)
        if first is None:
            return None
        if not goal.of:
            return self.median(first)
        others = [self.median(label) for label in goal.of if label in self.samples]
        if not others:
            return None
        return self.median(first) / best(others, more=self.more)

    def reached(self, goal: Goal) -> bool | None:
        ratio = self.ratio(goal)
        if ratio is None:
            return None
        return ratio >= goal.bound if goal.least else ratio <= goal.bound


@dataclass
class Report:
    """All that one run found. `machine` says where and when, and of which versions."""

    machine: Mapping[str, str]
    options: Mapping[str, Any]
    rows: list[RowResult] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Row -> why it was not measured."""

    def find(self, name: str) -> RowResult | None:
        return next((row for row in self.rows if row.name == name), None)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Report:
        """ValueError for a file of another format."""
        found = json.loads(path.read_text())
        if found.get("format") != FORMAT:
            raise ValueError(f"{path} is of format {found.get('format')}, expected {FORMAT}")
        rows = [
            RowResult(
                **{
                    **row,
                    "samples": {
                        label: [Sample(**sample) for sample in samples]
                        for label, samples in row["samples"].items()
                    },
                    "goals": tuple(
                        Goal(**{**goal, "of": tuple(goal["of"])}) for goal in row["goals"]
                    ),
                }
            )
            for row in found["rows"]
        ]
        return Report(found["machine"], found["options"], rows, found["left_out"])


def best(values: Sequence[float], *, more: bool) -> float:
    return max(values) if more else min(values)


def turns(
    rounds: int, contestants: Mapping[str, Callable[[], Sample]], told: Callable[[str], None]
) -> Measured:
    """Every contestant once a round, each round begun by another, so that what drifts in the
    machine meets all of them alike."""
    found: Measured = {label: [] for label in contestants}
    labels = list(contestants)
    for number in range(rounds):
        shift = number % len(labels)
        for label in labels[shift:] + labels[:shift]:
            sample = contestants[label]()
            found[label].append(sample)
            told(f"{label} {sample.value:,.6g}")
    return found
