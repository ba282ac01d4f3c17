import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.dm.lab import Lab
from tests.unit.dm.stage_lab import StageLab


@pytest.fixture(params=[0, 1 << 16], ids=["", "staged"])
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = Lab(tmp_path, stage=request.param)
    yield lab
    lab.dm.shutdown()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[StageLab]:
    """An origin with a snapshot, whose stage commits when it is asked to."""
    lab = StageLab(tmp_path)
    lab.pair()
    lab.still()
    yield lab
    lab.dm.shutdown()


@pytest.fixture(params=[RuntimeError("can't start new thread"), MemoryError()], ids=repr)
def no_threads(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> pytest.MonkeyPatch:
    """Until it is undone no more threads are to be had."""

    def refuse(_: threading.Thread) -> None:
        raise request.param

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch
