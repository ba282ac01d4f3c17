"""Exception stores: how long a big one takes to load, and how fast a merge empties one.

A store of N exceptions with chunks of 4 KiB, in a random order, is written into the COW volume by
the formulas of the format (its data chunks are holes); then the real command activates it. Memory
is the daemon's greatest size less what it had before, and less the touched pages of the map (one
state byte and four bytes of place for each of 2 N chunks: in a random order all of them). For each
exception it is counted with the map.

How reads of a snapshot go on with so many exceptions is seen within 128 MiB, half of whose chunks
have one: the map is looked at for each, and is as large as the store makes it.

A merge gives back chunks that were written to the origin, in random order or in sequence: all of
them, so that it lasts for seconds, as the kernel's does, of which the command takes a quarter of
one. Its rate is counted in chunks per flush of the machine, since that is what the kernel's own
rate hangs on: chunks a second, times the seconds that fdatasync(2) takes after a write of 4 KiB
there.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from bench.bed import MIB, Bed
from bench.contestants import Ulvm
from bench.fio import Load, put, sample
from bench.guest import KERNEL, guest
from bench.guest import PROGRAMS as GUEST_PROGRAMS
from bench.host import Host, hosting
from bench.model import Goal, Measured, Sample, turns
from bench.own import OwnRow, elapsed

__all__ = ["STORES"]

_CHUNK = 4096
_PER_AREA = _CHUNK // 16
_PE_START = 1 * MIB
_COUNTS = {"10 million": 10_000_000, "1 million": 1_000_000, "100,000": 100_000}
_SPAN = 128 * MIB


def write_store(path: Path, begin: int, count: int) -> None:
    """Header and records for `count` of twice as many origin chunks, from the byte `begin` on."""
    rng = np.random.default_rng(1)
    old = rng.permutation(count * 2)[:count].astype("<u8")
    index = np.arange(count, dtype="<u8")
    new = 2 + index + index // _PER_AREA
    with path.open("r+b") as stream:
        stream.seek(begin)
        stream.write(struct.pack("<IIII", 0x70416E53, 1, 1, _CHUNK // 512))
        for area in range(-(-count // _PER_AREA)):
            part = slice(area * _PER_AREA, (area + 1) * _PER_AREA)
            stream.seek(begin + (1 + area * (_PER_AREA + 1)) * _CHUNK)
            stream.write(np.stack((old[part], new[part]), axis=1).tobytes())


@contextmanager
def _stored(bed: Bed, count: int, *, stored: bool = True) -> Iterator[Host]:
    """A host with an inactive volume and its snapshot that has so many exceptions, or room for
    them."""
    mib = (count * 2 * _CHUNK) // MIB + 1
    cow_mib = count * _CHUNK * 260 // 256 // MIB + 8
    with ExitStack() as stack:
        image = stack.enter_context(bed.sparse((mib + 64) * MIB))
        cow = stack.enter_context(bed.sparse((cow_mib + 64) * MIB))
        host = stack.enter_context(hosting(bed))
        host.ulvm(f"pvcreate -q {image} {cow}")
        host.ulvm(f"vgcreate -q b {image} {cow}")
        host.ulvm(f"lvcreate -q -n data -L {mib}m b {image}")
        host.ulvm(f"lvcreate -q -s -c 4k -n s -L {cow_mib}m b/data {cow}")
        host.ulvm("vgchange -q -an b")
        if stored:  # The only volume on its PV: it begins with the first extent.
            write_store(cow, _PE_START, count)
        yield host


def _memory(pid: int, field: str) -> int:
    """Bytes: VmRSS, or VmHWM for the most there ever was."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def _activate(host: Host, count: int) -> tuple[float, float, float]:
    """Of an activation in a new daemon the seconds, and the memory as the head of the module says,
    in MiB without the map, and in bytes an exception with it."""
    host.ulvm("daemon stop --force")
    host.ulvm("daemon start")
    pid = host.pid()
    before = _memory(pid, "VmRSS")
    seconds = elapsed(Host.words("vgchange -q -ay b"), host.environment)
    grown = _memory(pid, "VmHWM") - before
    return seconds, (grown - count * 2 * 5) / MIB, grown / count


def _activations(bed: Bed) -> dict[str, list[tuple[float, float, float]]]:
    """Once a run for all rows."""
    kept = bed.kept.setdefault("activations", {})
    assert isinstance(kept, dict)
    if not kept:
        for label, count in _COUNTS.items():
            with _stored(bed, count) as host:
                kept[label] = [_activate(host, count) for _ in range(bed.rounds)]
            bed.told(f"{label}: {kept[label][0]}")
    return kept


def _column(number: int) -> Callable[[Bed], Measured]:
    def how(bed: Bed) -> Measured:
        return {
            label: [Sample(values[number]) for values in found]
            for label, found in _activations(bed).items()
        }

    return how


def _reads(bed: Bed) -> Measured:
    with ExitStack() as stack:
        trials: dict[str, Callable[[], Sample]] = {}
        for label, count in {"no exceptions": 0, **_COUNTS}.items():
            host = stack.enter_context(_stored(bed, count or _COUNTS["100,000"], stored=count > 0))
            host.ulvm("vgchange -q -ay b")
            trials[label] = _reading(bed, host)
        return turns(bed.rounds, trials, bed.told)


def _reading(bed: Bed, host: Host) -> Callable[[], Sample]:
    load = Load("randread", span=_SPAN)
    target = host.target("b/s")
    return lambda: sample(target, load, bed.size, bed.seconds, bed.short, unit="IOPS")


def _merge(rw: str) -> Callable[[Bed], Measured]:
    order = "random" if rw == "randwrite" else "sequential"

    def trial(bed: Bed) -> Sample:
        with ExitStack() as stack:
            image = stack.enter_context(bed.filled())
            fresh = stack.enter_context(bed.sparse(bed.size * 2 + 64 * MIB))
            host = stack.enter_context(hosting(bed))
            size = bed.size // MIB
            Ulvm(snapshots=1).make(host, image, fresh, size, size * 9 // 8 + 16)
            load = Load(rw, once=True, flush_every=1024)
            put(host.target("b/data"), load, bed.size, 600, bed.short)
            seconds = elapsed(Host.words("lvconvert -q -y --merge b/s0"), host.environment)
            return Sample(bed.size // _CHUNK / seconds * bed.flush_seconds())

    def how(bed: Bed) -> Measured:
        found = turns(bed.rounds, {"ulvm": lambda: trial(bed)}, bed.told)
        return {**found, KERNEL: [Sample(value) for value in guest(bed).merged[order]]}

    return how


STORES = [
    OwnRow(
        "activation-time",
        "activation of a store of 10 million exceptions",
        "s",
        _column(0),
        (Goal("at most 5 s", 5.0, False),),
    ),
    OwnRow(
        "activation-memory",
        "its memory above the map's touched pages",
        "MiB",
        _column(1),
        (Goal("at most 100 MiB", 100.0, False),),
    ),
    OwnRow("memory-each", "memory of the store for each exception", "bytes", _column(2)),
    OwnRow(
        "growth-exceptions",
        "random reads of a snapshot by its exceptions",
        "IOPS",
        _reads,
        more=True,
        programs=("fio",),
    ),
    OwnRow(
        "merge-random",
        "merge of random chunks of 4 KiB",
        "chunks/flush",
        _merge("randwrite"),
        (Goal("10 x the kernel", 10.0, True, (KERNEL,)),),
        more=True,
        programs=GUEST_PROGRAMS,
    ),
    OwnRow(
        "merge-sequential",
        "merge of chunks of 4 KiB in sequence",
        "chunks/flush",
        _merge("write"),
        more=True,
        programs=GUEST_PROGRAMS,
    ),
]
