"""Backup and archive files: names, what is kept, and what happens when they cannot be written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.unit.vgstore.lab import MIB, Lab
from ulvm.errors import DeviceError
from ulvm.metadata import edit
from ulvm.metadata.mda import MAX_TEXT
from ulvm.metadata.text import TextHeader, vg_from_text, vg_to_text
from ulvm.vgstore import archive
from ulvm.vgstore.archive import archive_vg, backup_vg

REAL = Path(__file__).parents[1] / "metadata" / "data" / "backup-exported.vg"
"""A backup file of real LVM2."""

DAY = 24 * 3600


def test_numbers_go_on_and_other_vgs_have_their_own(lab: Lab) -> None:
    vg = vg_from_text(REAL.read_text())
    first = archive_vg(lab.host, vg, "one")
    second = archive_vg(lab.host, vg, "two")
    other = archive_vg(lab.host, vg._replace(name="vg_00007-1"), "three")
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.name.startswith("vg_00000-")
    assert second.name.startswith("vg_00001-")
    assert other.name.startswith("vg_00007-1_00000-")
    assert vg_from_text(second.read_text()) == vg
    assert lab.host.archive_dir.stat().st_mode & 0o777 == 0o700


def test_old_files_go_only_beyond_the_minimum_and_the_days(lab: Lab) -> None:
    lab.host = lab.with_config("backup { retain_min=3 retain_days=30 }")
    vg = vg_from_text(REAL.read_text())
    paths = [archive_vg(lab.host, vg, "x") for _ in range(6)]
    assert len(list(lab.host.archive_dir.iterdir())) == 6, "all are young"
    long_ago = time.time() - 31 * DAY
    for path in paths[:5]:
        assert path is not None
        os.utime(path, (long_ago, long_ago))
    newest = archive_vg(lab.host, vg, "x")
    assert newest is not None
    kept = sorted(lab.host.archive_dir.iterdir())
    assert [p.name.split("-")[0] for p in kept] == ["vg_00004", "vg_00005", "vg_00006"]


def test_an_old_file_that_cannot_go_stops_no_change(lab: Lab) -> None:
    lab.host = lab.with_config("backup { retain_min=1 retain_days=0 }")
    lab.vg(lab.pv("a"))
    left = lab.host.archive_dir / "vg_00000-5.vg"
    left.mkdir(parents=True)
    os.utime(left, (1, 1))
    lab.change("x")
    lab.change("y")
    assert lab.scan().vg("vg").seqno == 3
    assert left.is_dir()


def test_each_can_be_turned_off(lab: Lab) -> None:
    lab.host = lab.with_config("backup { archive=0 backup=0 }")
    lab.vg(lab.pv("a"))
    lab.change("x")
    assert not lab.host.archive_dir.exists()
    assert not lab.host.backup_dir.exists()
    forced = backup_vg(lab.host, lab.scan().vg("vg"), "vgcfgbackup", force=True)
    assert forced is not None
    assert vg_from_text(forced.read_text()).seqno == 2


def test_an_archive_that_cannot_be_written_stops_the_change(lab: Lab) -> None:
    a = lab.pv("a")
    old = lab.vg(a)
    lab.host.archive_dir.write_text("a file where the directory should be")
    before = lab.bytes_of(a)
    with pytest.raises(DeviceError, match="archive"):
        lab.prepare(old, lab.add(old, "x"))
    assert lab.bytes_of(a) == before


def test_a_backup_that_cannot_be_written_is_told_and_no_more(lab: Lab) -> None:
    lab.vg(lab.pv("a"))
    (lab.host.backup_dir / "vg").unlink()
    (lab.host.backup_dir / "vg").mkdir()
    assert lab.change("x").seqno == 2
    assert len(lab.warnings) == 1
    assert str(lab.host.backup_dir / "vg") in lab.warnings[0]


def test_a_rename_takes_the_backup_along(lab: Lab) -> None:
    old = lab.vg(lab.pv("a"))
    lab.prepare(old, edit.rename_vg(old, "other")).commit()
    assert [p.name for p in lab.host.backup_dir.iterdir()] == ["other"]
    assert lab.scan().vg("other").uuid == old.uuid


def test_a_file_of_any_group_that_fits_in_an_area_is_read(lab: Lab) -> None:
    """The shorter the lines, the more its indentation and comments add."""
    vg = lab.vg(lab.pv("a", size=1024 * MIB))
    for number in range(100):
        vg = edit.extend_lv(vg, "x", number + 1) if number else lab.add(vg, "x")
        vg = lab.add(vg, f"y{number}")
    header = TextHeader.now("test")
    text, file = (len(vg_to_text(vg, header, file_form=form)) for form in (False, True))
    assert text < file
    assert file * MAX_TEXT <= text * archive._MAX_FILE
