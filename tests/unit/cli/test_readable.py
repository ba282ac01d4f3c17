"""What is written can be read again: sizes and ranges at which LVM2 stops, in its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ulvm.cli.main import main


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two files of 128 MiB, and a host of their own."""
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    found = []
    for name in ("a.img", "b.img"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(128 << 20)
        found.append(str(tmp_path / name))
    return found


def test_a_range_has_an_extent_at_least(
    images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = images[0]
    assert main(["vgcreate", "vg", *images]) == 0
    assert main(["lvcreate", "-an", "-l2", "-n", "a", "vg", place]) == 0
    capsys.readouterr()
    assert main(["lvextend", "-l+50%FREE", "vg/a", f"{place}:5-4"]) == 5
    assert "  PE range error: start extent 5 to end extent 4.\n" in capsys.readouterr().err
    assert main(["lvextend", "-l+50%FREE", "vg/a", f"{place}:31+0"]) == 5
    assert "  PE range error: start extent 31 to end extent 31.\n" in capsys.readouterr().err
    assert main(["lvextend", "-l+50%FREE", "vg/a", f"{place}:5+0"]) == 0
    assert main(["lvextend", "-l+1", "vg/a", f"{place}:5+0"]) == 5
    assert main(["lvextend", "-l+90%FREE", "vg/a", f"{place}:5+0:8-20"]) == 0
    capsys.readouterr()
    assert main(["lvs", "--noheadings", "-o", "seg_pe_ranges", "vg"]) == 0
    assert capsys.readouterr().out.split() == [f"{place}:{r}" for r in ("0-1", "5-5", "8-20")]


def test_a_pv_keeps_room_for_an_extent(
    images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = images[0]
    resize = ["pvresize", "-y", "--setphysicalvolumesize"]
    beyond = f"  Size must exceed physical extent start of 131072 sectors on PV {path}.\n"
    assert main(["pvcreate", "--dataalignment", "64m", path]) == 0
    assert main([*resize, "2m", path]) == 5
    assert beyond in capsys.readouterr().err
    assert main([*resize, "64m", path]) == 0
    assert main(["pvresize", path]) == 0
    assert main(["vgcreate", "vg", *images]) == 0
    capsys.readouterr()
    assert main([*resize, "2m", path]) == 5
    assert beyond in capsys.readouterr().err
    for size, other in (("64m", path), ("66m", path), ("2m", images[1])):
        assert main([*resize, size, other]) == 5
        said = capsys.readouterr().err
        assert (
            "  Size must leave space for at least one physical extent of 8192 sectors "
            f"on PV {other}.\n"
        ) in said
    assert main([*resize, "68m", path]) == 0
    with Path(path).open("r+b") as stream:
        stream.truncate(32 << 20)
    assert main(["pvresize", path]) == 5
    assert main(["vgs", "vg"]) == 0


def test_a_range_without_a_free_extent(
    images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = images[0]
    none = "  Insufficient free space: 1 extents needed, but only 0 available\n"
    assert main(["vgcreate", "vg", *images]) == 0
    assert main(["lvcreate", "-an", "-l4", "-n", "a", "vg", place]) == 0
    capsys.readouterr()
    assert main(["lvextend", "-l+1", "vg/a", f"{place}:0-1"]) == 5
    assert capsys.readouterr().err == none
    assert main(["lvcreate", "-an", "-l1", "-n", "b", "vg", f"{place}:0-1"]) == 5
    assert capsys.readouterr().err == none
    assert main(["lvextend", "-l+50%FREE", "vg/a", f"{place}:0-1"]) == 0
    assert "Size of logical volume vg/a unchanged from 16.00 MiB" in capsys.readouterr().out
