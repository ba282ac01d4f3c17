"""The whole way once: make, write, snapshot, read back, and through kill -9 of the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests import needs
from tests.e2e.host import UlvmHost
from tests.waiting import until

pytestmark = needs.fuse


def test_a_snapshot_keeps_what_was_there(host: UlvmHost) -> None:
    image = host.image("pv0.img", "64M")
    host.run(f"pvcreate {image}")
    host.run(f"vgcreate vg {image}")
    host.run("lvcreate -n a -L 8M vg")
    old = os.urandom(8 << 20)
    host.path("vg/a").write_bytes(old)
    host.run("lvcreate -s -n s -L 8M -c 16k vg/a")
    with host.path("vg/a").open("r+b") as file:
        file.seek(1 << 20)
        file.write(bytes(1 << 20))
    new = old[: 1 << 20] + bytes(1 << 20) + old[2 << 20 :]
    assert host.path("vg/a").read_bytes() == new
    assert host.path("vg/s").read_bytes() == old

    pid = json.loads(host.run("daemon status --json").stdout)["pid"]
    os.kill(pid, signal.SIGKILL)
    host.run("lvs vg")
    assert host.path("vg/a").read_bytes() == new
    assert host.path("vg/s").read_bytes() == old


def test_what_goes_on_by_itself_is_no_program_of_the_directory(
    host: UlvmHost, tmp_path: Path
) -> None:
    """A merge that began in /tmp, where anybody can put an `ulvm` of their own."""
    host.run(f"vgcreate vg {host.image('pv0.img', '64M')}")
    host.run("lvcreate -n a -L 8M vg")
    host.run("lvcreate -s -n s -L 8M vg/a")
    (tmp_path / "ulvm").mkdir()
    (tmp_path / "ulvm" / "__init__.py").write_text("open('ran', 'w')\nraise SystemExit\n")
    program = [sys.executable, "-P", "-m", "ulvm.cli.start"]
    words = ["lvconvert", "--background", "--merge", "vg/s"]
    subprocess.run([*program, *words], cwd=tmp_path, env=host.env, check=True)
    until(lambda: not host.attempt("lvs vg/s").stdout)
    assert not (tmp_path / "ran").exists()
