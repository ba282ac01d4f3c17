"""--test: every check is made and every word said, and nothing changes. Choosing by tag and -S."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost

pytestmark = needs.fuse

TEST_MODE = "  TEST MODE: Metadata will NOT be updated and volumes will not be (de)activated.\n"


@pytest.fixture
def images(host: UlvmHost) -> list[Path]:
    paths = [host.image(name, "64M") for name in ("a.img", "b.img")]
    host.run(f"vgcreate vg {paths[0]}")
    host.run("lvcreate -L8m -n a vg")
    host.run("lvcreate -s -L8m -n s vg/a")
    return paths


def content(host: UlvmHost, images: list[Path]) -> dict[Path, bytes]:
    """Disks and the system directory."""
    files = [p for p in sorted(host.system_dir.rglob("*")) if p.is_file()]
    return {path: path.read_bytes() for path in (*images, *files)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pvcreate -t {1}", 'Physical volume "{1}" successfully created.'),
        ("vgcreate -t wg {1}", 'Volume group "wg" successfully created'),
        ("vgextend -t vg {1}", 'Volume group "vg" successfully extended'),
        ("vgrename -t vg wg", 'Volume group "vg" successfully renamed to "wg"'),
        ("vgchange -t --addtag x vg", 'Volume group "vg" successfully changed'),
        ("vgremove -ty vg", 'Volume group "vg" successfully removed'),
        ("lvcreate -t -L8m -n b vg", 'Logical volume "b" created.'),
        ("lvcreate -t -s -L8m -n t vg/a", 'Logical volume "t" created.'),
        ("lvextend -t -L+4m vg/s", "Logical volume vg/s successfully resized."),
        ("lvrename -t vg a x", 'Renamed "a" to "x" in volume group "vg"'),
        ("lvchange -t -pr vg/s", "Logical volume vg/s changed."),
        ("lvremove -ty vg/a", 'Logical volume "a" successfully removed.'),
        ("lvconvert -t --merge vg/s", ""),
        ("lvchange -t -an vg/a", ""),
        ("vgchange -t -an vg", '2 logical volume(s) in volume group "vg" now active'),
    ],
)
def test_nothing_changes(host: UlvmHost, images: list[Path], line: str, said: str) -> None:
    before = content(host, images)
    active = host.run("dmsetup info -c").stdout
    line, said = (text.format(*images) for text in (line, said))
    done = host.run(line)
    assert done.stderr == TEST_MODE
    assert said in done.stdout
    assert content(host, images) == before
    assert host.run("dmsetup info -c").stdout == active


def test_refusals_are_the_same(host: UlvmHost, images: list[Path]) -> None:
    done = host.attempt("lvextend -t -L+4m vg/a")
    assert done.rc == 5
    assert done.stderr.endswith("can be resized only while inactive: try lvchange -an.\n")


def test_chosen_by_tag_and_selection(host: UlvmHost, images: list[Path]) -> None:
    host.run("lvchange --addtag T vg/a")
    assert host.run("lvchange --addtag U @T").stdout == "  Logical volume vg/a changed.\n"
    assert host.run("lvchange --addtag V -S tags=U").stdout == "  Logical volume vg/a changed.\n"
    assert host.run("lvremove -y @nothing").stdout == ""
    assert host.run("lvremove -y -S lv_name=nothing vg").stdout == ""
    said = host.run("lvremove -y -S lv_name=s").stdout
    assert said == '  Logical volume "s" successfully removed.\n'
    host.env["LVM_VG_NAME"] = "vg"
    assert host.run("lvremove -y a").stdout == '  Logical volume "a" successfully removed.\n'


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("global{test=1}", "What volumes hold is not used in test mode."),
        ("global{activation=0}", "What volumes hold is not used while activation is disabled."),
    ],
)
def test_what_volumes_hold_is_left_alone(
    host: UlvmHost, images: list[Path], setting: str, why: str
) -> None:
    (host.base / "out").mkdir()
    (host.base / "mnt").mkdir()
    host.run("backup vg/a --to out")
    newer = b"newer" * 1000
    with host.path("vg/a").open("r+b") as file:
        file.write(newer)
    before = host.run("vgs -o vg_seqno").stdout
    for line in (
        "restore -f out vg/a",
        "restore out vg/b",
        "backup vg/a --to out",
        "backup vg/a --exec 'touch {nbd} ran'",
        "backup --clean vg",
        "mount vg/a mnt",
    ):
        assert why in host.run(f"{line} --config '{setting}'", rc=5).stderr
    assert host.run("vgs -o vg_seqno").stdout == before
    assert host.path("vg/a").read_bytes().startswith(newer)
    assert not (host.base / "ran").exists()
    assert len([*(host.base / "out").glob("*.json")]) == 1
