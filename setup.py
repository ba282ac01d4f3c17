"""The parts of the build that pyproject.toml cannot say: manual pages and completion are made from
the commands themselves, and installed below the prefix."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MADE = Path("build") / "shared"


class BuildWithPages(build_py):
    """Writes what is shared before the package is put together, and has it installed as data."""

    def run(self) -> None:
        sys.path.insert(0, str(ROOT / "src"))
        from ulvm.cli.installed import shared_files

        # The list itself is filled: whoever installs may have taken it already.
        data_files = self.distribution.data_files
        for path, text in sorted(shared_files().items()):
            place = MADE / path
            (ROOT / place).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / place).write_text(text, encoding="utf-8")
            data_files.append((str(path.parent), [str(place)]))
        super().run()


setup(cmdclass={"build_py": BuildWithPages}, data_files=[])
