"""What goes wrong from outside: one clear sentence, LVM's exit code or the errno, and no change."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from ulvm.blockdev.nbd import NbdDevice
from ulvm.errors import DeviceError
from ulvm.metadata.mda import MdaHeader, RawLocn

MIB = 1 << 20
MDA = 4096


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    """vg on a.img and b.img of 64 MiB, with the inactive volume lv of 8 MiB on a."""
    a, b = host.image("a.img", "64M"), host.image("b.img", "64M")
    host.run(f"vgcreate vg {a} {b}")
    host.run("lvcreate -L 8M -n lv vg")
    host.run("daemon stop")
    return host


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def images(host: UlvmHost) -> list[bytes]:
    return [(host.base / name).read_bytes() for name in ("a.img", "b.img")]


def refused(host: UlvmHost, command: str, *says: str, rc: int = 5) -> None:
    """The command fails with these words and leaves the images as they were."""
    before = images(host)
    done = host.run(command, rc=rc)
    for words in says:
        assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert images(host) == before


def rewrite(path: Path, change: bytes, to: bytes) -> None:
    """Change the committed metadata text, checksums included."""
    data = path.read_bytes()[: 2 * MIB]
    header = MdaHeader.unpack(data[MDA : MDA + 512], start=MDA)
    locn = header.committed
    text = data[MDA + locn.offset : MDA + locn.offset + locn.size].replace(change, to)
    assert len(text) == locn.size
    patch(path, MDA + locn.offset, text)
    patch(path, MDA, header.with_commit(RawLocn.of_text(locn.offset, text)).pack())


def test_metadata_with_a_wrong_checksum_on_all_copies(vg: UlvmHost) -> None:
    for name in ("a.img", "b.img"):
        data = (vg.base / name).read_bytes()[: 2 * MIB]
        offset = MDA + MdaHeader.unpack(data[MDA : MDA + 512], start=MDA).committed.offset
        patch(vg.base / name, offset + 60, b"\0")
    refused(vg, "lvcreate -L 4M -n x vg", "Checksum error", 'Volume group "vg" not found')
    refused(vg, "pvcreate a.img", "used by a VG but its metadata is missing")


def test_an_unknown_segment_type(vg: UlvmHost) -> None:
    for name in ("a.img", "b.img"):
        rewrite(vg.base / name, b'type = "striped"', b'type = "strange"')
    refused(vg, "lvcreate -L 4M -n x vg", "strange")
    refused(vg, "lvchange -ay vg/lv", "strange")
    # What it lies on is not known, so all PVs leave the group and it stays behind.
    refused(vg, "vgsplit vg new a.img b.img", "Cannot change VG vg with unknown segments in it!")
    c = vg.image("c.img", "64M")
    vg.run(f"vgcreate other {c}")
    before = c.read_bytes()
    refused(vg, "vgmerge vg other", "Cannot change VG vg with unknown segments in it!")
    assert c.read_bytes() == before


def test_a_part_of_a_volume_of_an_unknown_type(vg: UlvmHost) -> None:
    """Asked for by name it is shown, and not written to: it may be the side of a mirror."""
    vg.run("lvcreate -an -L 16M -n whole -i 2 vg")
    for name in ("a.img", "b.img"):
        path = vg.base / name
        rewrite(path, b'"READ", "WRITE", "VISIBLE"]', b'"READ", "WRITE"]           ')
        whole = b"segment1 {\nstart_extent = 0\nextent_count = 4\n\ntype = "
        rewrite(path, whole + b'"striped"', whole + b'"strange"')
    refused(vg, "lvchange -ay vg/lv", "Operation not permitted on hidden LV vg/lv.")
    vg.run("lvchange -ay -y vg/lv")
    shown = vg.run("dmsetup info -c --noheadings -o name,read_only").stdout
    assert shown.split() == ["vg-lv:Read-only"]


def test_a_missing_pv(vg: UlvmHost) -> None:
    vg.run("lvcreate -an -L 8M -n other vg")
    (vg.base / "b.img").rename(vg.base / "gone.img")
    done = vg.run("lvcreate -L 4M -n x vg", rc=5)
    assert "WARNING: Couldn't find device with uuid" in done.stderr
    assert "Cannot change VG vg while PVs are missing." in done.stderr
    assert vg.run("vgs --noheadings -o vg_attr vg").stdout.strip() == "wz-pn-"
    vg.run("lvchange -ay vg/lv")  # all of it is there
    (vg.base / "gone.img").rename(vg.base / "b.img")


def test_a_truncated_and_a_foreign_pv(vg: UlvmHost) -> None:
    with (vg.base / "b.img").open("r+b") as stream:
        stream.truncate(MIB // 2)
    done = vg.run("lvs vg", rc=0)
    assert "b.img" in done.stderr
    (vg.base / "b.img").write_bytes(os.urandom(64 * MIB))
    assert "Couldn't find device" in vg.run("lvs vg").stderr


def test_a_cow_with_a_bad_header(vg: UlvmHost) -> None:
    vg.run("lvchange -ay vg/lv")
    vg.run("lvcreate -s -L 4M -n snap vg/lv")
    vg.run("vgchange -an vg")
    place = vg.run("lvs --noheadings -o seg_pe_ranges vg/snap").stdout.strip()
    pe = int(place.rpartition(":")[2].partition("-")[0])
    cow = MIB + pe * 4 * MIB
    assert (vg.base / "a.img").read_bytes()[cow : cow + 4] == b"SnAp"
    patch(vg.base / "a.img", cow, b"oops")
    refused(vg, "lvchange -ay vg/lv", "vg-snap", "Invalid or corrupt snapshot")
    assert vg.run("dmsetup ls").stdout == "No devices found\n"


SENTENCES = [
    ("lvcreate -L 4M -n ../x vg", 3, "Invalid path"),
    ("lvcreate -L 4M -n snapshot0 vg", 3, 'Names starting "snapshot" are reserved.'),
    ("lvcreate -L 4M -n lv vg", 5, "already exists in volume group"),
    ("lvcreate -L 1T -n x vg", 5, "insufficient free space"),
    ("lvcreate -L 0 -n x vg", 3, "may not be zero"),
    ("lvcreate -L -4M -n x vg", 3, ""),
    ("lvcreate -L many -n x vg", 3, "Invalid argument for --size"),
    ("lvcreate -l 150%LV -n x vg", 5, "Please express size as"),
    ("lvcreate --nosuch -n x vg", 3, "unrecognized option '--nosuch'"),
    ("lvcreate -L 4M -n x nosuch", 5, 'Volume group "nosuch" not found'),
    ("lvcreate -s -L 4M -c 3k -n x vg/lv", 3, "Chunk size must be a power of 2"),
    ("lvremove -f vg/nosuch", 5, 'Failed to find logical volume "vg/nosuch"'),
    ("lvextend -L 4M vg/lv", 5, "not larger than existing size"),
    ("lvconvert --merge vg/lv", 5, ""),
    ("vgcreate vg a.img", 5, "already exists"),
    ("vgcreate ../x a.img", 3, "invalid"),
    ("vgcreate new a.img", 5, "already in volume group"),
    ("vgextend vg /nowhere/x.img", 5, "/nowhere/x.img"),
    ("pvcreate a.img", 5, "without -ff"),
    ("pvremove a.img", 5, "is used by VG vg so please use vgreduce first."),
    ("pvs nothing.img", 5, "nothing.img: device not found"),
    ("lvs -o nosuch", 5, "Unrecognised field: nosuch"),
    ("lvs -S 'nosuch=1'", 5, "Unrecognised selection field: nosuch"),
    ("lvs --units q", 3, "Invalid units specification"),
    ("--nosuch", 3, "Specify options after a command: ulvm [command] [options]."),
    ("frobnicate", 2, "No such command"),
    ("lvs --config 'global {'", 3, ""),
    ("mount vg/lv nowhere", 5, "is not a directory"),
    ("daemon status --nosuch", 3, "unrecognized option"),
]
"""(command, exit code, words of the sentence)"""


def test_a_sentence_and_an_exit_code(vg: UlvmHost) -> None:
    for command, rc, says in SENTENCES:
        refused(vg, command, says, rc=rc)
    assert vg.run("lvs --noheadings -o lv_name,lv_attr vg").stdout.split() == ["lv", "-wi-------"]


def test_an_unreadable_configuration_names_its_file(vg: UlvmHost) -> None:
    (vg.system_dir / "ulvm.conf").write_text("global { units = ")
    assert "ulvm.conf" in vg.run("lvs", rc=4).stderr
    (vg.system_dir / "ulvm.conf").unlink()


@pytest.fixture
def full(host: UlvmHost, tmp_path: Path) -> Iterator[UlvmHost]:
    """vg on a sparse image of 64 MiB in a file system of 24 MiB."""
    small = host.base / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", small], check=True)
    try:
        image = host.image("small/pv.img", "64M")
        host.run(f"vgcreate vg {image}")
        host.run("lvcreate -L 40M -n lv vg")
        yield host
    finally:
        host.run("daemon stop --force")
        subprocess.run(["umount", small], check=True)


@needs.root
@needs.fuse
def test_no_space_on_the_host_file_system(full: UlvmHost) -> None:
    device = NbdDevice(str(full.run_dir / "nbd.sock"), "vg/lv")
    first = os.urandom(8 * MIB)
    device.write(0, first)
    device.flush()

    def fill() -> None:
        for offset in range(8 * MIB, 40 * MIB, MIB):
            device.write(offset, os.urandom(MIB))

    with pytest.raises(DeviceError) as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert device.read(0, 8 * MIB) == first
    device.close()
    with full.path("vg/lv").open("r+b", buffering=0) as stream:
        stream.seek(36 * MIB)
        with pytest.raises(OSError, match="No space left on device"):
            stream.write(os.urandom(4 * MIB))
    assert full.run("lvs --noheadings -o lv_attr vg").stdout.split() == ["-wi-a-----"]


@needs.root
def test_a_stop_says_that_what_was_written_is_on_no_disk(full: UlvmHost) -> None:
    full.run("lvcreate -s -L 8M -n snap vg/lv")
    device = NbdDevice(str(full.run_dir / "nbd.sock"), "vg/lv")
    with suppress(DeviceError):
        for offset in range(0, 40 * MIB, MIB):
            device.write(offset, os.urandom(MIB))
    device.close()
    said = full.run("daemon stop --force", rc=5).stderr
    assert "could not take down vg-lv, " in said
    assert f"waits in {full.run_dir} for the next daemon" in said
    subprocess.run(["mount", "-o", "remount,size=200m", full.base / "small"], check=True)
    full.run("lvs")
    assert full.run("daemon stop").stdout == "  The daemon has stopped; all volumes are inactive.\n"


@needs.root
def test_no_space_for_a_copy_costs_the_snapshot_not_the_origin(full: UlvmHost) -> None:
    device = NbdDevice(str(full.run_dir / "nbd.sock"), "vg/lv")
    device.write(0, os.urandom(14 * MIB))
    device.flush()
    full.run("lvcreate -s -L 16M -n snap vg/lv")
    new = os.urandom(14 * MIB)
    device.write(0, new)  # its copies do not fit in 24 MiB
    assert device.read(0, 14 * MIB) == new
    device.flush()  # It is copied then at the latest.
    device.close()
    assert full.run("lvs --noheadings -o lv_attr vg/snap").stdout.split() == ["swi-I-s---"]


def test_no_group_is_named_mapper(vg: UlvmHost) -> None:
    """`mapper/vg-lv` is the device of vg/lv, also where nothing is called /dev/mapper."""
    vg.env["ULVM_DEV_DIR"] = str(vg.base / "dev")
    vg.image("c.img", "8M")
    said = f"  {vg.base}/dev/mapper: already exists in filesystem\n"
    assert vg.run("vgcreate mapper c.img", rc=3).stderr.startswith(said)
    assert vg.run("vgrename vg mapper", rc=5).stderr == said
    assert vg.run("vgsplit vg mapper b.img", rc=3).stderr.startswith(said)
    assert vg.run("vgs --noheadings -o vg_name").stdout.split() == ["vg"]


def test_a_group_that_another_host_has_active_stays_as_it_is(vg: UlvmHost) -> None:
    """Another user's daemon has the images, ours is busy with a group of its own."""
    (vg.base / "other").mkdir()
    with closing(UlvmHost(vg.base / "other")) as other:
        other.run(f"vgcreate og {other.image('c.img', '16M')}")
        other.run("lvcreate -L 4M -n lv og")
        for name in ("a.img", "b.img"):
            other.run(f"devices add {vg.base / name}")
        vg.run("lvchange -ay vg/lv")
        before = images(vg)
        for command in (
            "lvremove -y vg/lv",
            "vgremove -yf vg",
            "vgrename vg wg",
            "lvrename vg lv x",
        ):
            assert "a.img is in use by another program" in other.run(command, rc=5).stderr
        assert images(vg) == before
        vg.run("daemon stop")
        other.run(f"dmsetup create x --table '0 8 linear {vg.base}/a.img 0'")
        other.run("lvrename vg lv x")  # who has it is ours
        other.run("vgremove -yf vg")
