"""What is advised of what was measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ulvm.lvm import advise
from ulvm.lvm.advise import Advice, measure_changes
from ulvm.metadata import edit
from ulvm.metadata.cow import check_chunk_size, check_cow_size
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.uuid import new_uuid

KIB = 1 << 10


def group(extent_size: int, extents: int) -> VolumeGroup:
    """With a volume `lv` of all its extents."""
    vg = edit.new_vg("vg", uuid=new_uuid(), extent_size=extent_size)
    size = 2048 + extents * extent_size
    vg = edit.add_pv(vg, PhysicalVolume(new_uuid(), "/pv", size, 2048, extents))
    return edit.add_linear(vg, "lv", extents, uuid=new_uuid(), now=1, host="h")


def advised(
    monkeypatch: pytest.MonkeyPatch,
    vg: VolumeGroup,
    sizes: list[int],
    slot: dict[int, int],
    *,
    interrupted_at: float = 1e9,
) -> Advice:
    """Of 100 s, in each slot of which the same is measured; the clock stands but for sleeping."""
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        clock.now = min(clock.now + seconds, interrupted_at)
        if clock.now >= interrupted_at:
            raise KeyboardInterrupt

    time: Any = SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    monkeypatch.setattr(advise, "time", time)
    monkeypatch.setattr(advise.lvm_lv, "states", lambda session, vg: {"lv": None})
    dm = SimpleNamespace(measure=lambda name: sizes, measure_slot=lambda: [slot] * len(sizes))
    session: Any = SimpleNamespace(find_vg=lambda name: vg, dm=dm)
    return measure_changes(session, "vg", "lv", lifetime=100, measure=100)


def test_what_is_advised_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vg = group(2048, 64)
    found = advised(monkeypatch, vg, [4 * KIB << shift for shift in range(8)], {})
    for chunk in found.chunks:
        for extents in (chunk.expected, chunk.in_95, chunk.in_99):
            check_cow_size(vg, extents, chunk.chunk_size // 512)


def test_larger_parts_than_a_chunk_may_have_are_taken_for_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vg = group(1 << 21, 200 << 10)  # 200 TiB
    found = advised(monkeypatch, vg, [1024 * KIB], {1: 5})
    check_chunk_size(found.best.chunk_size // 512)
    assert found.best.expected >= 1
    once = advised(monkeypatch, vg, [1024 * KIB], {0: 5})
    assert once.changed_bytes(once.measured) == pytest.approx(120 * 5 * 1024 * KIB)


def test_an_interrupt_counts_no_time_in_which_nothing_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slot = 100 / 120
    found = advised(monkeypatch, group(8192, 64), [4 * KIB], {1: 5}, interrupted_at=20.9 * slot)
    assert found.slots == 20
    assert found.measured == pytest.approx(20 * slot)
