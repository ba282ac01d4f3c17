"""`ulvm demo` from end to end: it proves what it shows, and leaves nothing but its directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import needs


def start(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ulvm.cli.start", "demo", "--dir", str(directory), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def left(directory: Path) -> list[str]:
    """What of the machine still hangs on the directory: mounts and processes."""
    mounts = [x for x in Path("/proc/self/mounts").read_text().splitlines() if str(directory) in x]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory).encode() in (entry / "cmdline").read_bytes():
                mounts.append(f"process {entry.name}")
        except OSError:
            continue
    return mounts


def check(directory: Path, stdout: str) -> None:
    assert stdout.count("money 1,000,000") == 2
    assert "Writers waited" in stdout
    assert "✗ The live bank: money 66" in stdout  # a third is gone, and the writer goes on
    assert sorted(p.suffix for p in (directory / "backups").iterdir()) == [".json", ".zst"]
    assert left(directory) == []


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
def test_with_a_file_system(short_tmp: Path) -> None:
    directory, picture = short_tmp / "demo", short_tmp / "demo.svg"
    process = start(directory, "--svg", str(picture))
    stdout, stderr = process.communicate(timeout=200)
    assert (process.returncode, stderr) == (0, "")
    check(directory, stdout.replace("/var/tmp/ulvm-demo", str(directory)))
    assert "A SQLite database" in stdout
    assert "frozen:" in stdout
    svg = picture.read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert str(directory) not in svg
    assert "font-face" not in svg


def test_on_bare_blocks(short_tmp: Path) -> None:
    directory = short_tmp / "demo"
    process = start(directory, "--blocks")
    stdout, stderr = process.communicate(timeout=200)
    assert (process.returncode, stderr) == (0, "")
    check(directory, stdout)
    assert "runs on bare blocks" in stdout


MOMENTS = [
    ("  Physical volume", 0.0),
    ("$ ulvm vgcreate", 0.03),
    ("$ ulvm lvcreate -n", 0.2),
    ("$ ulvm backup", 0.3),
    ("$ ulvm verify", 0.1),
    ("$ ulvm restore", 0.2),
    ("$ ulvm lvconvert --merge", 0.05),
]
"""Seconds after a line that begins so."""


@pytest.mark.parametrize(("line", "after"), MOMENTS)
def test_an_interrupt_tidies_up(short_tmp: Path, line: str, after: float) -> None:
    interrupt(short_tmp / "demo", line, after, "--blocks")


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
@pytest.mark.parametrize(("line", "after"), MOMENTS)
def test_an_interrupt_unmounts(short_tmp: Path, line: str, after: float) -> None:
    interrupt(short_tmp / "demo", line, after)


def interrupt(directory: Path, line: str, after: float, *options: str) -> None:
    process = start(directory, *options)
    assert process.stdout is not None
    assert any(said.startswith(line) for said in process.stdout)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Interrupted" in stderr
    assert left(directory) == []


def test_a_directory_that_exists_is_left_alone(short_tmp: Path) -> None:
    (short_tmp / "mine").write_text("precious")
    process = start(short_tmp)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "File exists" in stderr
    assert [p.name for p in short_tmp.iterdir()] == ["mine"]
