"""Devices that somebody else holds, that have two names, or that cannot be opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.vgstore.lab import EXTENT, Lab
from ulvm.errors import BusyError, NotFoundError, RefusedError
from ulvm.metadata import edit
from ulvm.vgstore.commit import prepare, remove_vg
from ulvm.vgstore.devices import DeviceEntry, add_devices, read_devices
from ulvm.vgstore.locks import global_lock, vg_lock
from ulvm.vgstore.pv import as_member
from ulvm.vgstore.scan import scan


def test_a_pv_that_another_program_writes_to_is_not_changed(lab: Lab) -> None:
    path = lab.pv("a")
    old = lab.vg(path)
    new = lab.add(old, "x")
    before = lab.bytes_of(path)
    with open(path, "r+b"), pytest.raises(BusyError, match="held open for writing"):
        prepare(lab.host, lab.scan(), old, new, command="test", exclusive=True)
    assert lab.bytes_of(path) == before
    prepare(lab.host, lab.scan(), old, new, command="test", exclusive=True).commit()
    assert lab.scan().vg("vg").seqno == 2


def test_two_names_of_one_file_are_one_device(lab: Lab) -> None:
    path = lab.pv("a")
    lab.vg(path)
    other = str(lab.folder / "other name")
    os.link(path, other)
    add_devices(lab.host, [DeviceEntry(other, None)])
    found = lab.scan()
    assert [pv.path for pv in found.pvs] == [path]
    assert found.warnings == ()
    with pytest.raises(RefusedError, match=r"Cannot use device .*/other name with duplicates"):
        found.pv(other)
    assert lab.change("x").seqno == 2


def test_extra_paths_are_looked_at_and_not_kept(lab: Lab) -> None:
    path = lab.pv("a")
    lab.host.devices_file.unlink()
    assert scan(lab.host).pvs == ()
    assert [pv.path for pv in scan(lab.host, [path, path]).pvs] == [path]
    with pytest.raises(NotFoundError, match="Failed to find physical volume"):
        scan(lab.host).pv(path)


def test_what_cannot_be_opened_is_told(lab: Lab) -> None:
    path = lab.pv("a")
    Path(path).unlink()
    assert lab.scan().warnings == (), "a device that is gone says nothing unless it is missed"
    os.mkfifo(path)
    (warning,) = lab.scan().warnings
    assert warning == f"WARNING: {path} is neither a file nor a block device."


def test_a_lock_that_somebody_has_is_waited_for_or_refused(lab: Lab) -> None:
    impatient = lab.with_config("global { wait_for_locks=0 }")
    with vg_lock(lab.host, "vg", exclusive=True):
        with (
            pytest.raises(BusyError, match="Can't get lock for vg"),
            vg_lock(impatient, "vg", exclusive=True),
        ):
            pass
        with vg_lock(impatient, "other", exclusive=True), global_lock(impatient, exclusive=True):
            pass
    with vg_lock(impatient, "vg", exclusive=False), vg_lock(impatient, "vg", exclusive=False):
        pass


def test_a_pv_that_another_program_writes_to_does_not_join_nor_leave(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    old = lab.vg(a)
    found = lab.scan()
    new = edit.add_pv(old, as_member(found.pv(b), EXTENT))
    before = lab.bytes_of(a, b)
    with open(b, "r+b"), pytest.raises(BusyError, match="held open for writing"):
        prepare(lab.host, found, old, new, command="test")
    with open(a, "r+b"), pytest.raises(BusyError, match="held open for writing"):
        remove_vg(lab.host, found, old, command="test", exclusive=True)
    assert lab.bytes_of(a, b) == before


@pytest.mark.parametrize("name", ["a b", "a\u2028b", "a\u00a0\u3000b", "a\\b", "a\udcffb"])
def test_any_path_is_read_back_from_the_devices_file(lab: Lab, name: str) -> None:
    path = str(lab.folder / name)
    Path(path).touch()
    add_devices(lab.host, [DeviceEntry(path, None)])
    assert [entry.path for entry in read_devices(lab.host)] == [path]
