"""How snapshots are extended."""

from __future__ import annotations

from pathlib import Path

import pytest

from ulvm.vgstore.config import Config
from ulvm.vgstore.host import Host
from ulvm.vgstore.policy import PolicyFile, SnapshotPolicy


def test_snapshots_are_extended_by_default() -> None:
    policy = SnapshotPolicy.of(Config())
    assert not policy.wants(70.0)
    assert policy.wants(70.01)
    assert policy.wanted(100, 71.0) == 120


@pytest.mark.parametrize(
    ("set_to", "full", "wants"),
    [(50, 50.5, True), (10, 49.0, False), (10, 50.5, True), (99, 99.5, True), (100, 99.9, False)],
)
def test_the_threshold_lies_between_50_and_never(set_to: int, full: float, wants: bool) -> None:
    config = Config().with_overrides(f"activation/snapshot_autoextend_threshold={set_to}")
    assert SnapshotPolicy.of(config).wants(full) is wants


def test_it_grows_below_the_threshold_at_once() -> None:
    policy = SnapshotPolicy(threshold=50, percent=10)
    assert policy.wanted(100, 98.0) == 196
    assert policy.wanted(3, 51.0) == 4


def test_settings_are_read_anew_and_those_that_cannot_be_leave_the_last(tmp_path: Path) -> None:
    host = Host(tmp_path, tmp_path / "run")
    reader = PolicyFile(host)
    assert reader.policy() == SnapshotPolicy()
    conf = tmp_path / "ulvm.conf"
    conf.write_text("activation { snapshot_autoextend_threshold = 55 }")
    assert reader.policy() == SnapshotPolicy(55, 20)
    conf.write_text("activation { snapshot_autoextend_threshold = ")
    assert reader.policy() == SnapshotPolicy(55, 20)
    conf.unlink()
    assert reader.policy() == SnapshotPolicy()
