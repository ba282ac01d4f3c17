"""The two ways in which the demonstration's bank lies on a volume, behind one interface."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

from ulvm.backup.interrupts import deferred
from ulvm.blockdev.nbd import NbdDevice
from ulvm.demo import blockbank, ledger
from ulvm.demo.host import DemoHost
from ulvm.demo.ledger import State
from ulvm.demo.progress import ProgressFile
from ulvm.errors import UlvmError

__all__ = ["Bank", "BlockBank", "FileSystemBank", "why_no_file_system"]

_PATIENCE_SECONDS = 60.0
_OLD_TRANSFERS = 60_000
"""About 60 MiB of history, so that there is something to copy."""


def why_no_file_system() -> str | None:
    """What is missing for the demonstration with ext4 and SQLite; None if nothing is."""
    if os.geteuid() != 0:
        return "not root, so nothing can be mounted"
    for what, path in (("FUSE", "/dev/fuse"), ("loop devices", "/dev/loop-control")):
        if not os.path.exists(path):
            return f"no {what} here ({path})"
    if shutil.which("mkfs.ext4") is None:
        return "no mkfs.ext4 here"
    return None


class Bank(ABC):
    """A bank on one volume, with at most one writer process."""

    def __init__(self, host: DemoHost) -> None:
        self.host = host
        self.progress = ProgressFile(host.base / "progress")
        self._writer: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def open(self, volume: str) -> str:
        """Make the bank; a sentence about it."""

    @abstractmethod
    def _writer_words(self, volume: str) -> list[str]: ...

    @abstractmethod
    def look(self, volume: str) -> State:
        """Stop using the volume afterwards; not while the writer runs."""

    @abstractmethod
    def accident(self, volume: str) -> str:
        """Spoil it; a sentence about how."""

    @abstractmethod
    def let_go(self, volume: str) -> None:
        """Stop using the volume (a mount ends)."""

    def start(self, volume: str) -> None:
        """Start the writer, wait for its first transfers."""
        before = self.progress.read().transfers
        words = self._writer_words(volume)
        with deferred():  # between the start and the note of it nothing may come
            self._writer = subprocess.Popen(
                [sys.executable, "-P", "-m", *words], start_new_session=True
            )
        self.wait_for(before + 50)

    def wait_for(self, transfers: int) -> None:
        """Until the writer has made so many in all; UlvmError if it ends or hangs."""
        assert self._writer is not None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.progress.read().transfers < transfers:
            if self._writer.poll() is not None:
                raise UlvmError(f"The writer ended with {self._writer.returncode}.")
            if time.monotonic() > deadline:
                raise UlvmError("The writer makes no progress.")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the writer; UlvmError if it failed. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.send_signal(signal.SIGTERM)
        try:
            status = writer.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            writer.kill()
            writer.wait()
            raise UlvmError("The writer hung and was killed.") from None
        if status:
            raise UlvmError(f"The writer failed with {status}.")


class FileSystemBank(Bank):
    """SQLite on ext4 on the volume, mounted by `ulvm mount`."""

    def __init__(self, host: DemoHost) -> None:
        super().__init__(host)
        self._mounted: dict[str, Path] = {}

    def _mount(self, volume: str) -> Path:
        """The database, mounting its volume if need be."""
        if volume not in self._mounted:
            directory = self.host.base / "mnt" / volume.replace("/", "-")
            directory.mkdir(parents=True, exist_ok=True)
            where = directory.relative_to(self.host.base)
            self._mounted[volume] = directory  # before, since an interrupt comes right after it
            self.host.ulvm(f"mount {volume} {where}")
        return self._mounted[volume] / "bank.db"

    def open(self, volume: str) -> str:
        self.host.shell(f"mkfs.ext4 -q {self.host.device(volume).relative_to(self.host.base)}")
        database = self._mount(volume)
        ledger.create(database, old_transfers=_OLD_TRANSFERS)
        return f"A SQLite database of {database.stat().st_size >> 20} MiB on ext4"

    def _writer_words(self, volume: str) -> list[str]:
        return ["ulvm.demo.ledger", str(self._mount(volume)), str(self.host.base / "progress")]

    def look(self, volume: str) -> State:
        return ledger.inspect(self._mount(volume))

    def accident(self, volume: str) -> str:
        hit = ledger.embezzle(self._mount(volume))
        return f"UPDATE account SET balance = 0 WHERE id % 3 = 0   -- {hit} rows"

    def let_go(self, volume: str) -> None:
        directory = self._mounted.pop(volume, None)
        if directory is not None and directory.is_mount():
            self.host.ulvm(f"umount {directory.relative_to(self.host.base)}")


class BlockBank(Bank):
    """The bank on bare blocks, over NBD; needs neither root nor FUSE."""

    def _device(self, volume: str) -> NbdDevice:
        return NbdDevice(self.host.socket, volume)

    def open(self, volume: str) -> str:
        device = self._device(volume)
        try:
            blockbank.create(device)
        finally:
            device.close()
        return "A bank on bare blocks, journalled, written over NBD"

    def _writer_words(self, volume: str) -> list[str]:
        progress = str(self.host.base / "progress")
        return ["ulvm.demo.blockbank", self.host.socket, volume, progress]

    def look(self, volume: str) -> State:
        device = self._device(volume)
        try:
            return blockbank.inspect(device)
        finally:
            device.close()

    def accident(self, volume: str) -> str:
        device = self._device(volume)
        try:
            return f"{blockbank.embezzle(device)} accounts overwritten with a balance of 0"
        finally:
            device.close()

    def let_go(self, volume: str) -> None:
        """Nothing is held between two uses."""
