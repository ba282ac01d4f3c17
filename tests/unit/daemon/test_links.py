"""Links in /dev: they follow the volumes, and nothing that is not ours is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ulvm.daemon.links import DeviceLinks


def links(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): os.readlink(path)
        for path in sorted(directory.rglob("*"))
        if path.is_symlink()
    }


def test_they_follow_the_volumes(tmp_path: Path) -> None:
    made = DeviceLinks(tmp_path, Path("/run/x/dev"))
    made.update(["vg/lv", "mapper/vg-lv", "vg/two", "mapper/vg-two"])
    assert links(tmp_path) == {
        "mapper/vg-lv": "/run/x/dev/mapper/vg-lv",
        "mapper/vg-two": "/run/x/dev/mapper/vg-two",
        "vg/lv": "/run/x/dev/vg/lv",
        "vg/two": "/run/x/dev/vg/two",
    }
    made.update(["vg/lv", "mapper/vg-lv"])
    assert set(links(tmp_path)) == {"vg/lv", "mapper/vg-lv"}
    made.clear()
    assert [p.name for p in tmp_path.iterdir()] == ["mapper"]


def test_what_is_not_ours_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "vg").mkdir()
    (tmp_path / "vg/lv").symlink_to("../dm-0")
    (tmp_path / "vg/file").write_text("data")
    made = DeviceLinks(tmp_path, Path("/run/x/dev"))
    made.update(["vg/lv", "vg/file", "vg/new"])
    made.update(["vg/lv", "vg/file"])
    assert links(tmp_path) == {"vg/lv": "../dm-0"}
    made.clear()
    assert (tmp_path / "vg/file").read_text() == "data"
    assert caplog.text.count("no link") == 2


def test_those_of_a_killed_daemon_are_taken_over(tmp_path: Path) -> None:
    DeviceLinks(tmp_path, Path("/run/x/dev")).update(["vg/lv", "old/lv"])
    DeviceLinks(tmp_path, Path("/run/y/dev")).update(["other/lv"])
    DeviceLinks(tmp_path, Path("/run/x/dev")).update(["vg/lv"])
    assert links(tmp_path) == {"vg/lv": "/run/x/dev/vg/lv", "other/lv": "/run/y/dev/other/lv"}
    assert not (tmp_path / "old").exists()


def test_a_directory_that_is_not_to_be_had_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("a file")
    DeviceLinks(tmp_path / "dev", Path("/run/x/dev")).update(["vg/lv"])
