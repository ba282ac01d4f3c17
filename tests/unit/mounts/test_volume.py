"""Volumes on directories."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.waiting import until
from ulvm.errors import BusyError, RefusedError
from ulvm.mounts import (
    Loop,
    Mount,
    filesystem_size,
    mount_at,
    mount_volume,
    unmount_volume,
    volume,
)
from ulvm.mounts.filesystem_size import SizedFileSystem

pytestmark = [needs.root, needs.loop, needs.program("mkfs.ext4")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("xb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


def test_a_refusal_tells_a_directory_with_any_name(image: Path, tmp_path: Path) -> None:
    where = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    where.mkdir()
    with pytest.raises(RefusedError, match="Cannot mount"):
        mount_volume(image, where, options="nosuchoption")


def test_mounting_is_out_of_reach_of_the_terminals_signals(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds Ctrl-C back would be told of a failure, with the volume mounted."""
    (tmp_path / "mount").write_text(
        f'#!/bin/sh\nread -r line < /proc/$$/stat\necho "$line" >"{tmp_path}/stat"\nexit 32\n'
    )
    (tmp_path / "mount").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RefusedError):
        mount_volume(image, tmp_path)
    group = int((tmp_path / "stat").read_text().rpartition(")")[2].split()[2])
    assert group != os.getpgrp()


def test_a_loop_device_that_is_anothers_by_now_holds_nothing(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "mnt"
    where.mkdir()
    mount_volume(image, where)
    asked = volume.loop_named

    def named(name: str) -> Loop | None:
        found = asked(name)
        return found or Loop(name, "/another", False, True, 0, 0)

    monkeypatch.setattr(volume, "loop_named", named)
    monkeypatch.setattr(volume, "_RELEASE_SECONDS", 0.5)
    unmount_volume(where)


@pytest.mark.parametrize("above", ["mnt", "."])
def test_what_lies_over_a_mount_is_not_unmounted_in_its_place(
    image: Path, tmp_path: Path, above: str
) -> None:
    where = tmp_path / "places" / "mnt"
    where.mkdir(parents=True)
    mount = mount_volume(image, where).mount
    over = where.parent / above
    subprocess.run(["mount", "-t", "tmpfs", "over", over], check=True)
    try:
        (over / "file").write_text("kept")
        with pytest.raises(BusyError, match="Another mount lies over"):
            unmount_volume(mount)
        assert (over / "file").read_text() == "kept"
    finally:
        subprocess.run(["umount", over], check=True)
        unmount_volume(mount)


@needs.fuse
@needs.program("fuse2fs")
def test_a_process_that_serves_it_by_a_link_is_waited_for(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, link = tmp_path / "mnt", tmp_path / "link"
    where.mkdir()
    link.symlink_to(image)
    served = subprocess.Popen(["fuse2fs", link, where, "-f", "-o", "fakeroot"])
    try:
        until(lambda: mount_at(where) is not None)
        mount = mount_at(where)
        assert mount is not None
        monkeypatch.setattr(volume, "_RELEASE_SECONDS", 0.5)
        served.send_signal(signal.SIGSTOP)
        with pytest.raises(BusyError, match="still held"):
            unmount_volume(mount)
    finally:
        served.send_signal(signal.SIGCONT)
        if mount_at(where) is not None:
            subprocess.run(["umount", where], check=True)
        served.wait(30)


def test_growing_an_xfs_tells_why_it_cannot(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that the directory, on which it stays mounted, cannot be removed."""
    found = SizedFileSystem(image, print)
    found.fs_type = "xfs"
    folders: list[Path] = []

    def mount(path: Path, folder: str) -> None:
        folders.append(Path(folder))
        Path(folder, "in it").touch()

    def unmount(folder: str) -> tuple[Mount, ...]:
        raise BusyError("in use")

    monkeypatch.setattr(filesystem_size, "mount_volume", mount)
    monkeypatch.setattr(filesystem_size, "unmount_volume", unmount)
    try:
        with pytest.raises(BusyError, match="in use"):
            found.grow(1 << 20)
    finally:
        for folder in folders:
            (folder / "in it").unlink()
            folder.rmdir()
