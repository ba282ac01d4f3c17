"""A file system that is unmounted to be cut is mounted again as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import needs
from ulvm.errors import BusyError, RefusedError
from ulvm.mounts import mount_at, mount_volume, unmount_volume, volume
from ulvm.mounts.filesystem_size import SizedFileSystem

pytestmark = [needs.root, needs.program("mkfs.ext4")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("xb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


@contextmanager
def mounted(image: Path, where: Path, options: str = "") -> Iterator[None]:
    where.mkdir()
    mount_volume(image, where, options=options)
    try:
        yield
    finally:
        if mount_at(where) is not None:
            unmount_volume(where)


@needs.loop
@pytest.mark.parametrize("options", ["noatime,nosuid", "discard,errors=remount-ro,noexec", "ro"])
def test_with_the_options_that_it_had(image: Path, tmp_path: Path, options: str) -> None:
    where = tmp_path / "mnt"
    with mounted(image, where, options):
        before = mount_at(where)
        assert before is not None
        found = SizedFileSystem(image, print)
        found.unmount()
        assert mount_at(where) is None
        found.mount_again()
        after = mount_at(where)
        assert after is not None
        assert (after.options, after.super_options) == (before.options, before.super_options)


@needs.loop
def test_read_only_where_only_the_mount_was(image: Path, tmp_path: Path) -> None:
    where = tmp_path / "mnt"
    with mounted(image, where):
        subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
        found = SizedFileSystem(image, print)
        found.unmount()
        found.mount_again()
        with pytest.raises(OSError, match="Read-only"):
            (where / "file").touch()


@needs.loop
@pytest.mark.parametrize("held", [False, True])
def test_though_it_could_not_be_unmounted_or_let_go(
    image: Path, tmp_path: Path, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "mnt"
    monkeypatch.setattr(volume, "_RELEASE_SECONDS", 0.1)
    with mounted(image, where):
        before = mount_at(where)
        assert before is not None
        descriptor = os.open(before.source if held else where, os.O_RDONLY)
        try:
            found = SizedFileSystem(image, print)
            with pytest.raises(BusyError):
                found.unmount()
            found.mount_again()
            again = mount_at(where)
            assert again is not None
            assert again.source == before.source
        finally:
            os.close(descriptor)


@needs.loop
@needs.program("resize2fs")
def test_none_grows_below_another_mount(image: Path, tmp_path: Path) -> None:
    where = tmp_path / "mnt"
    with mounted(image, where):
        subprocess.run(["mount", "-t", "tmpfs", "over", where], check=True)
        try:
            with pytest.raises(BusyError, match="Another mount lies over"):
                SizedFileSystem(image, print).may_grow()
        finally:
            subprocess.run(["umount", where], check=True)


@needs.loop
@needs.program("resize2fs")
def test_none_grows_that_is_read_only_in_its_place(image: Path, tmp_path: Path) -> None:
    where = tmp_path / "mnt"
    with mounted(image, where):
        subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
        with pytest.raises(RefusedError, match="mounted read-only"):
            SizedFileSystem(image, print).may_grow()


@needs.loop
def test_a_check_that_is_killed_is_none(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e2fsck").write_text("#!/bin/sh\nkill -KILL $$\n")
    (tmp_path / "e2fsck").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RefusedError, match="check failed"):
        SizedFileSystem(image, print).check()


@needs.fuse
@needs.program("fuse2fs")
def test_as_a_user(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    where = tmp_path / "mnt"
    with mounted(image, where, "nosuid,noexec"):
        before = mount_at(where)
        assert before is not None
        found = SizedFileSystem(image, print)
        found.unmount()
        found.mount_again()
        after = mount_at(where)
        assert after is not None
        assert after.options == before.options
    with pytest.raises(RefusedError, match="unknown option `BAD'"):
        mount_volume(image, where, options="BAD")
