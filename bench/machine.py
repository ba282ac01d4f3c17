"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

from bench.bed import Bed
from ulvm import __version__

__all__ = ["describe", "source"]

_VERSIONS = {
    "nbdkit": "nbdkit --version",
    "qemu-nbd": "qemu-nbd --version",
    "nbd-server": "nbd-server -V",
    "nbdfuse": "nbdfuse --version",
    "zstd": "zstd --version",
    "fio": "fio --version",
}


def describe(bed: Bed) -> dict[str, str]:
    """What a reader must know to make sense of the numbers; nothing that names the machine."""
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "ulvm": source(),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file system": _said(f"stat -f -c %T {bed.directory}"),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
    if shutil.which("fio"):
        found["flush"] = f"{bed.flush_seconds() * 1000:.3f} ms"
    for name, command in _VERSIONS.items():
        if shutil.which(name):
            version = re.search(r"\d+(\.\d+)+", _said(command))
            found[name] = version[0] if version else "?"
    return found


def source() -> str:
    """The commit that is measured, or the version where there is no repository."""
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    if shutil.which("git") is None:
        return __version__
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else __version__


def _processor() -> str:
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return names[0] if names else platform.machine()


def _said(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()
