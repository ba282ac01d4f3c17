"""What is gathered for a report of a fault."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest

from ulvm.lvm.dump import pack


def test_an_archive_is_private_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "versions").write_text("1\n")
    modes = []
    add = tarfile.TarFile.add

    def seen(tar: tarfile.TarFile, *args: object, **options: object) -> None:
        modes.append(stat.S_IMODE((tmp_path / "dump.tgz").stat().st_mode))
        add(tar, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tarfile.TarFile, "add", seen)
    old = os.umask(0)
    try:
        pack(tmp_path / "dump", tmp_path / "dump.tgz")
    finally:
        os.umask(old)
    assert set(modes) == {0o600}
    with tarfile.open(tmp_path / "dump.tgz") as tar:
        assert tar.getnames() == ["dump", "dump/versions"]
    assert not (tmp_path / "dump").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    (tmp_path / "other").write_text("kept")
    (tmp_path / "dump.tgz").symlink_to(tmp_path / "other")
    with pytest.raises(FileExistsError):
        pack(tmp_path / "dump", tmp_path / "dump.tgz")
    assert (tmp_path / "other").read_text() == "kept"
