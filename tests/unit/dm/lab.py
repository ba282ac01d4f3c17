"""A mapper over sparse files, and a reader of COW stores that shares no code with the engine."""

from __future__ import annotations

import struct
from pathlib import Path

from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.table import parse_table

SECTOR = 512


class Lab:
    """Names of devices are dm names; sizes and positions are sectors. `stage` in bytes: what is
    written is settled at once, so that the stores can be looked at as without one."""

    def __init__(self, folder: Path, *, durability: str = "host", stage: int = 0) -> None:
        self.folder = folder
        self.messages: list[str] = []
        self.dm = LocalMapper(
            log=self.messages.append, durability=durability, stage=StageSettings(stage)
        )

    def file(self, name: str, sectors: int) -> str:
        path = self.folder / name
        with open(path, "wb") as stream:
            stream.truncate(sectors * SECTOR)
        return str(path)

    def device(self, name: str, table: str) -> str:
        """create, load, resume; a refused table leaves no device behind."""
        self.dm.create(name)
        try:
            self.dm.load(name, parse_table(table))
            self.dm.resume(name)
        except Exception:
            self.dm.remove(name)
            raise
        return name

    def reload(self, name: str, table: str) -> None:
        self.dm.load(name, parse_table(table))
        self.dm.resume(name)

    def status(self, name: str) -> str:
        return " ".join(str(line) for line in self.dm.status(name)).split(" ", 3)[3]

    def table(self, name: str) -> str:
        return " ".join(str(line) for line in self.dm.table(name)).split(" ", 3)[3]

    def write(self, name: str, sector: int, sectors: int, fill: int = 0xAA) -> None:
        device = self.dm.mapped(name)
        device.write(sector * SECTOR, bytes([fill]) * (sectors * SECTOR))
        device.settle()

    def read(self, name: str, sector: int, sectors: int) -> bytes:
        return self.dm.mapped(name).read(sector * SECTOR, sectors * SECTOR)

    def fill_pattern(self, path: str, sectors: int) -> bytes:
        """Every sector holds its own number, so that a misplaced one shows."""
        data = b"".join(struct.pack("<Q", n) * 64 for n in range(sectors))
        Path(path).write_bytes(data)
        return data


def store_records(path: str, chunk_size: int) -> list[tuple[int, int]]:
    """(old, new) records of a store file, by the formulas of the format alone."""
    chunk = chunk_size * SECTOR
    per_area = chunk // 16
    data = Path(path).read_bytes()
    records: list[tuple[int, int]] = []
    area = 0
    while True:
        start = (1 + area * (per_area + 1)) * chunk
        for slot in range(per_area):
            old, new = struct.unpack_from("<QQ", data, start + slot * 16)
            if new == 0:
                return records
            records.append((old, new))
        area += 1


def header(path: str) -> tuple[int, int, int, int]:
    """(magic, valid, version, chunk_size)"""
    magic, valid, version, size = struct.unpack("<IIII", Path(path).read_bytes()[:16])
    return magic, valid, version, size


def make_store(
    path: str, chunk_size: int, records: list[tuple[int, int]], sectors: int, valid: int = 1
) -> None:
    """A store written by hand; data chunk n is filled with the byte n % 256."""
    chunk = chunk_size * SECTOR
    per_area = chunk // 16
    data = bytearray(sectors * SECTOR)
    struct.pack_into("<IIII", data, 0, 0x70416E53, valid, 1, chunk_size)
    for index, (old, new) in enumerate(records):
        area, slot = divmod(index, per_area)
        offset = (1 + area * (per_area + 1)) * chunk + slot * 16
        struct.pack_into("<QQ", data, offset, old, new)
        if new and (new + 1) * chunk <= len(data):
            data[new * chunk : (new + 1) * chunk] = bytes([new % 256]) * chunk
    Path(path).write_bytes(data)


def runs(*spec: str) -> list[tuple[int, int]]:
    """`"250..252>8..10"` and `"12>2"` as records."""
    found: list[tuple[int, int]] = []
    for item in spec:
        old, new = item.split(">")
        first, _, last = old.partition("..")
        target = int(new.split("..")[0])
        for position in range(int(first), int(last or first) + 1):
            found.append((position, target + position - int(first)))
    return found
