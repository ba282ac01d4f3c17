"""The runner for ulvm: `python ours.py JOB FOLDER`, in a mount namespace of its own.

/dev is a small file system of its own with the disks as loop devices on sparse files in FOLDER, so
that paths, and with them the widths of columns, are those of the virtual machine; the caller
detaches the loop devices. A command is a fork of a process that has
ulvm's modules loaded: what takes time is the start of an interpreter, and is judged elsewhere.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.argv[2])
sys.path.insert(0, str(Path(__file__).parent))

import runner  # noqa: E402

_NODES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "loop-control")


class Ulvm(runner.Runner):
    """Types to ulvm; every script has a host of its own."""

    def __init__(self, disks: dict[str, int]) -> None:
        super().__init__(disks)
        own_dev(disks)
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


def own_dev(disks: dict[str, int]) -> None:
    """Make /dev a file system of this process and its children alone."""
    dev = FOLDER / "dev"
    dev.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", dev], check=True)
    nodes = [*_NODES, *(f"loop{n}" for n in range(16))]
    for node in nodes:
        if os.path.exists(f"/dev/{node}"):
            (dev / node).touch()
            subprocess.run(["mount", "--bind", f"/dev/{node}", dev / node], check=True)
    images = FOLDER / "images"
    images.mkdir()
    for name, size in disks.items():
        with (images / name).open("xb") as file:
            file.truncate(size)
        (dev / name).touch()
        loop = subprocess.run(
            ["losetup", "--find", "--show", images / name],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()
        subprocess.run(["mount", "--bind", loop, dev / name], check=True)
    subprocess.run(["mount", "--rbind", dev, "/dev"], check=True)


runner.run(Ulvm, sys.argv[1])
