"""Which extents a change frees, and that they are given back when that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from ulvm.cli.main import main
from ulvm.lvm.discards import freed_ranges
from ulvm.metadata import edit
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.pv_edit import resize_pv
from ulvm.metadata.uuid import new_uuid
from ulvm.metadata.vg_edit import set_extent_size

MIB = 1 << 20
MIB_SECTORS = MIB // 512


def group(*volumes: int) -> VolumeGroup:
    """Extents of 1 MiB on a PV of 99 of them; the volumes are a, b, c of so many."""
    pv = PhysicalVolume(new_uuid(), "/a", 100 * MIB_SECTORS, MIB_SECTORS, 99)
    vg = edit.add_pv(edit.new_vg("vg", uuid=new_uuid(), extent_size=MIB_SECTORS), pv)
    for name, extents in zip("abc", volumes, strict=False):
        vg = edit.add_linear(vg, name, extents, uuid=new_uuid(), now=1, host="h")
    return vg


def freed(old: VolumeGroup, new: VolumeGroup) -> list[tuple[float, float]]:
    """In MiB from the PV's first extent."""
    return [(r.start / MIB_SECTORS - 1, r.length / MIB_SECTORS) for r in freed_ranges(old, new)]


def test_what_is_freed() -> None:
    vg = group(10, 20, 30)
    without = edit.remove_lv(vg, "b")
    assert freed(vg, without) == [(10, 20)]
    assert freed(without, vg) == []
    assert freed(vg, vg) == []
    # Not what had been free before.
    less = edit.remove_lv(without, "c")
    assert freed(without, less) == [(30, 30)]
    assert freed(vg, edit.remove_lv(vg, "c")) == [(30, 30)]
    assert freed(vg, edit.remove_lv(edit.remove_lv(vg, "c"), "b")) == [(10, 50)]


def test_extents_of_another_size_and_a_pv_that_grows_free_nothing() -> None:
    vg = group(10)
    small = set_extent_size(vg, MIB_SECTORS // 4)
    assert freed(vg, small) == []
    assert freed(vg, edit.remove_lv(small, "a")) == [(0, 10)]
    assert freed(vg, resize_pv(vg, vg.pvs[0].uuid, 201 * MIB_SECTORS, 200)) == []


@pytest.mark.parametrize("wanted", [False, True])
def test_the_file_gets_smaller_if_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    image = tmp_path / "pv.img"
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    assert main(["vgcreate", "-s", "1m", "vg", str(image)]) == 0
    for name in ("a", "b"):
        assert main(["lvcreate", "-an", "-Zn", "-n", name, "-L", "4m", "vg"]) == 0
    with image.open("r+b") as file:
        file.seek(MIB)
        file.write(b"x" * 8 * MIB)
    setting = ["--config", f"devices/issue_discards={int(wanted)}"]
    assert main(["lvremove", "-y", "vg/b", *setting]) == 0
    assert main(["lvreduce", "-y", "-L", "3m", "vg/a", *setting]) == 0
    # Nobody's data but what is freed goes.
    data = image.read_bytes()[MIB : 9 * MIB]
    kept = 3 if wanted else 8
    assert data == b"x" * kept * MIB + bytes((8 - kept) * MIB)


def test_a_trial_gives_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    image = tmp_path / "pv.img"
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    assert main(["vgcreate", "-s", "1m", "vg", str(image)]) == 0
    assert main(["lvcreate", "-an", "-Zn", "-n", "a", "-L", "4m", "vg"]) == 0
    with image.open("r+b") as file:
        file.seek(MIB)
        file.write(b"x" * 4 * MIB)
    assert main(["lvremove", "-t", "-y", "vg/a", "--config", "devices/issue_discards=1"]) == 0
    assert image.read_bytes()[MIB : 5 * MIB] == b"x" * 4 * MIB


def test_a_restore_of_metadata_gives_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    image = tmp_path / "pv.img"
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    assert main(["vgcreate", "-s", "1m", "vg", str(image)]) == 0
    assert main(["vgcfgbackup", "-f", str(tmp_path / "old"), "vg"]) == 0
    assert main(["lvcreate", "-an", "-Zn", "-n", "a", "-L", "4m", "vg"]) == 0
    with image.open("r+b") as file:
        file.seek(MIB)
        file.write(b"x" * 4 * MIB)
    setting = ["--config", "devices/issue_discards=1"]
    assert main(["vgcfgrestore", "-f", str(tmp_path / "old"), "vg", *setting]) == 0
    assert image.read_bytes()[MIB : 5 * MIB] == b"x" * 4 * MIB
