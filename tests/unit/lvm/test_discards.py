"""Which extents a change frees, and that they are given back when that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from ulvm.cli.main import main
from ulvm.lvm.discards import freed_ranges
from ulvm.metadata import edit
from ulvm.metadata.model import PhysicalVolume
from ulvm.metadata.uuid import new_uuid

MIB = 1 << 20


def test_what_is_freed() -> None:
    pv = PhysicalVolume(new_uuid(), "/a", 100 * 2048, 2048, 99)
    vg = edit.add_pv(edit.new_vg("vg", uuid=new_uuid(), extent_size=2048), pv)
    for name, extents in (("a", 10), ("b", 20), ("c", 30)):
        vg = edit.add_linear(vg, name, extents, uuid=new_uuid(), now=1, host="h")
    without = edit.remove_lv(vg, "b")
    assert [(r.pe, r.length) for r in freed_ranges(vg, without)] == [(10, 20)]
    assert list(freed_ranges(without, vg)) == []
    assert list(freed_ranges(vg, vg)) == []
    # Not what had been free before.
    less = edit.remove_lv(without, "c")
    assert [(r.pe, r.length) for r in freed_ranges(without, less)] == [(30, 30)]
    assert [(r.pe, r.length) for r in freed_ranges(vg, edit.remove_lv(vg, "c"))] == [(30, 30)]


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
