"""The runner for ulvm: `python ours.py JOB FOLDER`, in mount and UTS namespaces of its own.

/dev is a small file system of its own with the disks as loop devices on sparse files in FOLDER, so
that paths, and with them the widths of columns, are those of the virtual machine; the caller
detaches the loop devices. A command is a fork of a process that has
ulvm's modules loaded: what takes time is the start of an interpreter, and is judged elsewhere. The
host is nameless, as the virtual machine is.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import pkgutil
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(sys.argv[2])
sys.path.insert(0, str(Path(__file__).parent))

import runner  # noqa: E402

_LOOP_MAJOR = 7
_LOOP_CTL_GET_FREE = 0x4C82  # linux/loop.h
_NODES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "loop-control")


class Ulvm(runner.Runner):
    """Types to ulvm; every script has a host of its own."""

    def __init__(self, disks: dict[str, int]) -> None:
        super().__init__(disks)
        socket.sethostname("(none)")
        own_dev()
        self.loops = {name: attach(name, size) for name, size in disks.items()}
        self.number = 0
        for module in pkgutil.walk_packages(importlib.import_module("ulvm").__path__, "ulvm."):
            if not module.name.startswith("ulvm.daemon.service"):
                importlib.import_module(module.name)

    def start(self) -> None:
        self.number += 1
        base = FOLDER / str(self.number)
        os.makedirs(base / "etc")
        self.config = str(base / "etc" / "ulvm.conf")
        self.archive = str(base / "etc" / "archive")
        self.backup = str(base / "etc" / "backup")
        self.dev = base / "run" / "dev"
        os.environ["ULVM_SYSTEM_DIR"] = str(base / "etc")
        os.environ["ULVM_RUN_DIR"] = str(base / "run")
        super().start()

    def stop(self) -> None:
        for name in list(self.held):
            self.do_close(name)
        for name in list(self.away):
            self.do_show(name)
        rc, out, err = self.command(["ulvm", "daemon", "stop", "--force"], {}, None)
        if rc:
            raise SystemExit(f"the daemon does not stop: {out}{err}")
        shutil.rmtree(FOLDER / str(self.number))

    def become(self, words: list[str]) -> None:
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = list(words)
        main = importlib.import_module("ulvm.cli.main").main
        status = main()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def volume(self, name: str) -> str:
        return str(self.dev / name)

    def disk(self, name: str) -> str:
        return self.loops[name]

    def do_hide(self, disk: str) -> None:
        subprocess.run(["umount", f"/dev/{disk}"], check=True)
        os.unlink(f"/dev/{disk}")
        self.away.add(disk)

    def do_show(self, disk: str) -> None:
        bind(self.loops[disk], Path("/dev") / disk)
        self.away.discard(disk)


def own_dev() -> None:
    """Make /dev a file system of this process and its children alone."""
    dev = FOLDER / "dev"
    dev.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", dev], check=True)
    for node in [*_NODES, *(path.name for path in Path("/dev").glob("loop[0-9]*"))]:
        if os.path.exists(f"/dev/{node}"):
            bind(f"/dev/{node}", dev / node)
    subprocess.run(["mount", "--rbind", dev, "/dev"], check=True)


def make_free_node() -> None:
    """The kernel makes a loop device when all are taken, but no node of it in this /dev."""
    with open("/dev/loop-control", "rb") as control:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    with contextlib.suppress(FileExistsError):
        os.mknod(f"/dev/loop{number}", stat.S_IFBLK | 0o600, os.makedev(_LOOP_MAJOR, number))


def attach(name: str, size: int) -> str:
    """A loop device on a new image, under the name of a disk; the path of another node of it."""
    image = FOLDER / name
    with image.open("xb") as file:
        file.truncate(size)
    # Others may take the device that was found free.
    for tries in range(20):
        make_free_node()
        done = subprocess.run(
            ["losetup", "--find", "--show", image], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode == 0:
            break
        time.sleep(0.1 * tries)
    done.check_returncode()
    loop = done.stdout.strip()
    own = FOLDER / f"{name}.node"
    os.mknod(own, stat.S_IFBLK | 0o600, os.stat(loop).st_rdev)
    bind(str(own), Path("/dev") / name)
    return str(own)


def bind(source: str, target: Path) -> None:
    target.touch()
    subprocess.run(["mount", "--bind", source, target], check=True)


runner.run(Ulvm, sys.argv[1])
