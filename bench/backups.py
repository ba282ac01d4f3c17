"""Backup and restore of a volume, beside programs that copy and compress the same bytes.

The volume holds what volumes hold: data that compress about two to one (half), data that do not (a
quarter), and space that was never written (a quarter). All compress with zstd at level 1 and as
many threads as there are cores.

    ulvm backup      takes a snapshot, copies, compresses, two digests, fsync, reads back and
                     compares, removes the snapshot; --no-verify leaves the reading back out
    nbdcopy | zstd   of a snapshot made before, nothing of the kind; so dd, and qemu-img convert
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.bed import MIB, Bed
from bench.host import Host, hosting
from bench.model import Goal, Measured, Sample, turns
from bench.own import OwnRow, elapsed

__all__ = ["BACKUPS"]

_THREADS = os.cpu_count() or 1
_PEER = "nbdcopy and zstd"


@dataclass
class _Vault:
    """A volume with its snapshot, and a directory for what is made of them."""

    host: Host
    folder: Path
    size: int

    def rate(self, words: list[str]) -> Sample:
        """MiB of volume a second."""
        return Sample(self.size / MIB / elapsed(words, self.host.environment))

    def shell(self, command: str) -> Sample:
        return self.rate(["bash", "-c", f"set -o pipefail; {command}"])


@contextmanager
def _vault(bed: Bed) -> Iterator[_Vault]:
    with ExitStack() as stack:
        image = stack.enter_context(bed.sparse(bed.size * 3 + 128 * MIB))
        host = stack.enter_context(hosting(bed))
        host.ulvm(f"pvcreate -q {image}")
        host.ulvm(f"vgcreate -q b {image}")
        host.ulvm(f"lvcreate -q -n data -L {bed.size // MIB}m b")
        _fill(bed, host.uri("b/data"))
        host.ulvm("lvcreate -q -s -n snap -L 32m b/data")
        host.ulvm(f"lvcreate -q -n back -L {bed.size // MIB}m b")
        folder = bed.fresh("")
        folder.mkdir()
        try:
            yield _Vault(host, folder, bed.size)
        finally:
            shutil.rmtree(folder)


def _fill(bed: Bed, uri: str) -> None:
    rng = random.Random(1)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrst     \n0123", k=7)) for _ in range(4096)]
    with bed.sparse(bed.size) as path:
        with path.open("r+b") as file:
            for mebibyte in range(bed.size // MIB):
                kind = mebibyte * 7 % 4
                if kind == 0:
                    continue
                file.seek(mebibyte * MIB)
                if kind == 1:
                    file.write(rng.randbytes(MIB))
                else:
                    file.write(b"".join(rng.choices(words, k=MIB // 7)))
        subprocess.run(["nbdcopy", "--flush", str(path), uri], check=True)


def _backups(bed: Bed) -> Measured:
    with _vault(bed) as vault:
        uri, made = shlex.quote(vault.host.uri("b/snap")), vault.folder / "copy"
        device = shlex.quote(vault.host.target("b/snap", "fuse").path)
        zstd = f"zstd -1 -T{_THREADS} -q -f -o {made}"

        def ours(more: str) -> Callable[[], Sample]:
            return lambda: vault.rate(
                Host.words(f"backup -q b/data --to {made} --threads {_THREADS} {more}")
            )

        def peer(command: str) -> Callable[[], Sample]:
            return lambda: vault.shell(command)

        trials = {
            "ulvm backup": ours(""),
            "ulvm backup --no-verify": ours("--no-verify"),
            _PEER: peer(f"nbdcopy {uri} - | {zstd}"),
            "dd and zstd": peer(f"dd if={device} bs=1M iflag=direct status=none | {zstd}"),
            "qemu-img convert": peer(
                f"qemu-img convert -c -m {min(_THREADS, 16)} -f raw -O qcow2 "
                f"-o compression_type=zstd {uri} {made}"
            ),
        }
        return _cleared(bed, trials, made)


def _cleared(bed: Bed, trials: dict[str, Callable[[], Sample]], made: Path) -> Measured:
    """Each begins with nothing made."""

    def alone(trial: Callable[[], Sample], *, folder: bool) -> Callable[[], Sample]:
        def run() -> Sample:
            if made.is_dir():
                shutil.rmtree(made)
            made.unlink(missing_ok=True)
            if folder:
                made.mkdir()
            return trial()

        return run

    return turns(
        bed.rounds,
        {label: alone(trial, folder="ulvm" in label) for label, trial in trials.items()},
        bed.told,
    )


def _restores(bed: Bed) -> Measured:
    with _vault(bed) as vault:
        kept, copy = vault.folder / "kept", vault.folder / "copy"
        overlay, uri = vault.folder / "qcow2", vault.host.uri("b/snap")
        kept.mkdir()
        vault.host.ulvm(f"backup -q b/data --to {kept} --threads {_THREADS}")
        vault.shell(f"nbdcopy {shlex.quote(uri)} - | zstd -1 -T{_THREADS} -q -f -o {copy}")
        vault.shell(f"qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd "
                    f"{shlex.quote(uri)} {overlay}")  # fmt: skip
        to = shlex.quote(vault.host.uri("b/back"))
        device = shlex.quote(vault.host.target("b/back", "fuse").path)
        ulvm = Host.words(f"restore -q -y -f --threads {_THREADS} {kept} b/back")
        trials = {
            "ulvm restore": lambda: vault.rate(ulvm),
            _PEER: lambda: vault.shell(f"zstd -dc -q {copy} | nbdcopy --flush - {to}"),
            "dd and zstd": lambda: vault.shell(
                f"zstd -dc -q {copy} | dd of={device} bs=1M iflag=fullblock oflag=direct "
                "conv=notrunc,fsync status=none"
            ),
            "qemu-img convert": lambda: vault.shell(
                f"qemu-img convert -n -f qcow2 -O raw {overlay} {to}"
            ),
        }
        return turns(bed.rounds, trials, bed.told)


_PROGRAMS = ("nbdcopy", "zstd", "qemu-img", "dd", "bash")

BACKUPS = [
    OwnRow(
        "backup",
        "backup of a volume",
        "MiB/s",
        _backups,
        (Goal("1.0 x nbdcopy and zstd", 1.0, True, (_PEER,)),),
        more=True,
        programs=_PROGRAMS,
    ),
    OwnRow(
        "restore",
        "restore of a volume",
        "MiB/s",
        _restores,
        (Goal("1.0 x nbdcopy and zstd", 1.0, True, (_PEER,)),),
        more=True,
        programs=_PROGRAMS,
    ),
]
