"""Which metadata areas are in use, and what stays of those that are not."""

from __future__ import annotations

from tests.unit.vgstore.lab import Lab
from ulvm.metadata import edit
from ulvm.vgstore.commit import prepare
from ulvm.vgstore.copies import areas_in_use
from ulvm.vgstore.pv import as_member


def used(lab: Lab, copies: int, ignore: dict[str, bool] | None = None) -> list[tuple[str, int]]:
    """(name of the PV, number of the area on it)."""
    chosen, _ = areas_in_use(lab.scan().pvs, copies, ignore or {})
    return [(pv.path[-1], pv.mdas.index(mda)) for pv, mda in chosen]


def test_first_areas_come_before_second_ones(lab: Lab) -> None:
    lab.vg(lab.pv("a", copies=2), lab.pv("b", copies=2))
    assert used(lab, 0) == used(lab, -1) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert used(lab, 1) == [("a", 0)]
    assert used(lab, 2) == [("a", 0), ("b", 0)]
    assert used(lab, 3) == [("a", 0), ("a", 1), ("b", 0)]
    assert used(lab, 9) == used(lab, 0)


def test_a_pv_that_is_ignored_is_replaced_where_the_number_asks_for_it(lab: Lab) -> None:
    vg = lab.vg(lab.pv("a"), lab.pv("b"))
    first = vg.pvs[0].uuid
    assert used(lab, 0, {first: True}) == [("b", 0)]
    assert used(lab, 1, {first: True}) == [("b", 0)]
    assert used(lab, 0, {pv.uuid: True for pv in vg.pvs}) == [("a", 0)]


def test_an_area_out_of_use_is_not_written_to_and_comes_back_whole(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    lab.vg(a, b)
    old = lab.scan().vg("vg")
    lab.prepare(old, old._replace(metadata_copies=1)).commit()
    before = lab.bytes_of(b)
    lab.change("x")
    assert lab.bytes_of(b) == before
    found = lab.scan()
    assert found.warnings == ()
    assert [mda.ignored for pv in found.pvs for mda in pv.mdas] == [False, True]
    old = found.vg("vg")
    lab.prepare(old, old._replace(metadata_copies=-1)).commit()
    found = lab.scan()
    assert found.vg("vg").metadata_copies == 0
    assert [mda.vg.seqno for pv in found.pvs for mda in pv.mdas if mda.vg] == [4, 4]


def test_a_pv_that_joins_is_out_of_use_when_there_are_enough(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    lab.vg(a)
    old = lab.scan().vg("vg")._replace(metadata_copies=1)
    scan = lab.scan()
    new = edit.add_pv(old, as_member(scan.pv(b), old.extent_size))
    prepare(lab.host, scan, old, new, command="vgextend").commit()
    found = lab.scan()
    assert [mda.ignored for pv in found.pvs for mda in pv.mdas] == [False, True]
    assert found.vg("vg").pv(found.pv(b).uuid) is not None
