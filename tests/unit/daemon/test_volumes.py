"""The names and properties of volumes while these come and go."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.unit.dm.lab import Lab
from ulvm.daemon.volumes import MapperExports, export_names, name_of_path
from ulvm.dm.device import MappedDevice
from ulvm.errors import NotFoundError


@pytest.mark.parametrize("looks", range(5))
def test_a_device_may_go_while_it_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """It goes after so many looks at whether it has a table."""
    lab = Lab(tmp_path)
    source = MapperExports(lab.dm)
    left = -1

    def live(device: MappedDevice) -> object:
        nonlocal left
        left -= 1
        if left == -1:
            lab.dm.remove("x")
        return device.__dict__["live"]

    def set_live(device: MappedDevice, table: object) -> None:
        device.__dict__["live"] = table

    monkeypatch.setattr(MappedDevice, "live", property(live, set_live), raising=False)
    for ask in (source.exports, lambda: source.describe("mapper/x")):
        left = -1
        lab.device("x", "0 8 zero")
        left = looks
        with contextlib.suppress(NotFoundError):
            ask()
        left = -1
        if lab.dm.devices():
            lab.dm.remove("x")
    lab.dm.shutdown()


@pytest.mark.parametrize(("name", "path"), [("..-x", "../x"), (".-x", "./x"), ("vg-..", "vg/..")])
def test_a_name_that_leads_elsewhere_is_no_path(tmp_path: Path, name: str, path: str) -> None:
    """Links in /dev are made of it."""
    lab = Lab(tmp_path)
    lab.dm.create(name, "LVM-" + "a" * 64)
    assert export_names(lab.dm.mapped(name)) == [f"mapper/{name}"]
    assert name_of_path(f"/dev/{path}", tmp_path) is None
    lab.dm.shutdown()
