"""The package as it is installed: manual pages and completion are part of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from ulvm.cli.installed import shared_files

ROOT = Path(__file__).parents[2]


def test_the_wheel_installs_pages_and_completion(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    generated = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", sources / "src", ignore=generated)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", tmp_path, sources],
        check=True,
        capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        installed = {
            Path(name.partition(".data/data/")[2]): archive.read(name).decode()
            for name in archive.namelist()
            if ".data/data/" in name
        }
    assert installed == shared_files()


def test_no_library_may_be_older_than_the_one_that_is_needed() -> None:
    """Before 8.4 click's ParamType takes no parameter; before 3.1 mfusepy cannot be told which
    libfuse to take, and where there are two it takes the old one."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())
    libraries = {
        "click>=8.4",
        "rich>=13",
        "mfusepy>=3.1",
        "numpy>=1.26",
        "xxhash>=3",
        "zstandard>=0.22",
    }
    assert set(wanted["project"]["dependencies"]) == libraries
    assert set(wanted["build-system"]["requires"]) - libraries == {"setuptools>=65"}
