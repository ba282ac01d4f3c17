"""A host with two disks of 128 MiB, /dev/vda and /dev/vdb, on which recordings are replayed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.host import UlvmHost
from ulvm.blockdev.nbd import NbdDevice

__all__ = ["MIB", "Machine", "wait_closed", "wait_merged"]

MIB = 1 << 20
RECORDINGS = Path(__file__).with_name("recordings")


class Machine:
    """A host with two disks, and the lines that it prints."""

    def __init__(self, host: UlvmHost) -> None:
        self.host = host
        self.disks = {}
        for name in ("vda", "vdb"):
            image = host.base / f"{name}.img"
            with image.open("wb") as file:
                file.truncate(128 * MIB)
            self.disks[f"/dev/{name}"] = str(image)

    @classmethod
    def with_group(cls, host: UlvmHost) -> Machine:
        """With the volume group vg over both disks."""
        made = cls(host)
        made.ok("pvcreate /dev/vda /dev/vdb")
        made.ok("vgcreate vg /dev/vda /dev/vdb")
        return made

    def typed(self, line: str, answer: str = "") -> tuple[str, int]:
        """What a command prints in all, with the disks' names put back, and its exit code."""
        words = [self.disks.get(word, word) for word in shlex.split(line)]
        done = subprocess.run(
            [sys.executable, "-m", "ulvm.cli.start", *words],
            env=self.host.env,
            input=answer,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        text = done.stdout
        for name, image in self.disks.items():
            text = text.replace(image, name)
        return text, done.returncode

    def ok(self, line: str) -> str:
        text, status = self.typed(line)
        assert status == 0, f"{line}\n{text}"
        return text

    def device(self, volume: str) -> NbdDevice:
        return NbdDevice(str(self.host.run_dir / "nbd.sock"), volume)

    def write(self, volume: str, offset: int, data: bytes) -> None:
        device = self.device(volume)
        try:
            device.write(offset, data)
            device.flush()
        finally:
            device.close()

    def read(self, volume: str, offset: int, length: int) -> bytes:
        device = self.device(volume)
        try:
            return device.read(offset, length)
        finally:
            device.close()

    def disk(self, *names: str) -> tuple[bytes, ...]:
        """The PVs up to their first extent: labels and metadata areas."""
        return tuple(_start(self.disks[name]) for name in names or self.disks)

    def replay(self, name: str, *, alone: bool = True) -> None:
        """`alone` unless one of several things that a command was to do may have succeeded."""
        lines = iter((RECORDINGS / f"{name}.txt").read_text().splitlines())
        for line in lines:
            if line.startswith("! write "):
                volume, count = line.split()[2:]
                self.write(volume, 0, os.urandom(int(count)))
                continue
            assert line.startswith("# "), line
            expected = []
            for out in lines:
                if out.startswith("rc="):
                    break
                expected.append(out.rstrip())
            before = self.disk()
            text, status = self.typed(line[2:])
            printed = [out.rstrip() for out in text.splitlines()]
            assert (printed, f"rc={status}") == (expected, out), line
            if alone and status:
                assert self.disk() == before, f"{line}: refused, and yet something changed"


def _start(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MIB)


def wait_closed(machine: Machine, volume: str) -> None:
    """Until the server has seen that a client closed its connection."""
    for _ in range(100):
        if not re.search(r"^..i..o", machine.ok(f"lvs --noheadings -o lv_attr {volume}").strip()):
            return
        time.sleep(0.05)
    pytest.fail(f"{volume} stays open")


def wait_merged(machine: Machine, origin: str) -> None:
    """Until nothing is merged into the origin, and it goes on: that comes after the commit."""
    for _ in range(200):
        attributes = machine.ok(f"lvs --noheadings -o lv_attr vg/{origin}").strip()
        if attributes[0] != "O" and attributes[4] != "s":
            return
        time.sleep(0.1)
    pytest.fail(f"the merge into {origin} does not end")
