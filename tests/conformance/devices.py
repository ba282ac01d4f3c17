"""How the suite makes one of each kind of block device, empty, of SIZE bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.static_source import StaticSource
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.file import FileDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.blockdev.nbd import NbdDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table
from ulvm.exports.nbd_server import NbdServer
from ulvm.mounts.loop import attach

SIZE = (4 << 20) + 1536
"""Bytes; no multiple of a page."""


def sparse_file(folder: Path, size: int = SIZE) -> str:
    path = folder / "image"
    with path.open("wb") as stream:
        stream.truncate(size)
    return str(path)


@contextmanager
def file(folder: Path) -> Iterator[BlockDevice]:
    device = FileDevice(sparse_file(folder))
    yield device
    device.close()


@contextmanager
def memory(folder: Path) -> Iterator[BlockDevice]:
    yield MemoryDevice(SIZE)


@contextmanager
def faults(folder: Path) -> Iterator[BlockDevice]:
    yield FaultDevice(MemoryDevice(SIZE))


@contextmanager
def recording(folder: Path) -> Iterator[BlockDevice]:
    device = FaultDevice(MemoryDevice(SIZE))
    device.record()
    yield device


@contextmanager
def loop(folder: Path) -> Iterator[BlockDevice]:
    with attach(sparse_file(folder), direct_io=False) as attached:
        device = FileDevice(attached.path, claim=False)
        yield device
        device.close()


@contextmanager
def serving(device: BlockDevice, *, tcp: bool = False) -> Iterator[str | tuple[str, int]]:
    """The address of a server whose export `vg/lv` is the device."""
    with tempfile.TemporaryDirectory(prefix="ulvm", dir="/tmp") as folder:
        server = NbdServer(StaticSource({"vg/lv": device}))
        address: str | tuple[str, int] = f"{folder}/nbd.sock"
        if tcp:
            address = ("127.0.0.1", server.listen_tcp("127.0.0.1", 0))
        else:
            server.listen_unix(str(address))
        try:
            yield address
        finally:
            server.stop()


@contextmanager
def nbd(folder: Path) -> Iterator[BlockDevice]:
    with file(folder) as inner, serving(inner) as address:
        device = NbdDevice(address, "vg/lv")
        yield device
        device.close()


@contextmanager
def nbd_tcp(folder: Path) -> Iterator[BlockDevice]:
    with memory(folder) as inner, serving(inner, tcp=True) as address:
        device = NbdDevice(address, "vg/lv", connections=3)
        yield device
        device.close()


@contextmanager
def linear(folder: Path) -> Iterator[BlockDevice]:
    """Two linear targets over one file, the second before the first."""
    path = sparse_file(folder, SIZE + (1 << 20))
    mapper = LocalMapper()
    mapper.create("lin")
    sectors = SIZE // 512
    table = f"0 1000 linear {path} {sectors}\n1000 {sectors - 1000} linear {path} 0"
    mapper.load("lin", parse_table(table))
    mapper.resume("lin")
    handle = mapper.mapped("lin").open(write=True)
    yield handle
    handle.close()
    mapper.shutdown()


KINDS: dict[str, Callable[[Path], AbstractContextManager[BlockDevice]]] = {
    "file": file,
    "memory": memory,
    "faults": faults,
    "recording": recording,
    "loop": loop,
    "nbd": nbd,
    "nbd_tcp": nbd_tcp,
    "linear": linear,
}
