"""What lies in the target directory: complete backups, and nothing that looks like one."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ulvm.backup.frames import FrameIndex, FrameRun
from ulvm.backup.manifest import ImageInfo, Manifest, VolumeInfo, parse_manifest
from ulvm.backup.sinks.directory import BackupFiles, backup_name, remove_litter
from ulvm.errors import DeviceError, ExistsError, NotFoundError

TIME = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
UUID = "AAAAAA-bbbb-1111-cccc-2222-dddd-333333"
NAME = "vg-db-20240501T120000Z"


def manifest() -> Manifest:
    index = FrameIndex(512, 1 << 20, [FrameRun(1, 5, False)])
    image = ImageInfo(f"{NAME}.raw.zst", "0" * 64, "0" * 64, index)
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


def test_a_commit_that_fails_takes_all_back(tmp_path: Path) -> None:
    """A directory in the manifest's place: the last rename fails, the image is gone again."""
    files = BackupFiles(tmp_path, NAME)
    with files:
        (tmp_path / f"{NAME}.json").mkdir()
        with pytest.raises(DeviceError, match="Cannot complete"):
            files.commit(manifest())
        (tmp_path / f"{NAME}.json").rmdir()
    assert names(tmp_path) == []


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
