"""Who serves: ulvm in its forms, and its peers. Each is a few words and one context manager.

A contestant serves one volume of the bed's size, full of data, through NBD or FUSE. What it
allocates while it is written lies in a fresh file each time it is entered: the COW of a snapshot,
qcow2's overlay, the temporary files of nbdkit's and nbd-server's copy on write. All run with the
defaults of their programs, which means write-back caching and a flush that is fdatasync(2).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from bench.bed import MIB, Bed
from bench.fio import Target
from bench.host import Host, hosting

__all__ = [
    "NBDFUSE", "NBDKIT", "NBDKIT_COW", "NBD_SERVER_COW", "QEMU", "QEMU_OVERLAY",
    "Contestant", "Ulvm",
]  # fmt: skip

_PATIENCE = 20.0
"""Seconds that a server has to begin serving."""


class Contestant(Protocol):
    """`label` stands in tables; `programs` must be installed."""

    @property
    def label(self) -> str: ...
    @property
    def programs(self) -> tuple[str, ...]: ...
    def serving(self, bed: Bed, span: int) -> Iterator[Target]:
        """To be made a context manager of: the volume is served while it is suspended. At most
        the first `span` bytes are written."""


@dataclass(frozen=True)
class Ulvm:
    """A volume of ulvm's: `on` the origin or its newest snapshot, of so many with this chunk size.
    `sparse`: bytes of a volume without data, instead of the bed's."""

    label: str = "ulvm"
    snapshots: int = 0
    chunk: str = "4k"
    on: Literal["origin", "snapshot"] = "origin"
    durability: str = "host"
    door: Literal["nbd", "fuse"] = "nbd"
    sparse: int = 0

    @property
    def programs(self) -> tuple[str, ...]:
        return ("fusermount3",) if self.door == "fuse" else ()

    def serving(self, bed: Bed, span: int) -> Iterator[Target]:
        with ExitStack() as stack:
            images = bed.sparse(self.sparse + 64 * MIB) if self.sparse else bed.filled()
            image = stack.enter_context(images)
            cow_mib = span * 9 // 8 // MIB + 16
            fresh = stack.enter_context(bed.sparse((cow_mib * self.snapshots + 64) * MIB))
            settings = {"ulvm/durability": f'"{self.durability}"'}
            host = stack.enter_context(hosting(bed, settings))
            volume = self.make(host, image, fresh, (self.sparse or bed.size) // MIB, cow_mib)
            yield host.target(volume, self.door)

    def make(self, host: Host, image: Path, fresh: Path, mib: int, cow_mib: int) -> str:
        """The volume on the filled `image`, its snapshots on `fresh`; its name."""
        host.ulvm(f"pvcreate -q -ff -y {image} {fresh}")
        host.ulvm(f"vgcreate -q b {image} {fresh}")
        # Neither wiped nor zeroed: the data that are there are to stay.
        host.ulvm(f"lvcreate -q -y -Wn -Zn -n data -L {mib}m b {image}")
        for number in range(self.snapshots):
            host.ulvm(f"lvcreate -q -s -c {self.chunk} -n s{number} -L {cow_mib}m b/data {fresh}")
        return f"b/s{self.snapshots - 1}" if self.on == "snapshot" else "b/data"


@dataclass(frozen=True)
class _Nbdkit:
    label: str
    cow: bool = False
    programs: tuple[str, ...] = ("nbdkit",)

    def serving(self, bed: Bed, span: int) -> Iterator[Target]:
        folder = bed.folder()
        words = ["nbdkit", "-f", "-U", str(folder / "s")]
        words += ["--filter=cow"] if self.cow else []
        with bed.filled() as image:
            # The filter's overlay is a temporary file below TMPDIR.
            environment = {**os.environ, "TMPDIR": str(bed.directory)}
            words += ["file", str(image)]
            with _running(words, folder, folder / "s", environment=environment) as target:
                yield target


@dataclass(frozen=True)
class _Qemu:
    label: str
    overlay: bool = False
    programs: tuple[str, ...] = ("qemu-nbd", "qemu-img")

    def serving(self, bed: Bed, span: int) -> Iterator[Target]:
        folder, overlay = bed.folder(), bed.fresh(".qcow2")
        words = ["qemu-nbd", "-t", "-e", "0", "-k", str(folder / "s")]
        with bed.filled() as image:
            if self.overlay:
                make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b"]
                subprocess.run([*make, str(image), str(overlay)], check=True)
                words += ["-f", "qcow2", str(overlay)]
            else:
                words += ["-f", "raw", str(image)]
            try:
                with _running(words, folder, folder / "s") as target:
                    yield target
            finally:
                overlay.unlink(missing_ok=True)


@dataclass(frozen=True)
class _NbdServer:
    """nbd-server -c, which needs a file of settings to serve on a Unix socket. It is a process a
    connection, so its processor time is not known here."""

    label: str
    programs: tuple[str, ...] = ("nbd-server",)

    def serving(self, bed: Bed, span: int) -> Iterator[Target]:
        folder = bed.folder()
        settings, path = folder / "config", folder / "s"
        with bed.filled() as image:
            settings.write_text(
                f"[generic]\nunixsock = {path}\nallowlist = true\n"
                f"[x]\nexportname = {image}\ncopyonwrite = true\ncowdir = {bed.directory}\n"
                "flush = true\n"
            )
            # In the foreground it would serve one connection alone, and end.
            words = ["nbd-server", "-C", str(settings), "-p", str(folder / "pid")]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _wait_for(folder / "pid")
            try:
                _wait_for(path)
                yield Target(uri=f"nbd+unix:///x?socket={path}")
            finally:
                os.kill(int((folder / "pid").read_text()), signal.SIGTERM)


@dataclass(frozen=True)
class _Nbdfuse:
    label: str
    programs: tuple[str, ...] = ("nbdkit", "nbdfuse", "fusermount3")

    def serving(self, bed: Bed, span: int) -> Iterator[Target]:
        folder = bed.folder()
        mount, path = folder / "m", folder / "s"
        mount.mkdir()
        with bed.filled() as image, ExitStack() as stack:
            words = ["nbdkit", "-f", "-U", str(path), "file", str(image)]
            server = stack.enter_context(_running(words, folder, path))
            words = ["nbdfuse", str(mount), "--unix", str(path)]
            fuse = stack.enter_context(_running(words, folder, mount / "nbd", ended=_unmount))
            yield Target(path=str(mount / "nbd"), pids=server.pids + fuse.pids)


def _unmount(path: Path) -> None:
    subprocess.run(["fusermount3", "-u", str(path.parent)], check=True)


@contextmanager
def _running(
    words: Sequence[str],
    folder: Path,
    path: Path,
    *,
    environment: dict[str, str] | None = None,
    ended: Callable[[Path], None] | None = None,
) -> Iterator[Target]:
    """A server from when it serves at `path`, until the context ends it. What it complains of is in
    a file of the folder, and told if it does not come to serve: the trial connection alone
    makes most of them complain."""
    log = folder / f"{words[0]}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stderr=errors) as server,
    ):
        try:
            try:
                _wait_for(path)
            except RuntimeError as error:
                raise RuntimeError(f"{error}: {log.read_text().strip()}") from error
            yield Target(uri=f"nbd+unix:///?socket={path}", pids=(server.pid,))
        finally:
            if ended is not None:
                ended(path)
            else:
                server.terminate()
            server.wait(_PATIENCE)


def _wait_for(path: Path) -> None:
    """Until a server serves there: a socket that takes a connection, or a file of a mount."""
    deadline = time.monotonic() + _PATIENCE
    while not _serves(path):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nobody serves {path}")
        time.sleep(0.02)


def _serves(path: Path) -> bool:
    if not path.exists():
        return False
    if not path.is_socket():
        return True
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(path)) == 0


NBDKIT = _Nbdkit("nbdkit file")
NBDKIT_COW = _Nbdkit("nbdkit cow", cow=True)
QEMU = _Qemu("qemu-nbd raw")
QEMU_OVERLAY = _Qemu("qemu-nbd qcow2", overlay=True)
NBD_SERVER_COW = _NbdServer("nbd-server -c")
NBDFUSE = _Nbdfuse("nbdfuse")
