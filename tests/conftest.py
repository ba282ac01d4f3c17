"""Fixtures for all tests, and a watch over what they leave behind."""

from __future__ import annotations

import compileall
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import effort, needs

_TOKEN_NAME = "ULVM_TEST_RUN"
_TOKEN = str(uuid.uuid4())
"""In the environment of all that this run starts: what is ours among what runs on the machine."""

_SOURCE = Path(__file__).resolve().parents[1] / "src"

# No test is timed: a busy machine is slow.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{needs.MISSING}(reason): fails for want of something")
    if not hasattr(config, "workerinput"):
        # Where Python may not write bytecode, each command of a test would compile itself anew.
        compileall.compile_dir(_SOURCE, quiet=2)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers(needs.MISSING):
        pytest.fail(f"with CI=true nothing may be missing: {mark.kwargs['reason']}", pytrace=False)


def pytest_report_header() -> str:
    return f"ULVM_SEED={effort.SEED}{' ULVM_LONG=1' if effort.LONG else ''}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # One of several workers.
        session.config.workeroutput["counts"] = effort.counts()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for what, number in node.workeroutput.get("counts", {}).items():
        effort.tally(what, number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in effort.tallies():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def short_base() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="ulvm", dir="/tmp"))
    yield base
    base.rmdir()


@pytest.fixture
def short_tmp(short_base: Path) -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket in it (108 bytes)."""
    directory = Path(tempfile.mkdtemp(dir=short_base))
    yield directory
    shutil.rmtree(directory)


def _loops() -> Iterator[tuple[str, str]]:
    """(what, path of its file) of all loop devices in use."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            path = backing.read_text().strip()
        except OSError:  # Detached since the directory was read.
            continue
        yield f"/dev/{backing.parts[3]} on {path}", path


def _mounts() -> Iterator[tuple[str, str]]:
    """(what, where) of all mounts."""
    for line in Path("/proc/self/mounts").read_bytes().split(b"\n")[:-1]:
        _, where, kind, *_ = os.fsdecode(line).split(" ")
        yield f"mount of {kind} on {where}", where


def _processes() -> Iterator[str]:
    """What runs with the token of this run, but for this process."""
    token = f"{_TOKEN_NAME}={_TOKEN}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        if entry.name == str(os.getpid()):
            continue
        try:
            if token in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                yield f"process {entry.name}: {words}"
        except OSError:  # Ended since the directory was read, or another user's.
            continue


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind(
    tmp_path_factory: pytest.TempPathFactory, short_base: Path
) -> Iterator[None]:
    """No loop device, mount or process outlives the run that made it."""
    os.environ[_TOKEN_NAME] = _TOKEN
    yield
    bases = (str(short_base), str(tmp_path_factory.getbasetemp()))
    left = [what for what, path in (*_loops(), *_mounts()) if path.startswith(bases)]
    left += _processes()
    assert not left, f"left behind: {'; '.join(left)}"
