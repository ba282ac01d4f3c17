"""What counts as left behind: tagged, a snapshot, and no living owner."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from ulvm.backup.leftovers import (
    TAG,
    hold,
    hold_target,
    hold_volume,
    is_held,
    left_behind,
    lock_path,
)
from ulvm.errors import BusyError
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    PhysicalVolume,
    SnapshotSegment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.vgstore.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "etc", tmp_path / "run")


def lv(name: str, number: int, tags: tuple[str, ...] = ()) -> LogicalVolume:
    return LogicalVolume(
        name, f"uuid-{number}", (StripedSegment(0, 4, (Area("pv", 4 * number),)),), tags=tags
    )


def snapshot_of(origin: str, cow: str, number: int) -> LogicalVolume:
    segment = SnapshotSegment(0, 4, 8, origin, cow)
    return LogicalVolume(
        f"snapshot{number}", f"uuid-s{number}", (segment,), status=frozenset({"READ", "WRITE"})
    )


@pytest.fixture
def vg() -> VolumeGroup:
    pv = PhysicalVolume("pv", "/dev/sda", 1 << 20, 2048, 100)
    lvs = (
        lv("db", 0),
        lv("db_backup", 1, (TAG,)),
        lv("mine", 2, ("nightly",)),
        lv("plain", 3, (TAG,)),
        snapshot_of("db", "db_backup", 0),
        snapshot_of("db", "mine", 1),
    )
    return VolumeGroup("vg", "vg-uuid", 8192, pvs=(pv,), lvs=lvs)


def test_a_tagged_snapshot_without_owner_is_left_behind(host: Host, vg: VolumeGroup) -> None:
    assert left_behind(host, vg) == ["db_backup"]


def test_untagged_or_plain_volumes_are_the_users_own(host: Host, vg: VolumeGroup) -> None:
    untagged = vg.with_lv(lv("db_backup", 1)._replace())
    assert left_behind(host, untagged) == []


def test_a_living_backup_keeps_its_snapshot(host: Host, vg: VolumeGroup) -> None:
    with hold(host, "vg", "db_backup"):
        assert is_held(host, "vg", "db_backup")
        assert left_behind(host, vg) == []
        with pytest.raises(BusyError, match="running"), hold(host, "vg", "db_backup"):
            pass
    assert not lock_path(host, "vg", "db_backup").exists()
    assert left_behind(host, vg) == ["db_backup"]


def test_the_lock_dies_with_its_process(host: Host, vg: VolumeGroup) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from ulvm.backup.leftovers import hold\n"
        "from ulvm.vgstore.host import Host\n"
        "base = pathlib.Path(sys.argv[1])\n"
        "with hold(Host(base / 'etc', base / 'run'), 'vg', 'db_backup'):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(host.run_dir.parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert left_behind(host, vg) == []
    process.kill()
    process.wait()
    process.stdout.close()
    assert left_behind(host, vg) == ["db_backup"]


def test_one_restore_to_a_volume_at_a_time(host: Host) -> None:
    """Names that differ in a dash alone are of two volumes."""
    for _ in range(2):  # what the first leaves is free
        with (
            hold_target(host, "a-b", "c"),
            hold_target(host, "a", "b-c"),
            pytest.raises(BusyError, match="restoring to a-b/c"),
            hold_target(host, "a-b", "c"),
        ):
            pass
    assert list(host.lock_dir.iterdir()) == []


def test_one_restore_to_a_volume_whatever_its_name(host: Host, vg: VolumeGroup) -> None:
    """A copy of the group has volumes of its own, of the same UUIDs."""
    db = vg.volume("db")
    with (
        hold_volume(host, vg, db),
        hold_volume(host, vg._replace(uuid="other"), db),
        pytest.raises(BusyError, match="restoring to vg/renamed"),
        hold_volume(host, vg, db._replace(name="renamed")),
    ):
        pass
    assert list(host.lock_dir.iterdir()) == []


def test_the_lock_of_a_file_that_is_gone_is_nobodys(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder takes its file away between another's opening and locking of it."""
    holder = ExitStack()
    holder.enter_context(hold_target(host, "vg", "db"))
    flock = fcntl.flock

    def late(fd: int, operation: int) -> None:
        holder.close()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with (
        hold_target(host, "vg", "db"),
        pytest.raises(BusyError),
        hold_target(host, "vg", "db"),
    ):
        pass
