"""What it costs to take a snapshot, and to be ready for writes with one.

Taking one: a writer of 4 KiB at queue depth 16 is at work on the volume while `ulvm lvcreate -s`
runs. Its longest wait for a write is the pause; the same without a snapshot shows what the machine
does to it anyway. A volume of 10 TiB is sparse, and the writer keeps to what is written already.

Slow-down: the same load of first writes on an origin with a snapshot and on a plain volume, the
time of one over the time of the other, beside the kernel's own such ratio from its guest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.bed import MIB, Bed
from bench.contestants import Ulvm
from bench.fio import Load, put, sample, write_all
from bench.guest import KERNEL, LOADS, guest
from bench.guest import PROGRAMS as GUEST_PROGRAMS
from bench.host import Host, hosting
from bench.model import Goal, Measured, Sample, turns
from bench.own import OwnRow, elapsed

__all__ = ["SNAPSHOTS"]

_SPAN = 128 * MIB
_STAGES = 256 * MIB
"""Some stages, so that most of what is written is copied as well."""
_PAUSE_MS = 20.0


@dataclass
class _Volume:
    """A volume that waits to be snapshotted again and again."""

    host: Host
    size: int
    bed: Bed
    taken: int = 0

    def create(self) -> float:
        """Seconds of the command."""
        self.taken += 1
        words = Host.words(f"lvcreate -q -s -c 4k -n s{self.taken} -L 192m b/data")
        return elapsed(words, self.host.environment)

    def remove(self) -> None:
        self.host.ulvm(f"lvremove -q -y b/s{self.taken}")

    def longest_wait(self, *, snapshot: bool) -> float:
        """Milliseconds; the snapshot is taken amid the load."""
        seconds = max(self.bed.seconds, 1.5)
        with self.loaded(Load("randwrite", span=_SPAN), seconds) as found:
            if snapshot:
                time.sleep(seconds / 2)
                self.create()
        if snapshot:
            self.remove()
        return float(found["write"]["clat_ns"]["max"]) / 1e6

    @contextmanager
    def loaded(self, load: Load, seconds: float) -> Iterator[dict[str, Any]]:
        """The load goes on meanwhile; what fio says of it is there behind the block."""
        target, found = self.host.target("b/data"), dict[str, Any]()
        with ThreadPoolExecutor(1) as pool:
            putting = pool.submit(put, target, load, self.size, seconds, self.bed.short)
            yield found
            found |= putting.result()


@contextmanager
def _volume(bed: Bed, size: int) -> Iterator[_Volume]:
    with ExitStack() as stack:
        image = stack.enter_context(bed.sparse(size + 1024 * MIB))
        host = stack.enter_context(hosting(bed))
        host.ulvm(f"pvcreate -q {image}")
        host.ulvm(f"vgcreate -q b {image}")
        host.ulvm(f"lvcreate -q -n data -L {size // MIB}m b")
        write_all(host.target("b/data"), _SPAN, bed.short)
        yield _Volume(host, size, bed)


def _pause(size: int) -> Callable[[Bed], Measured]:
    def how(bed: Bed) -> Measured:
        with _volume(bed, size) as volume:
            trials = {
                "ulvm": lambda: Sample(volume.longest_wait(snapshot=True)),
                "without a snapshot": lambda: Sample(volume.longest_wait(snapshot=False)),
            }
            return turns(bed.rounds, trials, bed.told)

    return how


def _create(bed: Bed) -> Measured:
    """Under load: a writer of so many requests a second as leave the machine time for it."""

    def trial(volume: _Volume) -> Callable[[], Sample]:
        def run() -> Sample:
            with volume.loaded(Load("randwrite", depth=1, span=_SPAN, rate=2000), 1.5):
                time.sleep(0.7)
                seconds = volume.create()
            volume.remove()
            return Sample(seconds)

        return run

    with ExitStack() as stack:
        small = stack.enter_context(_volume(bed, 1 << 30))
        large = stack.enter_context(_volume(bed, 10 << 40))
        trials = {"ulvm, 10 TiB": trial(large), "ulvm, 1 GiB": trial(small)}
        return turns(bed.rounds, trials, bed.told)


def _slow_down(name: str) -> Callable[[Bed], Measured]:
    def how(bed: Bed) -> Measured:
        depth, every = LOADS[name]
        load = Load("randwrite", depth=depth, flush_every=every, once=True, span=_STAGES)

        def rate(volume: Ulvm) -> float:
            with contextmanager(volume.serving)(bed, _STAGES) as target:
                found = sample(target, load, bed.size, bed.seconds, bed.short, unit="IOPS")
                return found.value

        def ours(durability: str) -> Callable[[], Sample]:
            def run() -> Sample:
                plain = rate(Ulvm(durability=durability))
                return Sample(plain / rate(Ulvm(snapshots=1, durability=durability)))

            return run

        trials = {"ulvm": ours("host"), "ulvm, process": ours("process")}
        found = turns(bed.rounds, trials, bed.told)
        return {**found, KERNEL: [Sample(value) for value in guest(bed).slow_down[name]]}

    return how


SNAPSHOTS = [
    *(
        OwnRow(
            f"snapshot-pause-{name}",
            f"longest wait of a writer while a snapshot of {title} is taken",
            "ms",
            _pause(size),
            (Goal("at most 20 ms", _PAUSE_MS, False),),
            programs=("fio",),
        )
        for name, title, size in (("1g", "1 GiB", 1 << 30), ("10t", "10 TiB", 10 << 40))
    ),
    OwnRow("snapshot-create", "lvcreate -s under load", "s", _create, programs=("fio",)),
    *(
        OwnRow(
            f"slow-down-{name}",
            f"first write over plain write, {title}",
            "x",
            _slow_down(name),
            (Goal("a third of the kernel's", 1 / 3, False, (KERNEL,)),) if "flush" in title else (),
            programs=GUEST_PROGRAMS,
        )
        for name, title in (
            ("qd1-flush32", "QD 1, a flush every 32"),
            ("qd16-flush32", "QD 16, a flush every 32"),
            ("qd16", "QD 16"),
        )
    ),
]
