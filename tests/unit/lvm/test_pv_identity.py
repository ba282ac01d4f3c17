"""New UUIDs of PVs, and of whole copies, with the power cut after any write.

The host's devices stop taking writes after the n-th, as in a cut between two of them (each write is
flushed). Then the same command is given again with nothing in its way.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.lvm.lab import SMALL_AREA, Heard
from ulvm.blockdev.base import BlockDevice, Buffer
from ulvm.blockdev.file import FileDevice
from ulvm.errors import DeviceError, RefusedError, UlvmError
from ulvm.lvm import clone, pv, pv_change, vg
from ulvm.lvm.session import Session
from ulvm.metadata import edit
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import scan


class CutDevice(FileDevice):
    """Refuses all writes after the last that is allowed."""

    power: Power

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        if self.power.writes_left <= 0:
            raise DeviceError("the power is off")
        self.power.writes_left -= 1
        self.power.written += 1
        super().write(offset, data, fua=fua)


@dataclass
class Power:
    writes_left: int = 1 << 30
    written: int = 0

    def open(self, path: str, writable: bool) -> BlockDevice:
        device = CutDevice(path, writable=writable, claim=False)
        device.power = self
        return device


@dataclass
class Place:
    """A VG `vg` with the volume `lv` on the images a and b, and further images."""

    folder: Path
    power: Power = field(default_factory=Power)

    @property
    def host(self) -> Host:
        return Host(self.folder / "etc", self.folder / "run", opener=self.power.open)

    def session(self) -> Session:
        return Session(self.host, Heard(answer=True))

    def image(self, name: str) -> str:
        path = self.folder / name
        path.touch()
        path.open("r+b").truncate(4 << 20)
        return str(path)

    def build(self) -> None:
        session = self.session()
        vg.create(session, "vg", [self.image("a"), self.image("b")], extent_size=128,
                  options=SMALL_AREA)  # fmt: skip
        session.change_vg(
            "vg",
            lambda g: edit.add_linear(g, "lv", 40, uuid=new_uuid(), now=0, host="h"),
        )

    def whole(self, name: str, *paths: str) -> None:
        """The VG is complete on these devices, says nothing odd, and can be changed."""
        found = scan(self.host)
        assert found.warnings == ()
        group = found.vg(name)
        assert not group.partial
        assert sorted(found.path_of(p.uuid) or "" for p in group.pvs) == sorted(paths)
        assert [lv.name for lv in group.lvs] == ["lv"]
        self.session().change_vg(name, lambda g: g._replace(tags=("changed",)))


def after_each_write(tmp_path: Path, prepare: Callable[[Place], None],
                     command: Callable[[Place], None]) -> list[Place]:  # fmt: skip
    """A place for each write of the command, with the power off after it."""
    model = Place(tmp_path / "model")
    model.folder.mkdir()
    model.build()
    prepare(model)
    written = model.power.written
    # The paths are in the metadata: every place has been at the same one.
    saved = tmp_path / "saved"
    shutil.copytree(model.folder, saved)
    command(model)
    writes = model.power.written - written
    assert writes > 3
    places = []
    for allowed in range(writes):
        shutil.rmtree(model.folder)
        shutil.copytree(saved, model.folder)
        model.power.writes_left = allowed
        with suppress(UlvmError):  # what comes after the commit is told and no more
            command(model)
        model.power.writes_left = 1 << 30
        place = tmp_path / f"cut{allowed}"
        shutil.copytree(model.folder, place)
        places.append(Place(place))
    shutil.rmtree(model.folder)
    return places


def at(place: Place, tmp_path: Path) -> Place:
    """The place where the paths of its metadata are."""
    folder = tmp_path / "model"
    if folder.exists():
        shutil.rmtree(folder)
    place.folder.rename(folder)
    return Place(folder)


def test_a_new_uuid_survives_any_cut(tmp_path: Path) -> None:
    def rename(place: Place) -> None:
        pv_change.change(place.session(), f"{place.folder}/a", new_identity=True)

    for cut in after_each_write(tmp_path, lambda place: None, rename):
        place = at(cut, tmp_path)
        if scan(place.host).vg("vg").all_missing:
            # Between the label and the text that names it, nobody else takes the device.
            with pytest.raises(RefusedError, match="metadata is missing"):
                pv_change.change(place.session(), f"{place.folder}/a", ignore=True)
            assert pv.create(place.session(), [f"{place.folder}/a"])[1] == 1
        rename(place)
        place.whole("vg", f"{place.folder}/a", f"{place.folder}/b")


def test_copies_become_a_group_of_their_own_after_any_cut(tmp_path: Path) -> None:
    def copy(place: Place) -> None:
        shutil.copy(place.folder / "a", place.folder / "c")
        shutil.copy(place.folder / "b", place.folder / "d")

    def import_them(place: Place) -> None:
        clone.import_clone(place.session(), [f"{place.folder}/c", f"{place.folder}/d"])

    for cut in after_each_write(tmp_path, copy, import_them):
        place = at(cut, tmp_path)
        import_them(place)
        place.whole("vg", f"{place.folder}/a", f"{place.folder}/b")
        place.whole("vg1", f"{place.folder}/c", f"{place.folder}/d")


def test_areas_out_of_use_survive_any_cut(tmp_path: Path) -> None:
    def ignore(place: Place) -> None:
        pv_change.change(place.session(), f"{place.folder}/a", ignore=True)

    for cut in after_each_write(tmp_path, lambda place: None, ignore):
        place = at(cut, tmp_path)
        # An area that did not get the mark of being out of use may hold the old text.
        place.session().change_vg("vg", lambda group: group)
        place.whole("vg", f"{place.folder}/a", f"{place.folder}/b")


def test_the_last_area_stays_in_use(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.build()
    pv_change.change(place.session(), f"{tmp_path}/a", ignore=True)
    with pytest.raises(RefusedError, match="Cannot disable all metadata areas"):
        pv_change.change(place.session(), f"{tmp_path}/b", ignore=True)
    pv_change.change(place.session(), f"{tmp_path}/a", ignore=False)
    place.whole("vg", f"{tmp_path}/a", f"{tmp_path}/b")


def test_a_part_of_a_group_is_not_imported(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.build()
    shutil.copy(tmp_path / "a", tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(RefusedError, match="while PVs are missing"):
        clone.import_clone(place.session(), [f"{tmp_path}/c"])
    assert (tmp_path / "c").read_bytes() == before
