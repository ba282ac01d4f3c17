"""The table of rows: names, goals, and what fio is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.__main__ import QUICK, ROWS, main
from bench.bed import MIB
from bench.fio import Load
from bench.guest import KERNEL
from bench.rows import LOADS
from bench.stores import write_store

from ulvm.dm.mapper import LocalMapper
from ulvm.dm_ioctl import TableLine


def test_names_are_there_once() -> None:
    names = [row.name for row in ROWS]
    assert sorted(set(names)) == sorted(names)
    assert set(QUICK) <= set(names)


def test_goals_name_contestants_of_their_row() -> None:
    for row in LOADS:
        labels = {one.label for one in row.contestants}
        assert len(labels) == len(row.contestants), row.name
        assert set(row.loads) <= labels
        for goal in row.goals:
            assert set(goal.of) <= labels - {row.contestants[0].label}, row.name
    judged = {goal.of for row in ROWS for goal in row.goals if row.name.startswith("slow-down")}
    assert judged == {(KERNEL,)}


def test_first_writes_touch_no_block_twice_and_each_client_has_its_part() -> None:
    words = Load("randwrite", once=True, clients=4, span=64 * MIB).arguments(512 * MIB, 2)
    assert "--size=16777216" in words
    assert "--offset_increment=16777216" in words
    assert "--time_based" not in words
    assert "--norandommap" not in words


def test_a_load_for_a_time_lasts_it() -> None:
    words = Load("randread", span=1 << 40).arguments(512 * MIB, 2)
    assert {"--size=536870912", "--time_based", "--runtime=2000ms", "--norandommap"} <= set(words)


@pytest.mark.parametrize("words", [["--rows", "nothing-is-named-so"], ["--rows", ""]])
def test_no_row_of_that_name(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "no row is named" in capsys.readouterr().err


def test_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--rows", "backup"]) == 0
    assert capsys.readouterr().out.split() == ["backup", "backup", "of", "a", "volume"]


def test_the_store_that_is_activated_has_its_exceptions(tmp_path: Path) -> None:
    count, chunks = 1000, 2000
    origin, cow = tmp_path / "origin", tmp_path / "cow"
    for path, size in ((origin, chunks * 4096), (cow, 8 * MIB)):
        with path.open("xb") as file:
            file.truncate(size)
    write_store(cow, 0, count)
    mapper = LocalMapper()
    mapper.create("snap")
    mapper.load("snap", [TableLine(0, chunks * 8, "snapshot", f"{origin} {cow} P 8")])
    mapper.resume("snap")
    # 1,000 data chunks; the header and four metadata areas of 256 records, the last one begun.
    assert mapper.status("snap")[0].params.startswith(f"{(1000 + 5) * 8}/")
    mapper.shutdown()
