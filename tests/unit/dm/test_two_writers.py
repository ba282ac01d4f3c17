"""Two devices that write to one origin, and come and go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.dm.stage_lab import SECTORS, StageLab, killed
from ulvm.dm.device import MappedDevice
from ulvm.dm.stage_file import PAGE
from ulvm.dm.table import parse_table


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[StageLab]:
    (tmp_path / "first").mkdir()
    lab = StageLab(tmp_path / "first", kept=True)
    yield lab
    lab.dm.shutdown()


def test_a_device_that_begins_while_another_ends_over_one_origin(
    kept: StageLab, tmp_path: Path
) -> None:
    """It has a stage, and that is its own: the file of the other one goes with that."""
    kept.pair()
    table = f"0 {SECTORS} snapshot-origin {kept.folder}/origin"
    kept.dm.create("org2")
    kept.dm.load("org2", parse_table(table))
    second = threading.Thread(target=kept.dm.resume, args=("org2",))

    class Ends(list[MappedDevice]):
        def remove(self, writer: MappedDevice) -> None:
            super().remove(writer)
            if not second.ident:
                second.start()
                second.join(0.3)

    origin = kept.dm.mapped("org").targets[0]._origin  # type: ignore[attr-defined]
    origin._writers = Ends(origin._writers)
    kept.dm.remove("org")
    second.join()
    kept.still("org2")
    kept.dm.mapped("org2").write(0, b"\x22" * PAGE)
    again = killed(kept, tmp_path / "second")
    assert again.read("org2", 0, 8) == b"\x22" * PAGE
    again.dm.shutdown()


def test_a_device_that_could_not_begin_leaves_no_stage(kept: StageLab, tmp_path: Path) -> None:
    """What the next one writes would be in its file."""

    class Full(list[MappedDevice]):
        def append(self, writer: MappedDevice) -> None:
            raise MemoryError

    kept.pair()
    origin = kept.dm.mapped("org").targets[0]._origin  # type: ignore[attr-defined]
    kept.dm.remove("org")
    origin._writers = Full()
    table = f"0 {SECTORS} snapshot-origin {kept.folder}/origin"
    kept.dm.create("org")
    kept.dm.load("org", parse_table(table))
    with suppress(MemoryError):
        kept.dm.resume("org")
    origin._writers = list(origin._writers)
    kept.device("org2", table)
    kept.dm.mapped("org2").write(0, b"\x22" * PAGE)
    kept.dm.remove("org")
    again = killed(kept, tmp_path / "second")
    assert again.read("org2", 0, 8) == b"\x22" * PAGE
    again.dm.shutdown()


@pytest.mark.parametrize(
    "kind", ["snapshot-origin {0}/origin", "snapshot-merge {0}/origin {0}/x P 8"]
)
def test_a_device_that_is_suspended_is_not_the_writer_any_more_and_no_other(
    kept: StageLab, kind: str
) -> None:
    """A snapshot that comes has to know of that."""
    kept.file("x", 4096)
    kept.pair()
    kept.dm.remove("org")
    kept.device("first", f"0 {SECTORS} {kind.format(kept.folder)}")
    kept.device("org", f"0 {SECTORS} snapshot-origin {kept.folder}/origin")
    origin = kept.dm.mapped("org").targets[0]._origin  # type: ignore[attr-defined]
    for name, writer in (("first", kept.dm.mapped("org")), ("org", None)):
        kept.dm.suspend(name)
        assert origin.writer is writer
