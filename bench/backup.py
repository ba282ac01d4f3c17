"""`ulvm backup` against `nbdcopy | zstd -1` of the same snapshot, with as many threads.

    python bench/backup.py [--size MIB] [--rounds N] [--threads N] [--json FILE]

A volume is filled with what volumes hold: data that compress about two to one (half), data that
do not (a quarter), and space that was never written (a quarter). Then, in turns,

    ulvm   ulvm backup vg/lv --to DIR         snapshot, copy, compress, SHA-256 twice, fsync,
                                              read back and compare, remove the snapshot
    peer   nbdcopy nbd+unix:///vg/snap - | zstd -1 -T<threads>    from a snapshot made before

The number is the median over the rounds of ulvm's time divided by the peer's of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL = 1.3


class Host:
    """A system and run directory of its own, and the commands on it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.run_dir = base / "run"
        self.environment = {
            **os.environ,
            "ULVM_SYSTEM_DIR": str(base / "etc"),
            "ULVM_RUN_DIR": str(self.run_dir),
        }

    def ulvm(self, command: str) -> str:
        """Run a command; its output. Ends the benchmark when it fails."""
        words = [str(Path(sys.executable).with_name("ulvm")), *shlex.split(command)]
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"ulvm {command}: {done.stderr.strip()}")
        return done.stdout

    def close(self) -> None:
        subprocess.run(
            [str(Path(sys.executable).with_name("ulvm")), "daemon", "stop", "--force"],
            env=self.environment,
            capture_output=True,
            check=False,
        )


def fill(uri: str, mebibytes: int) -> None:
    """Write the volume's content through its export."""
    rng = random.Random(1)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrst     \n0123", k=7)) for _ in range(4096)]
    with tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="ulvm-bench-") as file:
        file.truncate(mebibytes << 20)
        for mebibyte in range(mebibytes):
            file.seek(mebibyte << 20)
            kind = mebibyte * 7 % 4
            if kind == 0:
                continue
            if kind == 1:
                file.write(rng.randbytes(1 << 20))
            else:
                file.write(b"".join(rng.choices(words, k=(1 << 20) // 7)))
        file.flush()
        subprocess.run(["nbdcopy", "--flush", file.name, uri], check=True)


def timed(command: str, environment: dict[str, str]) -> float:
    """Seconds that a shell command takes; all of a pipeline must succeed."""
    begun = time.monotonic()
    subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB of the volume")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    for program in ("nbdcopy", "zstd"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is needed")
    base = Path(tempfile.mkdtemp(prefix="ulvmbench", dir="/var/tmp"))
    host = Host(base)
    try:
        result = measure(host, options.size, options.rounds, options.threads)
    finally:
        host.close()
        shutil.rmtree(base)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    ratio = result["median_ratio"]
    print(f"median ratio {ratio:.2f} (goal <= {GOAL})")
    return 0 if ratio <= GOAL else 1


def measure(host: Host, mebibytes: int, rounds: int, threads: int) -> dict[str, float | list]:
    image = host.base / "pool.img"
    with image.open("wb") as file:
        file.truncate((mebibytes * 2 + 512) << 20)
    host.ulvm(f"pvcreate -q {image}")
    host.ulvm(f"vgcreate -q bench {image}")
    host.ulvm(f"lvcreate -q -n data -L {mebibytes}m bench")
    socket = host.run_dir / "nbd.sock"
    fill(f"nbd+unix:///bench/data?socket={socket}", mebibytes)
    host.ulvm("lvcreate -q -s -n peer -L 64m bench/data")
    ulvm = shlex.quote(str(Path(sys.executable).with_name("ulvm")))
    target, copy = host.base / "backups", host.base / "peer.zst"
    commands = {
        "ulvm": f"{ulvm} backup bench/data --to {target} --threads {threads}",
        "peer": f"nbdcopy 'nbd+unix:///bench/peer?socket={socket}' - "
        f"| zstd -1 -T{threads} -q -f -o {copy}",
    }
    seconds: dict[str, list[float]] = {"ulvm": [], "peer": []}
    ratios = []
    for number in range(rounds + 1):
        for name, command in commands.items():
            target.mkdir(exist_ok=True)
            took = timed(command, host.environment)
            size = sum(f.stat().st_size for f in target.iterdir()) if name == "ulvm" else 0
            shutil.rmtree(target)
            copy.unlink(missing_ok=True)
            if number == 0:
                continue  # the first round warms the caches
            seconds[name].append(took)
            print(f"{name} {took:6.2f} s" + (f"  {size >> 20} MiB" if size else ""), flush=True)
        if number:
            ratios.append(seconds["ulvm"][-1] / seconds["peer"][-1])
    return {**seconds, "ratios": ratios, "median_ratio": statistics.median(ratios)}


if __name__ == "__main__":
    sys.exit(main())
