"""The kernel's own dm-snapshot, in a virtual machine that is emulated.

Absolute times mean nothing there: the processor is slow and the disk is a file of the host's. So
what is taken from it are ratios within the machine: how much slower a first write is than a plain
one of the same load, and how many chunks a merge copies in the time of one of its flushes. A flush
in the guest is fdatasync(2) on the host (write-back caching), as it is for ulvm. fio of this
machine puts on the loads, taken along with its libraries.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.bed import MIB, Bed
from tests.kernel import vm

__all__ = ["KERNEL", "LOADS", "PROGRAMS", "Guest", "guest"]

PROGRAMS = ("qemu-system-x86_64", "fio", "dmsetup", "lvm", "busybox", "cpio", "dpkg-deb")

_SPAN = 64 * MIB
_FIO = (
    "LD_LIBRARY_PATH=/files /files/fio --name=load --output-format=json --thread --randrepeat=0 "
    "--ioengine=libaio --direct=1 --bs=4k"
)
_HELPERS = f"""
sectors={_SPAN // 512}
fio() {{ {_FIO} "$@" 2>&1; }}
"""


@dataclass
class Guest:
    """What the machine found, one value a round."""

    slow_down: dict[str, list[float]] = field(default_factory=dict)
    """Load -> how many times longer a first write takes."""
    merged: dict[str, list[float]] = field(default_factory=dict)
    """Order of chunks -> chunks a second of a merge, times the seconds of a flush."""
    flush_ms: list[float] = field(default_factory=list)
    kernel: str = ""


LOADS = {"qd1-flush32": (1, 32), "qd16-flush32": (16, 32), "qd16": (16, 0)}
"""Of the slow-down: queue depth, and writes between two flushes."""
KERNEL = "kernel, in its guest"
_ORDERS = {"random": ("randwrite", 1024), "sequential": ("write", 8192)}
"""Of a merge: fio's word, and so many chunks of 4 KiB that it lasts for some seconds."""


def guest(bed: Bed) -> Guest:
    """Boot once and measure so many rounds; later calls of the run give the same."""
    found = bed.kept.get("guest")
    if not isinstance(found, Guest):
        found = bed.kept["guest"] = _measure(bed)
    return found


def _measure(bed: Bed) -> Guest:
    rounds, lasting = bed.rounds, f"{bed.seconds * 1000:.0f}ms"
    commands = {"prepare": "chmod 755 /files/fio"}
    for number in range(rounds):
        for name, (depth, every) in LOADS.items():
            words = f"--iodepth={depth} --fsync={every}"
            commands[f"plain {name} {number}"] = _plain(words, lasting)
            commands[f"first {name} {number}"] = _first(words, lasting)
        commands[f"flush {number}"] = _flush(lasting)
    for number in range(rounds):
        for name, (rw, chunks) in _ORDERS.items():
            commands[f"merge {name} {number}"] = _merge(rw, chunks)
    with ExitStack() as stack:
        origin = stack.enter_context(bed.sparse(_SPAN))
        origin.write_bytes(b"\xa5" * _SPAN)
        bed.settle()
        cow = stack.enter_context(bed.sparse(_SPAN * 9 // 8))
        limit = 300 + (bed.seconds + 30) * len(commands)
        outcomes = vm.run(
            commands, [origin, cow], timeout=limit, files=_program("fio"), cache="writeback"
        )
    return _read(outcomes, rounds)


def _plain(load: str, lasting: str) -> str:
    return f"""{_HELPERS}
dmsetup create plain --table "0 $sectors linear /dev/vda 0" || exit 1
fio --filename=/dev/mapper/plain --rw=randwrite --runtime={lasting} {load}
dmsetup remove plain"""


def _first(load: str, lasting: str) -> str:
    """The COW is a hole of the host's again each time."""
    return f"""{_HELPERS}
blkdiscard /dev/vdb || exit 1
dmsetup create snap --table "0 $sectors snapshot /dev/vda /dev/vdb P 8" || exit 1
dmsetup create origin --table "0 $sectors snapshot-origin /dev/vda" || exit 1
fio --filename=/dev/mapper/origin --rw=randwrite --runtime={lasting} {load}
dmsetup remove origin
dmsetup remove snap"""


def _flush(lasting: str) -> str:
    return f"""{_HELPERS}
fio --filename=/dev/vda --rw=randwrite --iodepth=1 --runtime={lasting} --time_based --fsync=1"""


def _merge(rw: str, chunks: int) -> str:
    """Chunks are written to the origin, so they are there to be merged back."""
    return f"""{_HELPERS}
blkdiscard /dev/vdb || exit 1
dmsetup create snap --table "0 $sectors snapshot /dev/vda /dev/vdb P 8" || exit 1
dmsetup create origin --table "0 $sectors snapshot-origin /dev/vda" || exit 1
fio --filename=/dev/mapper/origin --rw={rw} --iodepth=16 --number_ios={chunks} >/dev/null
dmsetup remove origin
dmsetup remove snap
read begun rest </proc/uptime
dmsetup create merge --table "0 $sectors snapshot-merge /dev/vda /dev/vdb P 8" || exit 1
while :; do
    status=$(dmsetup status merge)
    set -- $status
    [ "${{4%/*}}" = "$5" ] && break
    sleep 0.05
done
read ended rest </proc/uptime
echo "merged $begun $ended"
dmsetup remove merge"""


def _program(name: str) -> Mapping[str, bytes]:
    """The program and what it is linked with, by name."""
    path = shutil.which(name)
    assert path is not None
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    found = {name: Path(path).read_bytes()}
    for library in re.findall(r"=> (/\S+) \(0x", listed):
        found[Path(library).name] = Path(library).read_bytes()
    return found


def _read(outcomes: Mapping[str, vm.Outcome], rounds: int) -> Guest:
    found = Guest(kernel=vm.kernel_release())
    for name in LOADS:
        found.slow_down[name] = [
            _rate(outcomes[f"plain {name} {number}"]) / _rate(outcomes[f"first {name} {number}"])
            for number in range(rounds)
        ]
    for number in range(rounds):
        job = _job(outcomes[f"flush {number}"])
        found.flush_ms.append(job["sync"]["lat_ns"]["mean"] / 1e6)
    for name, (_, chunks) in _ORDERS.items():
        rates = []
        for number in range(rounds):
            outcome = outcomes[f"merge {name} {number}"]
            times = re.search(r"merged (\S+) (\S+)", outcome.stdout)
            if times is None:
                raise RuntimeError(f"the guest's merge failed: {outcome.stderr}{outcome.stdout}")
            seconds = float(times[2]) - float(times[1])
            rates.append(chunks / seconds * found.flush_ms[number] / 1000)
        found.merged[name] = rates
    return found


def _rate(outcome: vm.Outcome) -> float:
    return float(_job(outcome)["write"]["iops"])


def _job(outcome: vm.Outcome) -> dict[str, Any]:
    start = outcome.stdout.find("{")
    if outcome.rc or start < 0:
        raise RuntimeError(f"in the guest: {outcome.stderr}{outcome.stdout[-500:]}")
    job: dict[str, Any] = json.loads(outcome.stdout[start:])["jobs"][0]
    return job
