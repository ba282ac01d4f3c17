"""Loads, and fio that puts them on.

Two kinds. A load for a time repeats itself over the span as long as it lasts. A load of first
writes (`once`) writes every block of the span at most once, so that each is a first write, and ends
when all are written or the time is over; the rate is that of the time it took.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.model import Sample

__all__ = ["Load", "Target", "flush_seconds", "put", "sample", "write_all"]

_RAMP = 0.2
"""Seconds of a load for a time that do not count."""


@dataclass(frozen=True)
class Target:
    """Where a load goes: an NBD URI, or a file on FUSE. `pids`: the processes that serve it."""

    uri: str = ""
    path: str = ""
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Load:
    """`rw` and `bs` are fio's; `depth` requests are under way on each of `clients` connections.

    `reads`: per cent of reads in a mix; `flush_every`: writes between two flushes, 0 for none;
    `span`: bytes from `begin` on that are touched, at most (0: all); `rate`: requests a second, 0
    for all that go."""

    rw: str
    bs: str = "4k"
    depth: int = 16
    clients: int = 1
    reads: int = 0
    flush_every: int = 0
    once: bool = False
    begin: int = 0
    span: int = 0
    rate: int = 0

    def arguments(self, size: int, seconds: float) -> list[str]:
        """Of fio; `size` in bytes is that of the volume."""
        span = min(self.span or size, size - self.begin)
        found = [f"--rw={self.rw}", f"--bs={self.bs}", f"--iodepth={self.depth}"]
        found += [f"--runtime={seconds * 1000:.0f}ms", f"--numjobs={self.clients}"]
        found += [f"--offset={self.begin}"]
        if self.once:
            # Each client has a part of its own.
            share = span // self.clients
            found += [f"--size={share}", f"--offset_increment={share}"]
        else:
            found += [
                f"--size={span}",
                "--time_based",
                f"--ramp_time={min(_RAMP, seconds / 2) * 1000:.0f}ms",
            ]
            if "rand" in self.rw:
                found += ["--norandommap"]
        if self.reads:
            found += [f"--rwmixread={self.reads}"]
        if self.flush_every:
            found += [f"--fsync={self.flush_every}"]
        if self.rate:
            found += [f"--rate_iops={self.rate}"]
        return found


def put(target: Target, load: Load, size: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Run the load; what fio says of it, all clients together. RuntimeError if fio fails."""
    return _fio([*_door(target), *load.arguments(size, seconds)], folder)


def flush_seconds(image: Path, size: int, seconds: float, folder: Path) -> float:
    """Of fdatasync(2) after a write of 4 KiB into the first `size` bytes of an allocated file."""
    words = ["--ioengine=psync", f"--filename={image}", "--rw=randwrite", "--bs=4k"]
    words += [
        "--fdatasync=1",
        f"--size={size}",
        f"--runtime={seconds * 1000:.0f}ms",
        "--time_based",
    ]
    return float(_fio(words, folder)["sync"]["lat_ns"]["mean"]) / 1e9


def _fio(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    words = ["fio", "--name=load", "--output-format=json", "--group_reporting", "--thread"]
    # By default fio throws a file's pages out of the cache before it begins.
    words += [f"--aux-path={folder}", "--randrepeat=0", "--invalidate=0", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    if found["error"]:
        raise RuntimeError(f"{' '.join(words)}: error {found['error']}")
    return found


def _door(target: Target) -> list[str]:
    if target.uri:
        return ["--ioengine=nbd", f"--uri={target.uri}"]
    return ["--ioengine=libaio", "--direct=1", f"--filename={target.path}"]


def sample(
    target: Target, load: Load, size: int, seconds: float, folder: Path, *, unit: str
) -> Sample:
    """Requests a second, or with the unit MiB/s those; and the share of a core on either side."""
    begun, before = time.monotonic(), _busy(target.pids)
    found = put(target, load, size, seconds, folder)
    elapsed, after = time.monotonic() - begun, _busy(target.pids)
    both = (found["read"], found["write"])
    value = sum(side["bw_bytes"] for side in both) / (1 << 20)
    if unit != "MiB/s":
        value = sum(side["iops"] for side in both)
    # fio's own start is no part of it.
    ran = max(side["runtime"] for side in both) / 1000 + (0 if load.once else _RAMP)
    ran = max(min(ran, elapsed), 1e-3)
    client = (found["usr_cpu"] + found["sys_cpu"]) / 100 * load.clients
    server = round((after - before) / ran, 4) if target.pids else None
    return Sample(value, server, round(client, 4))


def write_all(target: Target, size: int, folder: Path) -> None:
    """Write every block of the first `size` bytes once, and flush."""
    load = Load("write", "256k", once=True)
    put(target, load, size, 3600, folder)
    put(target, Load("write", "4k", 1, once=True, flush_every=1, span=4096), size, 60, folder)


def _busy(pids: Sequence[int]) -> float:
    """Seconds of processor time that the processes have used."""
    tick = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / tick
