"""A mounted file system is cut (lvreduce -r): whatever happens meanwhile, it is mounted at last."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost

pytestmark = [
    needs.root,
    needs.fuse,
    needs.loop,
    needs.program("mkfs.ext4"),
    needs.program("resize2fs"),
]

MIB = 1 << 20


@pytest.fixture
def where(host: UlvmHost, tmp_path: Path) -> Path:
    """vg/fs of 16 MiB with a file system is mounted there."""
    host.run(f"vgcreate vg {host.image('a.img', '100M')}")
    host.run("lvcreate -L 16M -n fs vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/fs")], check=True)
    where = tmp_path / "mnt"
    where.mkdir()
    host.run(f"mount vg/fs {where}")
    return where


def cut(host: UlvmHost, programs: Path, **scripts: str) -> subprocess.CompletedProcess[str]:
    """lvreduce -r, in a session of its own, with these lines before a program of that name. {real}
    is the program."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for name, lines in scripts.items():
        real = shutil.which(name, path=path)
        (programs / name).write_text(f'#!/bin/sh\n{lines}\nexec {real} "$@"\n')
        (programs / name).chmod(0o755)
    return subprocess.run(
        ["env", "--default-signal", *host.argv("lvreduce -r -y -L 8M vg/fs")],
        env={**host.env, "PATH": f"{programs}:{path}"},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_waits_for_its_end(
    host: UlvmHost, where: Path, short_tmp: Path, number: signal.Signals
) -> None:
    """Twice, as from who is impatient, and once more while it is mounted again."""
    send = f"kill -{int(number)} $PPID; sleep 0.2; kill -{int(number)} $PPID"
    done = cut(host, short_tmp, e2fsck=send, mount=send)
    assert done.returncode in (-number, 128 + number), done
    assert where.is_mount()
    assert host.path("vg/fs").stat().st_size == 8 * MIB


def test_ctrl_c_ends_the_check(host: UlvmHost, where: Path, short_tmp: Path) -> None:
    """It may take long."""
    canceled = "trap 'exit 32' INT; kill -INT 0; sleep 60"  # To all in its group.
    done = cut(host, short_tmp, e2fsck=canceled)
    assert (done.returncode, "Interrupted" in done.stderr) == (130, True), done
    assert where.is_mount()
    assert host.path("vg/fs").stat().st_size == 16 * MIB


def test_both_are_told_if_it_cannot_be_mounted_either(
    host: UlvmHost, where: Path, short_tmp: Path
) -> None:
    done = cut(host, short_tmp, e2fsck="exit 4", mount="echo no luck >&2; exit 32")
    assert done.returncode == 5
    assert "Filesystem check failed." in done.stderr
    assert f"on {where}: no luck." in done.stderr


def test_what_lies_over_it_stays(host: UlvmHost, where: Path) -> None:
    (where / "below").write_text("kept")
    subprocess.run(["mount", "-t", "tmpfs", "over", where], check=True)
    try:
        (where / "over").write_text("kept")
        assert "Another mount lies over" in host.run("lvreduce -r -y -L 8M vg/fs", rc=5).stderr
        assert (where / "over").read_text() == "kept"
        assert host.path("vg/fs").stat().st_size == 16 * MIB
    finally:
        subprocess.run(["umount", where], check=True)
    assert (where / "below").read_text() == "kept"
