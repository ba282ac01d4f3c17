"""The COW of a backup's snapshot: how large it is made, and how it is extended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.test_backup_interrupts import Heard
from ulvm.backup.snapshot import BackupSnapshot, SnapshotRequest
from ulvm.lvm.session import Session
from ulvm.vgstore.host import Host
from ulvm.vgstore.locks import vg_lock

MIB = 1 << 20


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    """A host with vg/db of 16 MiB on a PV of 15 extents, and a second PV that allocates nothing."""
    for name in ("a", "b"):
        host.run(f"pvcreate {host.image(name, '64M')}")
    host.run("vgcreate vg a b")
    host.run("lvcreate -n db -L 16M vg a")
    host.run("pvchange -xn b")
    return host


@pytest.fixture
def snapshot(vg: UlvmHost) -> Iterator[BackupSnapshot]:
    """With a COW of 4 MiB."""
    session = Session(Host.from_environment(vg.env), Heard())
    with closing(session), BackupSnapshot(session, SnapshotRequest("vg/db", MIB)) as made:
        yield made


def test_only_what_can_be_allocated_is_free(vg: UlvmHost, tmp_path: Path) -> None:
    vg.run("lvcreate -n other -l 9 vg")
    said = vg.run(f"backup vg/db --to {tmp_path}").stdout
    assert "of 8.00 MiB (chosen from 8.00 MiB free in vg; cannot be extended)" in said


def test_more_than_can_be_of_use_need_not_be_free(vg: UlvmHost, tmp_path: Path) -> None:
    said = vg.run(f"backup vg/db --to {tmp_path} --size 1G").stdout
    assert "of 20.00 MiB (as given; cannot overflow)" in said


def test_it_is_doubled_as_far_as_there_is_room(vg: UlvmHost, snapshot: BackupSnapshot) -> None:
    assert snapshot.extend(4 * MIB) == 8 * MIB
    vg.run("lvcreate -n other -l 8 vg")
    assert snapshot.extend(8 * MIB) == 12 * MIB
    assert snapshot.extend(12 * MIB) == 12 * MIB


def test_somebody_else_may_extend_it_first(vg: UlvmHost, snapshot: BackupSnapshot) -> None:
    vg.run(f"lvextend -L 12M vg/{snapshot.name}")
    assert snapshot.extend(4 * MIB) == 12 * MIB


def test_what_cannot_be_extended_is_as_good_as_before(
    vg: UlvmHost, snapshot: BackupSnapshot
) -> None:
    """A PV went away in the midst of the backup."""
    vg.run("lvcreate -n other -l 1 vg a")
    (vg.base / "b").rename(vg.base / "away")
    assert snapshot.extend(4 * MIB) is None
    (vg.base / "away").rename(vg.base / "b")


def test_it_is_extended_whatever_the_name_of_its_group(
    vg: UlvmHost, snapshot: BackupSnapshot
) -> None:
    vg.run("vgrename vg other")
    assert snapshot.extend(4 * MIB) == 8 * MIB


def test_it_is_served_whatever_the_name_of_its_group(
    vg: UlvmHost, snapshot: BackupSnapshot
) -> None:
    vg.run("vgrename vg other")
    assert snapshot.nbd_uri == vg.uri(f"other/{snapshot.name}")
    assert snapshot.open_device().size == 16 * MIB


@needs.fuse
def test_its_file_is_found_whatever_the_name_of_its_group(
    vg: UlvmHost, snapshot: BackupSnapshot
) -> None:
    vg.run("vgrename vg other")
    assert snapshot.device_path() == vg.path(f"other/{snapshot.name}")


def test_where_locks_are_not_waited_for_it_is_extended_later(vg: UlvmHost) -> None:
    host = Host.from_environment(vg.env, overrides="global { wait_for_locks = 0 }")
    heard = Heard()
    session = Session(host, heard)
    request = SnapshotRequest("vg/db", MIB)
    with closing(session), BackupSnapshot(session, request) as snapshot:
        with vg_lock(host, "vg", exclusive=True):
            assert snapshot.extend(4 * MIB) is None
            assert snapshot.extend(4 * MIB) is None
        assert snapshot.extend(4 * MIB) == 8 * MIB
    (warned,) = heard.warned
    assert "Can't get lock for vg." in warned
