"""Standard streams that are closed, full or without a reader: the work is done, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = f"{sys.executable} -m ulvm.cli.start"


def _sh(tmp_path: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("ulvm", PROGRAM)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        env={
            **os.environ,
            "ULVM_SYSTEM_DIR": str(tmp_path / "etc"),
            "ULVM_RUN_DIR": str(tmp_path / "run"),
        },
    )


def _image(tmp_path: Path) -> Path:
    image = tmp_path / "a.img"
    image.touch()
    os.truncate(image, 8 << 20)
    return image


@pytest.mark.parametrize(
    ("line", "rc", "said"),
    [
        ("ulvm formats >&-", 0, ""),
        ("ulvm formats >&- 2>&- <&-", 0, ""),
        ("ulvm formats >/dev/full", 5, "  Standard output: No space left on device\n"),
        ("ulvm lvs nosuch 2>/dev/full", 5, ""),
        ("ulvm lvs nosuch 2>&-", 5, ""),
        ("ulvm <&-", 0, ""),
    ],
)
def test_streams_that_are_closed_or_full(tmp_path: Path, line: str, rc: int, said: str) -> None:
    done = _sh(tmp_path, line)
    assert (done.returncode, done.stderr) == (rc, said)
    assert done.stdout.strip() == ""


def test_work_that_is_done_is_no_failure_though_nobody_hears_of_it(tmp_path: Path) -> None:
    image = _image(tmp_path)
    done = _sh(tmp_path, f"ulvm vgcreate vg {image} >/dev/full")
    assert (done.returncode, done.stderr) == (0, "  Standard output: No space left on device\n")
    assert "vg" in _sh(tmp_path, "ulvm vgs --noheadings").stdout


def test_a_file_opened_first_is_not_standard_output(tmp_path: Path) -> None:
    """With 1 closed, a program that opens a disk would write its words there."""
    image = _image(tmp_path)
    assert _sh(tmp_path, f"ulvm vgcreate vg {image} >&-").returncode == 0
    assert b"successfully" not in image.read_bytes()


def test_bytes_that_are_no_text_leave_as_they_came(tmp_path: Path) -> None:
    done = _sh(tmp_path, r"ulvm lvs $'\xff\xfe'")
    assert done.returncode == 5
    assert 'name "\udcff\udcfe" has invalid' in done.stderr
    done = _sh(tmp_path, "PYTHONUTF8=0 PYTHONIOENCODING=ascii ulvm lvs ü")
    assert "Internal" not in done.stderr


@pytest.mark.parametrize("question", ["<&-", "</dev/null"])
def test_no_answer_is_no(tmp_path: Path, question: str) -> None:
    image = _image(tmp_path)
    assert _sh(tmp_path, f"ulvm vgcreate vg {image} && ulvm lvcreate -an -l1 vg").returncode == 0
    done = _sh(tmp_path, f"ulvm vgremove vg {question}")
    assert done.returncode == 5
    assert done.stderr.startswith("Do you really want to remove volume group")
