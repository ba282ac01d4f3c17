"""Restores over an origin and over a snapshot, whose COWs have room for it or not."""

from __future__ import annotations

import random
from contextlib import closing
from typing import BinaryIO

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.test_backup_interrupts import Heard
from ulvm.backup.restoring import restore
from ulvm.errors import BusyError
from ulvm.lvm.session import Session
from ulvm.vgstore.host import Host

pytestmark = needs.fuse

MIB = 1 << 20


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    """A host with vg/db of 16 MiB, changed since its backup in b, and a snapshot of it, vg/s."""
    host.run(f"pvcreate {host.image('pv', '64M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n db -L 16M vg")
    fill(host, 1)
    (host.base / "b").mkdir()
    host.run("backup vg/db --to b")
    fill(host, 2)
    host.run("lvcreate -s -n s -L 8M vg/db")
    return host


def data(seed: int) -> bytes:
    return random.Random(seed).randbytes(16 * MIB)


def fill(host: UlvmHost, seed: int) -> None:
    with host.path("vg/db").open("r+b", buffering=0) as file:
        file.write(data(seed))


@pytest.mark.parametrize("volume", ["db", "s"])
def test_a_snapshot_is_lost_only_if_wanted(vg: UlvmHost, volume: str) -> None:
    refused = vg.run(f"restore b vg/{volume} --force", rc=5).stderr
    assert "Snapshot vg/s has 2 extents of room, and this restore may fill 5" in refused
    assert '"lvextend -l 5 vg/s" gives it room.' in refused
    for name in ("db", "s"):
        assert vg.path(f"vg/{name}").read_bytes() == data(2)
        assert vg.run(f"lvs --noheadings -o lv_tags vg/{name}").stdout.strip() == ""
    vg.run(f"restore b vg/{volume} --force --yes", rc=0 if volume == "db" else 5)
    assert vg.run("lvs --noheadings -o lv_snapshot_invalid vg/s").stdout.strip()
    if volume == "s":
        assert "vg/s is invalid" in vg.run("restore b vg/s --force", rc=5).stderr


@pytest.mark.parametrize("volume", ["db", "s"])
def test_with_the_room_that_was_named_nothing_is_lost(vg: UlvmHost, volume: str) -> None:
    vg.run("lvextend -l 5 vg/s")
    assert vg.run(f"restore b vg/{volume} --force").stderr == ""
    other = "s" if volume == "db" else "db"
    assert vg.path(f"vg/{volume}").read_bytes() == data(1)
    assert vg.path(f"vg/{other}").read_bytes() == data(2)


def test_a_volume_that_is_opened_while_the_user_is_asked_is_in_use(vg: UlvmHost) -> None:
    class Opening(Heard):
        def ask(self, question: str) -> bool:
            opened.append(vg.path("vg/db").open("rb"))
            return True

    opened: list[BinaryIO] = []
    session = Session(Host.from_environment(vg.env), Opening())
    with closing(session), pytest.raises(BusyError, match="vg/db is in use"):
        restore(session, vg.base / "b", "vg/db", force=True)
    with opened[0] as file:
        assert file.read() == data(2)
    assert vg.run("lvs --noheadings -o lv_tags vg/db").stdout.strip() == ""
