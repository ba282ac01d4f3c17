"""A host as scripts see it that know LVM alone: the command links first in PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.host import UlvmHost

__all__ = ["ScriptHost", "unpacked"]

_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "debian"


class ScriptHost:
    """`env` is what a script is started with."""

    def __init__(self, host: UlvmHost) -> None:
        self.host = host
        links = host.base / "links"
        host.run(f"links {links}")
        home = host.base / "home"
        home.mkdir()
        self.env = {
            **host.env,
            "PATH": f"{links}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": str(home),
        }

    def attempt(
        self, *argv: object, input: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in argv],
            cwd=self.host.base,
            env={**self.env, **(env or {})},
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(
        self, *argv: object, input: str | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Its standard output; it must succeed."""
        done = self.attempt(*argv, input=input, env=env)
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def unpacked(package: str, members: Sequence[str] = (".",)) -> Path:
    """Where these files of a Debian package lie, as below /; fetched once and never installed."""
    folder = _CACHE / package
    if not folder.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch", dir=_CACHE) as name:
            work = Path(name)
            fetch = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
            subprocess.run(fetch, cwd=work, check=True, stdout=subprocess.DEVNULL)
            (deb,) = work.glob("*.deb")
            data = subprocess.run(
                ["dpkg-deb", "--fsys-tarfile", deb], check=True, stdout=subprocess.PIPE
            ).stdout
            fresh = work / "fresh"
            fresh.mkdir()
            subprocess.run(["tar", "-x", "-C", fresh, *members], input=data, check=True)
            if not folder.exists():
                shutil.move(fresh, folder)
    return folder
