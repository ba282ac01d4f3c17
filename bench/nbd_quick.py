"""The NBD server against `nbdkit file` on the same image: requests a second, in turns.

    python bench/nbd_quick.py [--rounds N] [--seconds S] [--directory DIR] [--json FILE]

fio's nbd engine over a Unix socket, queue depth 16, an image of 256 MiB that is in the page cache.
Per round and load every server runs once, one after the other:

    file     the image itself          linear   a linear device over it, through the mapper
    nbdkit   nbdkit file IMAGE

Printed are the medians, and the median over the rounds of the ratio to nbdkit in the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 256 << 20
LOADS = {
    "randread 4k": ["--rw=randread", "--bs=4k"],
    "randwrite 4k": ["--rw=randwrite", "--bs=4k"],
    "read 256k": ["--rw=read", "--bs=256k"],
    "write 256k": ["--rw=write", "--bs=256k"],
}
SERVERS = ("file", "linear", "nbdkit")


def serve(kind: str, image: str, path: str) -> None:
    """Be the server until standard input ends."""
    from ulvm.blockdev.base import BlockDevice
    from ulvm.blockdev.file import FileDevice
    from ulvm.dm.mapper import LocalMapper
    from ulvm.dm.table import parse_table
    from ulvm.exports.nbd_server import NbdServer
    from ulvm.exports.source import StaticSource

    device: BlockDevice
    if kind == "file":
        device = FileDevice(image)
    else:
        mapper = LocalMapper()
        mapper.create("lv")
        mapper.load("lv", parse_table(f"0 {SIZE // 512} linear {image} 0"))
        mapper.resume("lv")
        device = mapper.mapped("lv").open(write=True)
    server = NbdServer(StaticSource({"": device}))
    server.listen_unix(path)
    sys.stdin.read()
    server.stop()


@contextmanager
def running(kind: str, image: Path, path: Path) -> Iterator[None]:
    if kind == "nbdkit":
        command = ["nbdkit", "-f", "-U", str(path), "file", str(image)]
    else:
        command = [sys.executable, __file__, "--serve", kind, str(image), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
        try:
            deadline = time.monotonic() + 20
            while not path.exists():
                if time.monotonic() > deadline or server.poll() is not None:
                    sys.exit(f"{kind} does not start")
                time.sleep(0.02)
            time.sleep(0.1)
            yield
        finally:
            assert server.stdin is not None
            server.stdin.close()
            if kind == "nbdkit":
                server.terminate()
            server.wait()
            path.unlink(missing_ok=True)


def measure(load: list[str], path: Path, seconds: float, folder: Path) -> float:
    """Requests a second."""
    command = [
        "fio", "--name=x", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={path}", "--iodepth=16",
        f"--size={SIZE}", "--time_based", f"--runtime={seconds}", "--output-format=json",
        f"--aux-path={folder}", *load,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        sys.exit(f"fio: {done.stderr.strip()}")
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return float(job["read"]["iops"] + job["write"]["iops"])


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:5])
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--directory", help="where the image goes; default: a temporary one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, list[float]]] = {
        load: {server: [] for server in SERVERS} for load in LOADS
    }
    with tempfile.TemporaryDirectory(prefix="ulvm", dir=options.directory) as name:
        folder = Path(name)
        image = folder / "image"
        image.write_bytes(b"\xa5" * SIZE)
        for number in range(options.rounds):
            for load, arguments in LOADS.items():
                order = SERVERS[number % 3 :] + SERVERS[: number % 3]
                for kind in order:
                    with running(kind, image, folder / "s"):
                        rate = measure(arguments, folder / "s", options.seconds, folder)
                    results[load][kind].append(rate)
    report = {}
    title = f"requests/s, median of {options.rounds}"
    print(f"{title:28}" + "".join(f"{server:>12}" for server in SERVERS))
    for load, found in results.items():
        medians = {kind: statistics.median(rates) for kind, rates in found.items()}
        ratios = {
            kind: statistics.median(
                [ours / theirs for ours, theirs in zip(rates, found["nbdkit"], strict=True)]
            )
            for kind, rates in found.items()
        }
        report[load] = {"requests_per_second": medians, "ratio_to_nbdkit": ratios}
        print(f"{load:28}" + "".join(f"{medians[s]:12,.0f}" for s in SERVERS))
        print(f"{'  ratio to nbdkit':28}" + "".join(f"{ratios[s]:12.2f}" for s in SERVERS))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
