"""A file system that was frozen for a snapshot is thawed, whatever is short by then."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.waiting import until
from ulvm.mounts import FrozenMounts, Mount, mount_table

pytestmark = [needs.root, needs.loop, needs.program("mkfs.ext4")]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mount]:
    image, where = tmp_path / "image", tmp_path / "mnt"
    image.write_bytes(bytes(16 << 20))
    where.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, where], check=True)
    yield next(mount for mount in mount_table() if mount.mount_point == str(where))
    subprocess.run(["umount", where], check=True)


def writes(mount: Mount) -> bool:
    """Whether a writer gets on within a moment."""
    touch = subprocess.Popen(["touch", f"{mount.mount_point}/written"])
    try:
        return touch.wait(1) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        touch.terminate()


def test_with_no_descriptor_left(mounted: Mount) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    frozen = FrozenMounts([mounted]).__enter__()
    try:
        assert frozen.frozen == (mounted,)
        assert not writes(mounted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        with pytest.raises(OSError, match="Too many open files"):
            os.open("/", os.O_RDONLY)
    finally:
        frozen.__exit__(None, None, None)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert writes(mounted)


def test_who_goes_without_thawing_has_it_done(mounted: Mount) -> None:
    child = os.fork()
    if not child:
        FrozenMounts([mounted]).__enter__()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    until(lambda: writes(mounted))
