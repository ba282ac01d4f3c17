"""The rows of loads: what fio does, on whom, and what is to be reached.

One `LoadRow` is one line of the table. Names are words joined by dashes, the load first, so that
`--rows 'first-*'` picks what belongs together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.bed import MIB
from bench.contestants import (
    NBD_SERVER_COW,
    NBDFUSE,
    NBDKIT,
    NBDKIT_COW,
    QEMU,
    QEMU_OVERLAY,
    Contestant,
    Ulvm,
)
from bench.fio import Load
from bench.loads import LoadRow
from bench.model import Goal

__all__ = ["LOADS"]

_PLAIN = Ulvm()
_ORIGIN = Ulvm(snapshots=1)
_SNAPSHOT = Ulvm(snapshots=1, on="snapshot")
_SNAPSHOT_64K = Ulvm(snapshots=1, chunk="64k", on="snapshot")
_RAW = (NBDKIT, QEMU)
_COW = (NBDKIT_COW, QEMU_OVERLAY)
_OVERLAYS = (*_COW, NBD_SERVER_COW)
"""The last one's goes with the connection that wrote it: it has no part in rows of several
connections, or that want all to be written before."""
_BESIDE = Ulvm("ulvm, plain LV")
_ONE = Ulvm("ulvm, 1 snapshot", snapshots=1)

_FIRST = Load("randwrite", once=True)
_PART = 64 * MIB
"""Of the volume, where all of it would take too long to write before."""
_STAGES = 256 * MIB
"""Of the volume, where all of it would take too long to copy so many times: some stages."""


def _least(bound: float, *of: Contestant, text: str) -> Goal:
    return Goal(text, bound, True, tuple(one.label for one in of))


def _read_goals(depth: int, peers: tuple[Contestant, ...]) -> tuple[Goal, ...]:
    if depth == 1:
        return (_least(1.0, *peers, text="1.0 x the best peer"),)
    if depth == 16:
        return (
            _least(1.2, NBDKIT, text="1.2 x nbdkit file"),
            _least(2.0, QEMU_OVERLAY, text="2 x qemu-nbd qcow2"),
        )
    return ()


def _reads() -> Iterator[LoadRow]:
    places = (
        ("plain", "plain LV", _PLAIN, (*_RAW, QEMU_OVERLAY)),
        ("origin", "origin with a snapshot", _ORIGIN, (*_RAW, QEMU_OVERLAY)),
        ("snapshot", "snapshot, nothing copied", _SNAPSHOT, (NBDKIT, *_OVERLAYS)),
    )
    for depth in (1, 16, 64):
        for place, where, volume, peers in places:
            yield LoadRow(
                f"read-{place}-qd{depth}",
                f"random read 4 KiB, QD {depth}, {where}",
                Load("randread", depth=depth),
                (volume, *peers),
                _read_goals(depth, peers),
            )
    yield LoadRow(
        "read-snapshot-written-qd16",
        "random read 4 KiB, QD 16, snapshot, all written",
        Load("randread"),
        (_SNAPSHOT, NBDKIT, *_COW),
        _read_goals(16, ()),
        written=True,
    )
    yield LoadRow(
        "read-snapshot-written-64k",
        "the same with chunks of 64 KiB",
        Load("randread"),
        (_SNAPSHOT_64K, NBDKIT, *_COW),
        written=True,
    )


def _writes() -> Iterator[LoadRow]:
    for depth in (1, 16, 64):
        yield LoadRow(
            f"write-plain-qd{depth}",
            f"random write 4 KiB, QD {depth}, plain LV",
            Load("randwrite", depth=depth),
            (_PLAIN, *_RAW),
        )
    for every in (1, 32, 1024):
        yield LoadRow(
            f"write-plain-flush{every}",
            f"random write 4 KiB, QD 16, plain LV, a flush every {every}",
            Load("randwrite", flush_every=every),
            (_PLAIN, *_RAW),
        )
    yield LoadRow(
        "mix-plain-qd16",
        "70/30 random 4 KiB, QD 16, plain LV",
        Load("randrw", reads=70),
        (_PLAIN, *_RAW),
    )
    yield LoadRow(
        "mix-origin-qd16",
        "70/30 random 4 KiB, QD 16, origin with a snapshot, all copied",
        Load("randrw", reads=70),
        (_ORIGIN, NBDKIT, *_COW),
        written=True,
    )


def _rewrites() -> Iterator[LoadRow]:
    for number in (1, 4, 16):
        yield LoadRow(
            f"rewrite-origin-{number}",
            f"rewrite 4 KiB, QD 16, origin with {number} snapshot{'s' * (number > 1)}",
            Load("randwrite", span=_PART),
            (Ulvm(snapshots=number), _BESIDE, *_COW),
            (_least(0.9, _BESIDE, text="0.9 x a plain LV"),) if number == 16 else (),
            written=True,
        )
    for name, where, volume in (
        ("origin-1", "origin with 1 snapshot", _ORIGIN),
        ("snapshot", "snapshot", _SNAPSHOT),
    ):
        yield LoadRow(
            f"rewrite-{name}-flush32",
            f"rewrite 4 KiB, QD 16, {where}, a flush every 32",
            Load("randwrite", span=_PART, flush_every=32),
            (volume, *_COW),
            written=True,
        )
    for name, size, volume in (
        ("", "", _SNAPSHOT),
        ("-64k", " with chunks of 64 KiB", _SNAPSHOT_64K),
    ):
        yield LoadRow(
            f"rewrite-snapshot{name}",
            f"rewrite 4 KiB, QD 16, snapshot{size}",
            Load("randwrite", span=_PART),
            (volume, *_COW),
            written=True,
        )


def _first_writes() -> Iterator[LoadRow]:
    better = (_least(1.0, *_COW, text="1.0 x the better of nbdkit cow and qcow2"),)
    for depth in (1, 16, 64):
        yield LoadRow(
            f"first-origin-qd{depth}",
            f"first write 4 KiB, QD {depth}, origin with a snapshot",
            replace(_FIRST, depth=depth),
            (_ORIGIN, *_OVERLAYS),
            better if depth == 16 else (),
        )
    for every in (1, 32, 1024):
        yield LoadRow(
            f"first-origin-flush{every}",
            f"first write 4 KiB, QD 16, origin with a snapshot, a flush every {every}",
            replace(_FIRST, flush_every=every),
            (_ORIGIN, *_OVERLAYS),
            (_least(1.0, QEMU_OVERLAY, text="1.0 x qemu-nbd qcow2"),) if every == 32 else (),
        )
    yield LoadRow(
        "first-origin-4",
        "first write 4 KiB, QD 16, origin with 4 snapshots",
        replace(_FIRST, span=_STAGES),
        (Ulvm(snapshots=4), _ONE),
        (_least(0.5, _ONE, text="at most twice the time with 1"),),
    )
    yield LoadRow(
        "first-origin-64k",
        "first write 4 KiB, QD 16, origin with a snapshot with chunks of 64 KiB",
        _FIRST,
        (Ulvm(snapshots=1, chunk="64k"), *_OVERLAYS),
    )
    process = Ulvm(snapshots=1, durability="process")
    yield LoadRow(
        "first-origin-process",
        "first write 4 KiB, QD 16, origin with a snapshot, durability process",
        _FIRST,
        (process, *_COW),
    )
    yield LoadRow(
        "first-origin-process-flush32",
        "the same with a flush every 32, which nbdkit's filter ignores as well",
        replace(_FIRST, flush_every=32),
        (process, NBDKIT_COW),
    )
    for name, text, volume, load in (
        ("", "first write 4 KiB, QD 16, to a snapshot", _SNAPSHOT, _FIRST),
        ("-flush32", "the same with a flush every 32", _SNAPSHOT, replace(_FIRST, flush_every=32)),
        (
            "-64k",
            "first write 4 KiB, QD 16, to a snapshot with chunks of 64 KiB",
            _SNAPSHOT_64K,
            _FIRST,
        ),
    ):
        yield LoadRow(f"first-snapshot{name}", text, load, (volume, *_OVERLAYS))


def _sequential() -> Iterator[LoadRow]:
    for bs, size in (("64k", "64 KiB"), ("1M", "1 MiB")):
        judged = bs == "1M"
        for rw in ("read", "write"):
            yield LoadRow(
                f"sequential-{rw}-{bs.lower()}",
                f"sequential {rw} {size}, QD 4, plain LV",
                Load(rw, bs, depth=4),
                (_PLAIN, *_RAW),
                (_least(1.0, NBDKIT, text="1.0 x nbdkit file"),) if judged else (),
            )
        yield LoadRow(
            f"sequential-first-{bs.lower()}",
            f"sequential first write {size}, QD 4, origin with a snapshot",
            Load("write", bs, depth=4, once=True),
            (_ORIGIN, NBDKIT, *_OVERLAYS),
            (_least(0.5, NBDKIT, text="0.5 x nbdkit file"),) if judged else (),
        )


def _fuse() -> Iterator[LoadRow]:
    plain = Ulvm(door="fuse")
    goal = (_least(1.5, NBDFUSE, text="1.5 x nbdfuse over nbdkit file"),)
    for word in ("read", "write"):
        for depth in (1, 16):
            yield LoadRow(
                f"fuse-{word}-qd{depth}",
                f"random {word} 4 KiB, QD {depth}, direct, FUSE, plain LV",
                Load(f"rand{word}", depth=depth),
                (plain, NBDFUSE),
                goal,
            )
        yield LoadRow(
            f"fuse-sequential-{word}",
            f"sequential {word} 1 MiB, direct, FUSE, plain LV",
            Load(word, "1M", depth=1),
            (plain, NBDFUSE),
        )
    yield LoadRow(
        "fuse-first",
        "first write 4 KiB, QD 16, direct, FUSE, origin with a snapshot",
        _FIRST,
        (Ulvm(snapshots=1, door="fuse"), NBDFUSE),
    )


def _growth() -> Iterator[LoadRow]:
    """The same load on more and more of something."""
    for load, word in ((Load("randread"), "read"), (Load("randwrite"), "write")):
        yield LoadRow(
            f"clients4-{word}",
            f"random {word} 4 KiB, 4 connections, QD 16 each, plain LV",
            replace(load, clients=4),
            (_PLAIN, *_RAW),
        )
    yield LoadRow(
        "clients4-first",
        "first write 4 KiB, 4 connections, QD 16 each, origin with a snapshot",
        replace(_FIRST, clients=4),
        (_ORIGIN, *_COW),
    )
    read = Load("randread")
    yield LoadRow(
        "growth-clients",
        "random read 4 KiB, QD 16, by connections",
        read,
        tuple(Ulvm(f"{number} clients") for number in (1, 2, 4, 8)),
        loads={f"{number} clients": replace(read, clients=number) for number in (1, 2, 4, 8)},
    )
    yield LoadRow(
        "growth-snapshots",
        "first write 4 KiB, QD 16, by snapshots",
        replace(_FIRST, span=_STAGES),
        tuple(Ulvm(f"{number} snapshots", snapshots=number) for number in (0, 1, 4, 16)),
    )
    sizes = tuple(
        Ulvm(name, snapshots=1, sparse=size)
        for name, size in (("1 GiB", 1 << 30), ("100 GiB", 100 << 30), ("10 TiB", 10 << 40))
    )
    for name, word, load in (
        ("-read", "random read", Load("randread", span=_PART)),
        ("", "rewrite", Load("randwrite", span=_PART)),
        ("-first", "first write", replace(_FIRST, span=_STAGES)),
    ):
        yield LoadRow(
            f"growth-size{name}",
            f"{word} 4 KiB, QD 16, origin with a snapshot, by size of the volume",
            load,
            sizes,
            written=not load.once,
        )


LOADS = [
    *_reads(),
    *_writes(),
    *_rewrites(),
    *_first_writes(),
    *_sequential(),
    *_fuse(),
    *_growth(),
]
