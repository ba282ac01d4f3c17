"""What lies in the target directory: complete backups, and nothing that looks like one."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ulvm.backup.digest import Digest
from ulvm.backup.frames import FrameIndex, FrameRun
from ulvm.backup.manifest import ImageInfo, Manifest, VolumeInfo, parse_manifest
from ulvm.backup.sinks.directory import BackupFiles, backup_name, remove_litter
from ulvm.errors import DeviceError, ExistsError, NotFoundError

TIME = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
UUID = "AAAAAA-bbbb-1111-cccc-2222-dddd-333333"
NAME = "vg-db-20240501T120000Z"


def manifest() -> Manifest:
    index = FrameIndex(512, 1 << 20, [FrameRun(1, 5, False)])
    image = ImageInfo(f"{NAME}.raw.zst", Digest("xxh128", "0" * 32), "0" * 64, index)
    return Manifest("ulvm", TIME, VolumeInfo("vg", "db", UUID, UUID), image, None, True)


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def test_the_name_says_volume_and_time() -> None:
    assert backup_name("vg", "db", TIME) == NAME


def test_both_files_appear_at_commit(tmp_path: Path) -> None:
    with BackupFiles(tmp_path, NAME) as files:
        os.write(files.fd, b"image")
        assert names(tmp_path) == [f".{NAME}.raw.zst.partial"]
        files.commit(manifest())
    assert names(tmp_path) == [f"{NAME}.json", f"{NAME}.raw.zst"]
    assert (tmp_path / f"{NAME}.raw.zst").read_bytes() == b"image"
    assert parse_manifest((tmp_path / f"{NAME}.json").read_bytes()).volume.lv == "db"


def test_nothing_is_left_without_commit(tmp_path: Path) -> None:
    with BackupFiles(tmp_path, NAME) as files:
        os.write(files.fd, b"image")
        assert names(tmp_path) != []
    assert names(tmp_path) == []


def test_a_backup_of_the_same_name_that_is_just_complete_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of vg/a-b and vg-a/b, in one second: it ends when the other has begun to make its file."""
    first = BackupFiles(tmp_path, NAME)
    os.write(first.fd, b"first")
    make = os.open

    def late(path: str | Path, flags: int, mode: int = 0o777) -> int:
        monkeypatch.setattr(os, "open", make)
        with first:
            first.commit(manifest())
        return make(path, flags, mode)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(ExistsError):
        BackupFiles(tmp_path, NAME)
    assert names(tmp_path) == [f"{NAME}.json", f"{NAME}.raw.zst"]
    assert (tmp_path / f"{NAME}.raw.zst").read_bytes() == b"first"


def test_a_commit_that_fails_takes_all_back(tmp_path: Path) -> None:
    """A directory in the manifest's place: the last rename fails, the image is gone again."""
    files = BackupFiles(tmp_path, NAME)
    with files:
        (tmp_path / f"{NAME}.json").mkdir()
        with pytest.raises(DeviceError, match="Cannot complete"):
            files.commit(manifest())
    assert names(tmp_path) == [f"{NAME}.json"]


def test_a_manifest_is_taken_back_durably_before_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted behind the renaming of the manifest: what is there at every step back."""
    steps: list[tuple[str, list[str]]] = []
    unlink, fsync = os.unlink, os.fsync

    def reach(point: str) -> None:
        if point == "after the manifest was renamed":
            monkeypatch.setattr(os, "unlink", noted_unlink)
            monkeypatch.setattr(os, "fsync", noted_fsync)
            raise KeyboardInterrupt

    def noted_unlink(path: Path) -> None:
        unlink(path)
        steps.append(("unlink", names(tmp_path)))

    def noted_fsync(fd: int) -> None:
        fsync(fd)
        steps.append(("sync", names(tmp_path)))

    monkeypatch.setattr("ulvm.backup.sinks.directory.reach", reach)
    with pytest.raises(KeyboardInterrupt), BackupFiles(tmp_path, NAME) as files:
        files.commit(manifest())
    image = [f"{NAME}.raw.zst"]
    assert steps == [("unlink", image), ("sync", image), ("unlink", [])]


@pytest.mark.parametrize("suffix", [".json", ".raw.zst"])
def test_a_backup_is_never_overwritten(tmp_path: Path, suffix: str) -> None:
    (tmp_path / (NAME + suffix)).write_text("precious")
    with pytest.raises(ExistsError):
        BackupFiles(tmp_path, NAME)
    assert (tmp_path / (NAME + suffix)).read_text() == "precious"


def test_two_at_once_under_one_name(tmp_path: Path) -> None:
    with BackupFiles(tmp_path, NAME), pytest.raises(DeviceError, match="File exists"):
        BackupFiles(tmp_path, NAME)
    assert names(tmp_path) == []


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not a directory"):
        BackupFiles(tmp_path / "nowhere", NAME)


def test_litter_of_the_dead_is_removed_of_the_living_not(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from ulvm.backup.sinks.directory import BackupFiles\n"
        f"BackupFiles(pathlib.Path(sys.argv[1]), {NAME!r})\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (tmp_path / ".other.partial").write_text("not ours")
    assert remove_litter(tmp_path) == []
    process.kill()
    process.wait()
    process.stdout.close()
    assert remove_litter(tmp_path) == [f".{NAME}.raw.zst.partial"]
    assert names(tmp_path) == [".other.partial"]


Flock = Callable[[int, int], None]


def before_the_first_lock(monkeypatch: pytest.MonkeyPatch, work: Callable[[Flock], None]) -> None:
    """Do `work`, with the real flock, when a file has been created but is not locked yet."""
    real, first = fcntl.flock, threading.Lock()

    def flock(fd: int, operation: int) -> None:
        if first.acquire(blocking=False):
            work(real)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_file_that_is_taken_for_litter_at_birth_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    before_the_first_lock(monkeypatch, lambda _: removed.extend(remove_litter(tmp_path)))
    with BackupFiles(tmp_path, NAME) as files:
        assert removed == [f".{NAME}.raw.zst.partial"]
        os.write(files.fd, b"image")
        files.commit(manifest())
    assert names(tmp_path) == [f"{NAME}.json", f"{NAME}.raw.zst"]
    assert (tmp_path / f"{NAME}.raw.zst").read_bytes() == b"image"


def test_a_file_that_is_looked_at_for_litter_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another backup holds the new file's lock for a moment and then removes it."""
    partial = tmp_path / f".{NAME}.raw.zst.partial"
    helpers: list[threading.Thread] = []

    def look(flock: Flock) -> None:
        fd = os.open(partial, os.O_RDONLY)
        flock(fd, fcntl.LOCK_EX)

        def go_on() -> None:
            partial.unlink()
            os.close(fd)

        helpers.append(threading.Thread(target=go_on))
        helpers[0].start()

    before_the_first_lock(monkeypatch, look)
    with BackupFiles(tmp_path, NAME) as files:
        assert os.fstat(files.fd).st_ino == partial.stat().st_ino
        files.commit(manifest())
    helpers[0].join()
    assert names(tmp_path) == [f"{NAME}.json", f"{NAME}.raw.zst"]


def test_litter_that_another_backup_replaced_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look at it and our lock the file is removed and its name taken again."""
    partial = tmp_path / f".{NAME}.raw.zst.partial"
    partial.write_text("dead")
    new: list[BackupFiles] = []

    def replace(_: Flock) -> None:
        partial.unlink()
        new.append(BackupFiles(tmp_path, NAME))

    before_the_first_lock(monkeypatch, replace)
    assert remove_litter(tmp_path) == []
    with new[0] as files:
        files.commit(manifest())
    assert names(tmp_path) == [f"{NAME}.json", f"{NAME}.raw.zst"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP])
def test_a_directory_whose_files_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Nobody can tell there whether a backup lives: nothing is removed, and none is begun."""
    partial = tmp_path / f".{NAME}.raw.zst.partial"
    partial.write_text("somebody's")

    def flock(_fd: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert remove_litter(tmp_path) == []
    partial.unlink()
    with pytest.raises(DeviceError, match="Cannot lock"):
        BackupFiles(tmp_path, NAME)
    assert names(tmp_path) == []
