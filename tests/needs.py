"""What a test needs of the machine, as marks.

    @needs.root
    @needs.program("fio")
    def test_...

Where the need is not met the test is skipped, with the reason. With CI=true in the environment it
fails instead: a run that is to prove something must not pass by leaving tests out.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

__all__ = ["MISSING", "blockdev", "fuse", "loop", "missing_program", "program", "qemu", "root"]

MISSING = "missing_need"
"""The mark that makes a test fail for want of something; `tests/conftest.py` acts on it."""


def _need(met: bool, reason: str) -> pytest.MarkDecorator:
    if met or os.environ.get("CI") != "true":
        return pytest.mark.skipif(not met, reason=reason)
    return getattr(pytest.mark, MISSING)(reason=reason)  # type: ignore[no-any-return]


def missing_program(name: str) -> bool:
    """Whether the program is neither on PATH nor where only root looks for programs."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None


def program(name: str) -> pytest.MarkDecorator:
    """A program that is installed."""
    return _need(not missing_program(name), f"the program {name} is not installed")


_JUDGE = ("qemu-system-x86_64", "cpio", "busybox", "lvm", "dmsetup", "apt-get", "dpkg-deb")

root = _need(os.geteuid() == 0, "only root can do this")
fuse = _need(
    os.access("/dev/fuse", os.R_OK | os.W_OK) and not missing_program("fusermount3"),
    "FUSE is not to be had: no access to /dev/fuse, or no fusermount3",
)
loop = _need(
    Path("/dev/loop-control").exists() and os.access("/dev/loop-control", os.R_OK | os.W_OK),
    "loop devices are not to be had: no access to /dev/loop-control",
)
blockdev = _need(
    any(Path("/usr/lib").glob("*/girepository-1.0/BlockDev-2.0.typelib"))
    and Path("/usr/lib/python3/dist-packages/gi").exists(),
    "libblockdev is not installed: gir1.2-blockdev-2.0, python3-gi",
)
qemu = _need(
    platform.machine() == "x86_64" and not any(map(missing_program, _JUDGE)),
    f"no virtual machine: this is not x86-64, or one of {', '.join(_JUDGE)} is not installed",
)
