"""Power cuts of the directory that a backup is written to: what has a manifest is whole.

What a backup does to its directory is recorded: creation, writes, barriers, renames, removals; of
backups that succeed, that are interrupted between any two steps of their end, and of which each
barrier in turn fails. Then power is cut behind every one of these operations. A file system owes
nothing but what POSIX promises, so of what no barrier covered

* any of the names' changes are there and others are not, in any combination, whatever their order;
* any of a file's writes are there, torn or lost, and a lost one may have left the length;
* the creation of a file is not covered by the fsync of the file, only by that of the directory.

Each image that results holds no manifest under its final name, or one that `verify` accepts with
the volume's own hash. Behind a commit that returned there is one; behind a taking back none.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import xxhash

from tests.effort import amount, rng, tally
from ulvm.backup import image as image_module
from ulvm.backup.image import write_image
from ulvm.backup.manifest import ImageInfo, Manifest, VolumeInfo
from ulvm.backup.reader import Backup
from ulvm.backup.sinks import directory as sink
from ulvm.backup.sinks.directory import BackupFiles
from ulvm.backup.verify import verify
from ulvm.blockdev.memory import MemoryDevice
from ulvm.errors import DeviceError, UlvmError

FRAME = 64 << 10
NAME = "vg-db-20240501T120000Z"
UUID = "AAAAAA-bbbb-1111-cccc-2222-dddd-333333"
RAW = rng("backup output").randbytes(3 * FRAME) + bytes(2 * FRAME) + b"text" * 1000 + bytes(96)

POINTS = (
    "before the image is renamed",
    "between image and manifest",
    "after the manifest was renamed",
)


class Unsafe(AssertionError):
    """What a power cut left is not as promised."""


class Stopped(BaseException):
    """What interrupts a backup here."""


class Op(NamedTuple):
    """One operation that succeeded. Files have numbers of their own: inodes are used again."""

    kind: str
    file: int = -1
    name: str = ""
    to: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass
class Recorder:
    """Stands in for the system calls on what lies in one directory."""

    directory: Path
    fail_sync: int = -1
    """Which barrier fails, counted from 0."""
    ops: list[Op] = field(default_factory=list)
    syncs: int = 0
    _names: dict[str, int] = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("open", "close", "pwrite", "fsync", "rename", "unlink"):
            monkeypatch.setattr(os, name, self._recorded(getattr(os, name), getattr(self, name)))
        for name in ("write", "writev", "pwritev", "fdatasync", "replace", "link", "ftruncate"):
            monkeypatch.setattr(os, name, self._unknown(name))

    def _recorded(self, real: Callable[..., Any], note: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return note(real, *args, **kwargs)

        return call

    @staticmethod
    def _unknown(name: str) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> Any:
            raise NotImplementedError(f"os.{name} is not recorded")

        return call

    def open(self, real: Callable[..., int], path: Any, flags: int, *rest: Any, **more: Any) -> int:
        fd = real(path, flags, *rest, **more)
        where = Path(path)
        if where == self.directory:
            self._open[fd] = -1
        elif where.parent == self.directory:
            if flags & os.O_CREAT:
                assert flags & os.O_EXCL
                self._names[where.name] = len(self.ops)
                self.ops.append(Op("create", len(self.ops), where.name))
            self._open[fd] = self._names[where.name]
        return fd

    def close(self, real: Callable[..., None], fd: int) -> None:
        self._open.pop(fd, None)
        real(fd)

    def pwrite(self, real: Callable[..., int], fd: int, data: Any, offset: int) -> int:
        written = real(fd, data, offset)
        self.ops.append(Op("write", self._open[fd], offset=offset, data=bytes(data[:written])))
        return written

    def fsync(self, real: Callable[..., None], fd: int) -> None:
        self.syncs += 1
        if self.syncs - 1 == self.fail_sync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)
        self.ops.append(Op("sync", self._open[fd]))

    def rename(self, real: Callable[..., None], name: Any, to: Any) -> None:
        real(name, to)
        old, new = Path(name).name, Path(to).name
        self._names[new] = self._names.pop(old)
        self.ops.append(Op("rename", self._names[new], old, new))

    def unlink(self, real: Callable[..., None], path: Any) -> None:
        real(path)
        self.ops.append(Op("unlink", self._names.pop(Path(path).name), Path(path).name))


def manifest_of(summary: image_module.ImageSummary) -> Manifest:
    name = f"{NAME}.raw.zst"
    image = ImageInfo(name, summary.digest, summary.compressed_sha256, summary.index)
    time = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
    return Manifest("ulvm", time, VolumeInfo("vg", "db", UUID, UUID), image, None, True)


class Case(NamedTuple):
    """Where a backup is stopped, and which of its barriers fails."""

    point: str = ""
    sync: int = -1


@dataclass
class Played:
    """One recorded backup. From operation `committed` on it is complete; `gone`: it was taken
    back, all that it had made."""

    ops: list[Op]
    syncs: int
    committed: int | None = None
    gone: bool = False


def play(directory: Path, case: Case) -> Played:
    """Make a backup of RAW, as the case has it."""
    directory.mkdir()
    recorder = Recorder(directory, case.sync)

    def reach(point: str) -> None:
        if point == case.point:
            raise Stopped

    def device() -> MemoryDevice:
        memory = MemoryDevice(len(RAW))
        memory.write(0, RAW)
        return memory

    played = Played(recorder.ops, 0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sink, "reach", reach)
        monkeypatch.setattr(image_module, "_BATCH", 100_000)
        recorder.patch(monkeypatch)
        try:
            with BackupFiles(directory, NAME) as files:
                summary = write_image(device, files.fd, NAME, frame_size=FRAME)
                files.commit(manifest_of(summary))
                played.committed = len(recorder.ops)
        except (Stopped, DeviceError) as error:
            played.committed = None
            played.gone = "take" not in str(error) and not os.listdir(directory)
    played.syncs = recorder.syncs
    state = Image(played.ops, len(played.ops))
    assert {n: state.content(f, None) for n, f in state.names(()).items()} == {
        p.name: p.read_bytes() for p in directory.iterdir()
    }, "something was done that was not recorded"
    return played


class Image:
    """What a power cut behind the first `moment` operations may leave."""

    def __init__(self, ops: list[Op], moment: int) -> None:
        self._ops = list(enumerate(ops[:moment]))
        durable = max((n for n, op in self._ops if op.kind == "sync" and op.file == -1), default=-1)
        changes = [(n, op) for n, op in self._ops if op.name]
        self._durable = [op for n, op in changes if n < durable]
        self.volatile = [op for n, op in changes if n > durable]
        """Changes of names that no barrier covers."""

    def names(self, lost: tuple[Op, ...]) -> dict[str, int]:
        """File of each name without the changes that are lost."""
        found: dict[str, int] = {}
        for op in (*self._durable, *(op for op in self.volatile if op not in lost)):
            if op.kind != "create" and found.get(op.name) == op.file:
                del found[op.name]
            if op.kind != "unlink":
                found[op.to or op.name] = op.file
        return found

    def content(self, file: int, choose: random.Random | None) -> bytes:
        """Of a file; None: nothing is lost."""
        ops = [(n, op) for n, op in self._ops if op.file == file]
        durable = max((n for n, op in ops if op.kind == "sync"), default=-1)
        data = bytearray()
        for n, op in ops:
            if op.kind != "write":
                continue
            kept, length = len(op.data), len(op.data)
            if choose is not None and n > durable:
                kept = choose.choice((0, length // 2, length))
                length = choose.choice((kept, length))
            end = op.offset + length
            data.extend(bytes(max(0, end - len(data))))
            data[op.offset : op.offset + kept] = op.data[:kept]
        return bytes(data)


def images(played: Played, choose: random.Random) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Directories as power cuts leave them, with the moments of these."""
    for moment in range(len(played.ops) + 1):
        image = Image(played.ops, moment)
        n = len(image.volatile)
        for count in range(n + 1):
            for lost in itertools.combinations(image.volatile, count):
                names = image.names(lost)
                for _ in range(amount(2, 20)):
                    yield moment, {name: image.content(f, choose) for name, f in names.items()}


def check(played: Played, folder: Path, choose: random.Random, case: Case) -> int:
    """All images of one backup; how many."""
    count = 0
    for moment, files in images(played, choose):
        count += 1
        what = f"{case}, behind {moment} of {len(played.ops)} operations: {sorted(files)}"
        finished = [n for n in files if n.endswith(".json") and not n.startswith(".")]
        if finished:
            look(folder, files, finished[0], what)
        elif played.committed is not None and moment >= played.committed:
            raise Unsafe(f"no backup, {what}")
        if finished and played.gone and moment == len(played.ops):
            raise Unsafe(f"it was taken back, {what}")
    return count


def look(folder: Path, files: dict[str, bytes], manifest: str, what: str) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        with Backup(folder / manifest) as backup:
            assert backup.manifest.image.digest.value == xxhash.xxh3_128(RAW).hexdigest()
            verify(backup)
    except UlvmError as error:
        raise Unsafe(f"{error.message} {what}") from error
    finally:
        for name in files:
            (folder / name).unlink()


def every_case(folder: Path) -> Iterator[tuple[Case, Played]]:
    """A backup that goes well; each barrier fails; stopped at each point, and there each barrier
    of the taking back fails."""
    whole = play(folder / "whole", Case())
    yield Case(), whole
    for sync in range(whole.syncs):
        case = Case(sync=sync)
        yield case, play(folder / f"sync {sync}", case)
    for point in POINTS:
        stopped = play(folder / point, Case(point))
        yield Case(point), stopped
        for sync in range(stopped.syncs):
            case = Case(point, sync)
            yield case, play(folder / f"{point}, {sync}", case)


def check_all(folder: Path) -> int:
    (folder / "image").mkdir()
    return sum(
        check(played, folder / "image", rng("backup output", case), case)
        for case, played in every_case(folder)
    )


def test_what_has_a_manifest_is_whole(tmp_path: Path) -> None:
    tally("crash images of a backup's directory", check_all(tmp_path))


def test_the_cases_are_what_they_are_called(tmp_path: Path) -> None:
    cases = dict(every_case(tmp_path))
    assert cases[Case()].committed == len(cases[Case()].ops)
    assert all(played.committed is None for case, played in cases.items() if case != Case())
    assert all(cases[Case(point)].gone for point in POINTS)
    assert len([op for op in cases[Case()].ops if op.kind == "write"]) == 7


def image_first(self: BackupFiles) -> None:
    for path in (self.image_path, self._partial_image, self.manifest_path, self._partial_manifest):
        path.unlink(missing_ok=True)


def manifest_goes_undurably(self: BackupFiles) -> None:
    for path in (self._partial_manifest, self.manifest_path, self.image_path, self._partial_image):
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("where", "what", "instead"),
    [
        (sink, "sync_directory", lambda _path: None),
        (sink, "sync", lambda _fd, _what: None),
        (image_module, "sync", lambda _fd, _what: None),
        (BackupFiles, "_take_back", image_first),
        (BackupFiles, "_take_back", manifest_goes_undurably),
    ],
)
def test_a_barrier_left_out_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, what: str, instead: Any
) -> None:
    monkeypatch.setattr(where, what, instead)
    with pytest.raises(Unsafe):
        check_all(tmp_path)
