"""A row that is one fio load on several contestants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench.bed import MIB, Bed
from bench.contestants import Contestant
from bench.fio import Load, Target, sample, write_all
from bench.model import Goal, Measured, Sample, turns

__all__ = ["LoadRow"]

Trials = dict[str, Callable[[], Sample]]


@dataclass(frozen=True)
class LoadRow:
    """`contestants`: ours first. `loads`: of those that have another. `written`: every block of the
    load's span is written before, so that all has its copy. A load of first writes gets its
    contestants anew every time, others once for all rounds."""

    name: str
    title: str
    load: Load
    contestants: tuple[Contestant, ...]
    goals: tuple[Goal, ...] = ()
    written: bool = False
    more: bool = True
    loads: Mapping[str, Load] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        return "MiB/s" if "rand" not in self.load.rw else "IOPS"

    @property
    def programs(self) -> tuple[str, ...]:
        needed = {program for one in self.contestants for program in one.programs}
        return ("fio", *sorted(needed))

    def measure(self, bed: Bed) -> Measured:
        with self.trials(bed) as trials:
            return turns(bed.rounds, trials, bed.told)

    @contextmanager
    def trials(self, bed: Bed) -> Iterator[Trials]:
        """What runs the load once, for each contestant."""
        with ExitStack() as stack:
            found: Trials = {}
            for one in self.contestants:
                if self.load.once:
                    found[one.label] = self._anew(bed, one)
                else:
                    target = stack.enter_context(self._serving(bed, one))
                    found[one.label] = self._again(bed, one, target)
            yield found

    def _anew(self, bed: Bed, one: Contestant) -> Callable[[], Sample]:
        def trial() -> Sample:
            with self._serving(bed, one) as target:
                return self._run(bed, one, target)

        return trial

    def _again(self, bed: Bed, one: Contestant, target: Target) -> Callable[[], Sample]:
        return lambda: self._run(bed, one, target)

    def _run(self, bed: Bed, one: Contestant, target: Target) -> Sample:
        load = self.loads.get(one.label, self.load)
        bed.settle()
        return sample(target, load, bed.size, bed.seconds, bed.short, unit=self.unit)

    @contextmanager
    def _serving(self, bed: Bed, one: Contestant) -> Iterator[Target]:
        span = min(self.load.span or bed.size, bed.size)
        with contextmanager(one.serving)(bed, span) as target:
            if self.written:
                write_all(target, max(span, MIB), bed.short)
            yield target
