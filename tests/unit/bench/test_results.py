"""What is made of measurements: medians, ratios, verdicts, the file, the document, the pictures."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench.model import Goal, Report, RowResult, Sample, turns
from bench.report import goals_text, main, row_text, write_document


def _samples(*values: float) -> list[Sample]:
    return [Sample(value, 0.5, 0.25) for value in values]


def _rate(goals: tuple[Goal, ...] = ()) -> RowResult:
    samples = {
        "ulvm": _samples(90, 300, 120),
        "nbdkit file": _samples(100, 99, 101),
        "qemu & co": _samples(60, 50, 70),
    }
    return RowResult("read-x", "random read", "IOPS", True, samples, goals)


def _time(*goals: Goal) -> RowResult:
    samples = {"ulvm": _samples(0.1, 0.2, 0.3), "kernel": _samples(1, 1, 1)}
    return RowResult("start-up", "start", "s", False, samples, goals)


def test_a_contestant_is_its_median_and_a_ratio_is_of_medians() -> None:
    row = _rate()
    assert row.median("ulvm") == 120
    assert row.ratio(Goal("", 1.0, True, ("nbdkit file",))) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("row", "goal", "reached"),
    [
        (_rate(), Goal("", 1.2, True, ("nbdkit file",)), True),
        (_rate(), Goal("", 1.21, True, ("nbdkit file",)), False),
        (_rate(), Goal("the better of two", 1.21, True, ("qemu & co", "nbdkit file")), False),
        (_rate(), Goal("", 2.0, True, ("qemu & co",)), True),
        (_rate(), Goal("", 2.0, True, ("not measured",)), None),
        (_time(), Goal("", 0.2, False), True),
        (_time(), Goal("", 0.19, False), False),
        (_time(), Goal("", 0.2, False, ("kernel",)), True),
        (_time(), Goal("", 0.1, False, ("kernel",)), False),
    ],
)
def test_goals(row: RowResult, goal: Goal, reached: bool | None) -> None:
    assert row.reached(goal) is reached


def test_every_contestant_has_its_turn_in_every_round_and_each_is_first_once() -> None:
    order: list[str] = []

    def trial(name: str) -> Sample:
        order.append(name)
        return Sample(len(order))

    found = turns(3, {name: lambda name=name: trial(name) for name in "abc"}, lambda _: None)
    assert "".join(order) == "abcbcacab"
    assert [sample.value for sample in found["a"]] == [1, 6, 8]


def _report() -> Report:
    goals = (Goal("1.2 x nbdkit file", 1.2, True, ("nbdkit file",)),)
    missed = Goal("at most 100 ms", 0.1, False)
    return Report(
        {"kernel": "6.1"},
        {"rounds": 3, "seconds": 2.0, "size": 512},
        [_rate(goals), _time(missed)],
        {"first-x": "not installed: qemu-nbd"},
    )


def test_a_report_is_the_same_from_its_file(tmp_path: Path) -> None:
    _report().save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json") == _report()


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="format 0, expected 1"):
        Report.load(tmp_path / "r.json")


def test_the_terminal_is_told_of_what_was_reached() -> None:
    text = goals_text(_report())
    assert "1 of 2 reached" in text
    assert [line.split()[-2:] for line in text.splitlines()[1:]] == [
        ["x", "reached"],
        ["not", "reached"],
    ]
    assert "1.20 x" in row_text(_rate())


def test_the_document_keeps_what_stands_around_the_results(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("# Before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nAfter\n")
    _report().save(tmp_path / "r.json")
    for _ in range(2):  # The second time it replaces its own.
        assert main([str(tmp_path / "r.json"), str(document)]) == 0
    text = document.read_text()
    assert text.startswith("# Before\n<!-- measured: begin -->\n")
    assert text.endswith("\n<!-- measured: end -->\nAfter\n")
    assert "old" not in text
    assert text.count("### Goals") == 1
    assert "| random read | 1.2 x nbdkit file | at least 1.2 x | 1.20 x | reached |" in text
    assert "| start | at most 100 ms | at most 0.1 s | 0.200 s | **not reached** |" in text
    assert "| random read (`read-x`) | ulvm | 120 (90 to 300) | IOPS |  | 50 % / 25 % |" in text
    assert "first-x, not installed: qemu-nbd" in text


def test_a_picture_has_a_bar_for_every_contestant_each_group_on_its_own_scale(
    tmp_path: Path,
) -> None:
    document = tmp_path / "performance.md"
    document.write_text("<!-- measured: begin --><!-- measured: end -->")
    write_document(_report(), document)
    picture = ElementTree.parse(tmp_path / "performance" / "read.svg").getroot()
    rectangles = [one for one in picture.iter() if one.tag.endswith("rect")]
    widths = [float(one.attrib["width"]) for one in rectangles]
    assert [one.attrib["class"] for one in rectangles] == ["ours", "peer", "peer"]
    assert widths[0] / widths[1] == pytest.approx(1.2, rel=0.01)
    texts = [one.text for one in picture.iter() if one.tag.endswith("text")]
    assert "qemu & co" in texts
    assert all(float(one.attrib["x2"]) <= 860 for one in picture.iter() if "x2" in one.attrib)


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("# Before\n")
    with pytest.raises(ValueError, match="lacks the lines"):
        write_document(_report(), document)
    assert document.read_text() == "# Before\n"
