"""A device that is being removed: nobody finds it, and it is there until all is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.dm.lab import Lab
from tests.unit.dm.stage_lab import SECTORS, StageLab, killed
from ulvm.dm.table import parse_table
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.dm.targets.zero import ZeroTarget
from ulvm.errors import BusyError, NotFoundError, TableError

NEW = b"\x11" * 4096


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[StageLab]:
    """Something is staged for `org`, whose number is 1."""
    lab = StageLab.staged(tmp_path)
    yield lab
    lab.dm.shutdown()


def removing(lab: StageLab, look: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove `org` with a `look` at each request to a disk, and when its stage is about to go."""
    stage = lab.stage("org")
    close = stage.close

    def closing() -> None:
        look()
        close()

    with monkeypatch.context() as patch:
        patch.setattr(stage, "close", closing)
        for disk in lab.faults.values():
            patch.setattr(disk, "look", look)
        lab.dm.remove("org")


def test_a_kill_in_the_midst_loses_nothing(
    kept: StageLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged: list[bool] = []

    def look() -> None:
        staged.append(kept.on_disk(0, 8) != NEW)
        again = killed(kept, tmp_path / f"again{len(staged)}")
        assert not staged[-1] or again.read("org", 0, 8) == NEW
        again.dm.shutdown()
        assert again.on_disk(0, 8) == NEW

    removing(kept, look, monkeypatch)
    assert len(staged) > 3
    assert (staged[0], staged[-1]) == (True, False)
    assert [entry["name"] for entry in kept.dm.snapshot_state()["devices"]] == ["snap"]


def test_what_comes_between_is_no_less(
    kept: StageLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was under way when the device was claimed."""
    org = kept.dm.mapped("org")
    states: list[bool] = []
    claim = org.claim_removal

    def claimed() -> bool:
        try:
            return claim()
        finally:
            org.write(4096, NEW)

    def look() -> None:
        if org.removed and kept.on_disk(8, 8) != NEW:
            again = killed(kept, tmp_path / f"again{len(states)}")
            states.append(again.read("org", 0, 16) == NEW * 2)
            again.dm.shutdown()

    monkeypatch.setattr(org, "claim_removal", claimed)
    removing(kept, look, monkeypatch)
    assert all(states)
    assert len(states) > 3
    assert kept.on_disk(0, 16) == NEW * 2


def test_nobody_finds_it_and_nobody_takes_its_place(
    kept: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.dm.set_uuid("org", "LVM-x")
    gone: list[bool] = []

    def look() -> None:
        gone.append(kept.dm.mapped_by_name("org") is None)
        if not gone[-1]:
            return  # what is staged is written before the removal begins, if it can be
        for word in ("org", "LVM-x", "253:1"):
            with pytest.raises(NotFoundError):
                kept.dm.rename(word, "other")
            with pytest.raises(TableError):
                kept.dm.load("snap", parse_table(f"0 {SECTORS} linear {word} 0"))
        assert kept.dm.device_name(253, 1) is None
        assert [info.name for info in kept.dm.devices()] == ["snap"]
        for name, uuid, minor in (("org", "", None), ("x", "LVM-x", None), ("x", "", 1)):
            with pytest.raises(BusyError):
                kept.dm.create(name, uuid, minor=minor)

    removing(kept, look, monkeypatch)
    assert gone[-1]
    assert kept.dm.create("org", "LVM-x", minor=1).minor == 1
    kept.dm.remove("org")
    assert list(kept.stages.iterdir()) == []


def test_of_a_removal_and_a_shutdown_one_takes_it_down(lab: StageLab) -> None:
    lab.device("x", "0 8 zero")
    lab.device("y", "0 8 zero")
    x, y = lab.dm.mapped("x"), lab.dm.mapped("y")
    assert x.claim_removal()
    assert not x.claim_removal()
    assert not x.abandon()
    assert y.abandon()
    assert not y.claim_removal()
    assert [device.name for device in lab.dm.all_mapped()] == ["y"]
    assert lab.dm.shutdown() == []
    assert [device.name for device in lab.dm.all_mapped(leaving=True)] == ["x"]


@pytest.mark.parametrize("step", ["presuspend", "postsuspend", "destroy"])
def test_all_of_a_device_goes_whatever_one_target_raises(
    lab: Lab, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: ZeroTarget) -> None:
        raise MemoryError

    origin, cow = lab.file("origin", 64), lab.file("cow", 512)
    lab.device("real", f"0 64 linear {origin} 0")
    lab.device("x", f"0 8 zero\n8 56 snapshot real {cow} P 8")
    lab.dm.load("x", parse_table("0 8 linear real 0"))
    snapshot = lab.dm.mapped("x").targets[1]
    assert isinstance(snapshot, SnapshotTarget)
    with monkeypatch.context() as once:
        once.setattr(ZeroTarget, step, fail)
        with pytest.raises(MemoryError):
            lab.dm.remove("x")
    assert [info.name for info in lab.dm.devices()] == ["real"]
    assert lab.dm.info("real").open_count == 0
    assert snapshot.origin.snapshots == []


def test_a_device_that_is_used_no_more_is_kept_by_nobody(lab: Lab) -> None:
    """An origin gets and loses its only snapshot, and with that its device below."""
    table = f"0 64 linear {lab.file('disk', 64)} 0"
    lab.device("org", table)
    for _ in range(3):
        lab.device("real", table)
        lab.reload("org", "0 64 linear real 0")
        lab.reload("org", table)
        lab.dm.remove("real")
    assert not lab.dm.mapped("org").uses


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ulvm.dm.mapper.check_merges", "snapshot"),
        ("ulvm.dm.origins.Origin.update", "snapshot"),
        ("ulvm.dm.targets.merge.anonymous", "snapshot-merge"),
        ("ulvm.dm.targets.zero.ZeroTarget.destroy", "snapshot"),
    ],
)
def test_nothing_of_a_table_that_could_not_be_built_is_left(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """Or it would be the destination of a handover that never comes, and its COW nobody else's."""

    def fail(*_: object) -> None:
        raise MemoryError

    lab.device("real", f"0 64 linear {lab.file('origin', 64)} 0")
    lab.device("org", "0 64 snapshot-origin real")
    lab.device("cow", f"0 512 linear {lab.file('cow', 512)} 0")
    table = f"0 8 zero\n8 56 {kind} real cow P 8"
    lab.dm.create("x")
    broken = table + "\n64 8 nonsense" if "zero" in name else table
    with monkeypatch.context() as once:
        once.setattr(name, fail)
        with suppress(MemoryError):
            lab.dm.load("x", parse_table(broken))
    lab.dm.clear("x")
    lab.reload("x", table)
    assert lab.dm.table("x")[1].target_type == kind
    assert lab.status("x").split()[-2:] == ["16/512", "16"]
    for device in ("x", "org"):
        lab.dm.remove(device)
    assert [lab.dm.info(device).open_count for device in ("real", "cow")] == [0, 0]
