"""Mounting a snapshot for a program: nothing stays mounted, whenever a signal comes."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests import needs
from ulvm.backup.interrupts import Interrupted, interruptible
from ulvm.backup.sinks import mounted as module
from ulvm.backup.sinks.mounted import mount_directory, mounted
from ulvm.mounts import MountedVolume, mount_at, mount_volume
from ulvm.vgstore.host import Host

pytestmark = [needs.root, needs.loop, needs.program("mkfs.ext4")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("xb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


def test_a_signal_while_it_is_mounted(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mount_and_signal(path: Path, directory: Path, *, read_only: bool) -> MountedVolume:
        made = mount_volume(path, directory, read_only=read_only)
        signal.raise_signal(signal.SIGTERM)
        return made

    monkeypatch.setattr(module, "mount_volume", mount_and_signal)
    host = Host(tmp_path / "etc", tmp_path / "run")
    directory = mount_directory(host, "vg", "s")
    with (
        pytest.raises(Interrupted),
        interruptible(),
        mounted(host, "vg", "s", image, lambda text: None),
    ):
        pytest.fail("the block runs")
    assert mount_at(directory) is None
    assert not directory.exists()
