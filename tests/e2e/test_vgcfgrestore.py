"""Metadata brought back from the archive, and groups that are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import effort
from tests.e2e.host import UlvmHost


@pytest.fixture
def group(host: UlvmHost) -> UlvmHost:
    host.image("a.img", "64M")
    host.image("b.img", "64M")
    host.run("vgcreate vg a.img b.img")
    host.run("lvcreate -L 4M -n one vg")
    return host


def newest(host: UlvmHost) -> Path:
    """The state of before the last change."""
    return max((host.system_dir / "archive").glob("vg_*.vg"))


def names(host: UlvmHost) -> list[str]:
    return host.run("lvs --noheadings -o lv_name vg").stdout.split()


def test_a_removed_volume_comes_back_with_its_data(group: UlvmHost) -> None:
    group.path("vg/one").write_bytes(b"x" * 5000)
    group.run("lvremove -y vg/one")
    assert names(group) == []
    before = newest(group)
    listed = group.run("vgcfgrestore -l vg").stdout
    assert f"File:\t\t{before}" in listed
    assert "Description:\tCreated *before* executing 'lvremove -y vg/one'" in listed
    assert group.run(f"vgcfgrestore -f {before} vg").stdout == "  Restored volume group vg.\n"
    group.run("lvchange -ay vg/one")
    assert group.path("vg/one").read_bytes()[:5000] == b"x" * 5000
    assert int(group.run("vgs --noheadings -o vg_seqno vg").stdout) == 4


def test_what_is_active_is_not_lost(group: UlvmHost) -> None:
    group.run("lvcreate -s -L 4M -n snap vg/one")
    before = newest(group)
    refused = group.run(f"vgcfgrestore -y -f {before} vg", rc=5).stderr
    assert "Logical volume vg/one is active and would be lost: deactivate it first." in refused
    assert names(group) == ["one", "snap"]
    group.run("vgchange -an vg")
    group.run(f"vgcfgrestore -f {before} vg")
    assert names(group) == ["one"]


def test_a_device_that_was_renamed_by_hand_hinders_its_own_group_alone(group: UlvmHost) -> None:
    group.image("c.img", "64M")
    group.run("vgcreate wg c.img")
    group.run("dmsetup rename vg-one foo")
    assert group.run("vgcfgrestore wg").stdout == "  Restored volume group wg.\n"
    refused = group.run("vgcfgrestore vg", rc=5, input="n\n")
    assert "Volume group vg has active volume: foo." in refused.stdout
    assert "Restore aborted." in refused.stderr


def test_a_group_that_was_renamed_since_is_asked_about(group: UlvmHost) -> None:
    group.run("vgrename vg other")
    before = newest(group)
    refused = group.run(f"vgcfgrestore -f {before} vg", rc=5, input="n\n")
    assert "Volume group other has active volume: one." in refused.stdout
    assert "Restore aborted." in refused.stderr
    assert group.path("other/one").exists()
    restored = group.run(f"vgcfgrestore -f {before} vg", input="y\n").stdout
    assert "  Restored volume group vg.\n" in restored
    assert group.path("vg/one").exists()


def test_metadata_that_were_wiped_come_back(group: UlvmHost) -> None:
    group.run("vgchange -an vg")
    for name in ("a.img", "b.img"):
        with (group.base / name).open("r+b") as file:
            file.seek(4096)
            file.write(bytes(512))
    assert group.attempt("vgs vg").rc == 5
    refused = group.attempt("vgcfgrestore vg")
    # An area whose header is gone is not written to: that is for who knows why it is gone.
    assert refused.rc == 5
    assert "No metadata areas to write to" in refused.stderr


def test_what_cannot_be_restored(group: UlvmHost) -> None:
    asked = group.run("vgcfgrestore -f /etc/passwd vg", rc=5)
    assert "Volume group vg has active volume: one." in asked.stdout
    assert "Restore aborted." in asked.stderr
    group.run("vgchange -an vg")
    for words, said in (
        ("vgcfgrestore nope", "Failed to read VG nope from"),
        ("vgcfgrestore -f /etc/passwd vg", "Parse error at byte"),
        (f"vgcfgrestore -f {group.system_dir}/backup/vg other", "does not contain volume group"),
    ):
        assert said in group.run(words, rc=5).stderr
    (group.base / "b.img").rename(group.base / "gone")
    assert "with 1 PVs marked as missing" in group.run("vgcfgrestore vg", rc=5).stderr
    assert "The volume group is missing 1 physical volumes." in group.run("vgck vg", rc=5).stderr


def test_a_split_that_was_killed_goes_on(group: UlvmHost) -> None:
    """At every point of it, and with nothing lost."""
    group.run("vgchange -an vg")
    for point in range(1, 90, effort.amount(4, 1)):
        group.env["ULVM_FAULT_POINT"] = str(point)
        killed = group.attempt("vgsplit vg other b.img").rc
        del group.env["ULVM_FAULT_POINT"]
        if killed == 0:
            break
        assert killed == -9
        if group.run("vgs --noheadings -o pv_count vg").stdout.split() == ["2"]:
            group.run("vgsplit vg other b.img")
        elif group.attempt("vgck other").rc:
            group.run("vgimport other")
        assert names(group) == ["one"]
        assert group.run("vgs --noheadings -o pv_count vg other").stdout.split() == ["1", "1"]
        group.run("vgmerge vg other")
        assert group.run("vgs --noheadings -o vg_name,pv_count").stdout.split() == ["vg", "2"]
    assert point > 20


def test_a_disk_that_was_given_up_comes_back_with_its_volume(group: UlvmHost) -> None:
    group.run("lvcreate -L 4M -n two vg b.img")
    group.path("vg/two").write_bytes(b"x" * 5000)
    group.run("vgchange -an vg")
    disk, away = group.base / "b.img", group.base / "away.img"
    disk.rename(away)
    group.run("vgreduce --removemissing --force vg")
    before = next(
        path
        for path in sorted((group.system_dir / "archive").glob("vg_*.vg"))
        if "vgreduce" in path.read_text()
    )
    away.rename(disk)
    assert names(group) == ["one"]
    group.run(f"vgcfgrestore -f {before} vg")
    assert group.run("vgck vg").stderr == ""
    assert names(group) == ["one", "two"]
    group.run("vgchange -ay vg")
    assert group.path("vg/two").read_bytes()[:5000] == b"x" * 5000
