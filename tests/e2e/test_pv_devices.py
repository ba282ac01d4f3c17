"""The devices file by LVM's command (lvmdevices, vgimportdevices)."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.waiting import until


@pytest.fixture
def host(short_tmp: Path) -> Iterator[UlvmHost]:
    made = UlvmHost(short_tmp)
    yield made
    made.close()


def pvid(host: UlvmHost, path: Path) -> str:
    return host.run(f"pvs --noheadings -o pv_uuid {path}").stdout.strip().replace("-", "")


def test_lvmdevices(host: UlvmHost) -> None:
    assert host.run("lvmdevices", rc=5).stderr == "  Devices file does not exist.\n"
    a, b = host.image("a", "8M"), host.image("b", "8M")
    host.run(f"vgcreate vg {a} {b}")
    first, second = pvid(host, a), pvid(host, b)
    line = "  Device {0} IDTYPE=devname IDNAME={0} DEVNAME={0} PVID={1}\n"
    listed = line.format(a, first) + line.format(b, second)
    assert host.run("lvmdevices").stdout == listed
    host.run("lvmdevices --check")
    assert host.run("lvmdevices --update").stdout == "  No update for devices file is needed.\n"

    host.run(f"lvmdevices --deldev {b}")
    assert "is missing PV" in host.run("vgs").stderr
    assert "No devices file entry" in host.run(f"lvmdevices --deldev {b}", rc=5).stderr
    found = host.run(f"lvmdevices --addpvid {second}").stdout
    assert found == f"  Found PVID {second} on {b}.\n"
    assert "already exists" in host.run(f"lvmdevices --addpvid {second}", rc=5).stderr
    host.run(f"lvmdevices --delpvid {second}")
    host.run(f"lvmdevices -t --adddev {b}")
    assert host.run("lvmdevices").stdout == line.format(a, first)
    host.run(f"lvmdevices --adddev {b}")
    assert host.run("lvmdevices").stdout == listed

    # Files that have other names now, and one that is gone.
    moved = b.with_name("moved")
    b.rename(moved)
    said = host.run("lvmdevices --check", rc=5).stderr
    assert f"Device {moved} has updated name (devices file {b})" in said
    host.run("lvmdevices --update")
    assert host.run("lvmdevices").stdout == line.format(a, first) + line.format(moved, second)
    assert host.run("vgck vg").stderr == ""
    moved.unlink()
    assert f"PVID {second} last seen on {moved} not found" in host.run("lvmdevices --check").stderr
    assert "Device none" in host.run("lvmdevices").stdout


def test_groups_of_another_host_are_imported(host: UlvmHost) -> None:
    a, b, c = (host.image(name, "8M") for name in "abc")
    # Names that no disk of this machine has on it, since those are looked at as well.
    host.run(f"vgcreate ulvm_mine {a} {b}")
    host.run(f"vgcreate ulvm_other {c}")
    shutil.rmtree(host.system_dir / "devices")
    host.run(f"lvmdevices --adddev {c}")
    assert "not found" in host.run("vgimportdevices ulvm_nope", rc=5).stderr
    assert host.run("vgimportdevices ulvm_mine").stdout == "  Added 2 devices to devices file.\n"
    assert host.run("vgs --noheadings -o vg_name").stdout.split() == ["ulvm_mine", "ulvm_other"]


def attach(image: Path) -> str:
    done = subprocess.run(
        ["losetup", "--find", "--show", image], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def detach(loop: str) -> None:
    subprocess.run(["losetup", "--detach", loop], check=True)


@needs.root
@needs.loop
def test_a_disk_is_known_by_what_it_is_whatever_its_name(host: UlvmHost) -> None:
    image, other = host.image("a", "8M"), host.image("b", "8M")
    line = "  Device {} IDTYPE=loop_file IDNAME={} DEVNAME={} PVID={}\n"
    loop = attach(image)
    held = [loop]
    try:
        host.run(f"vgcreate vg {loop}")
        own = pvid(host, Path(loop))
        assert host.run("lvmdevices").stdout == line.format(loop, image, loop, own)
        refused = host.run(f"lvmdevices --adddev {loop} --deviceidtype sys_wwid").stderr
        assert refused.endswith("deviceidtype sys_wwid which is not available for device.\n")
        # Another image takes the name, and the first one another.
        detach(held.pop())
        subprocess.run(["losetup", loop, other], check=True)
        held.append(loop)
        held.append(moved := attach(image))
        assert host.run("pvs --noheadings -o pv_name").stdout.split() == [moved]
        assert host.run("lvmdevices").stdout == line.format(moved, image, loop, own)
        said = f"  Device {moved} has updated name (devices file {loop})\n"
        assert said in host.run("lvmdevices --check", rc=5).stderr
        host.run("lvmdevices --update")
        assert host.run("lvmdevices").stdout == line.format(moved, image, moved, own)
        # It is gone: nothing else is taken for it.
        detach(held.pop())
        done = host.run("pvs --noheadings -o pv_name")
        assert (done.stdout, "last seen on" in done.stderr) == ("", True)
        host.run(f"lvmdevices --deldev {image} --deviceidtype sys_wwid", rc=5)
        host.run(f"lvmdevices --deldev {image} --deviceidtype loop_file")
        assert host.run("lvmdevices").stdout == ""
    finally:
        for each in held:
            detach(each)


def test_a_devices_file_has_a_name_and_no_path(host: UlvmHost) -> None:
    for name in ("../a", "a'b", 'a"b', "a" * 128):
        done = host.attempt(f"vgs --devicesfile {shlex.quote(name)}")
        assert (done.rc, done.stderr.splitlines()[0]) == (3, "  Invalid devices file name.")
    host.run("vgs --config 'devices/devicesfile=\"a/b\"'", rc=5)


def test_a_device_may_be_named_by_a_link(host: UlvmHost) -> None:
    host.image("a", "8M")
    host.image("b", "8M")
    (host.base / "by-id").symlink_to(host.base / "a")
    host.run("vgcreate -s 1M vg a b")
    assert "a--" in host.run("pvs by-id").stdout
    assert "1 physical volume changed" in host.run("pvchange --addtag t by-id").stdout
    assert "1 physical volume(s) resized" in host.run("pvresize by-id").stdout
    host.run("lvcreate -l 1 -n lv vg by-id")
    assert "100.00%" in host.run("pvmove by-id").stdout
    assert "PV Size" in host.run("pvdisplay by-id").stdout
    host.run("lvmdevices --deldev by-id")


@needs.fuse
def test_a_merge_in_the_background_ends_on_devices_that_were_named(host: UlvmHost) -> None:
    """They are in no devices file that who sees to its end would read."""
    image = host.image("a", "16M")
    host.run(f"vgcreate -s 1M vg {image}")
    host.run("lvcreate -L4M -n o vg")
    host.run("lvcreate -s -L2M -n s vg/o")
    host.run(f"lvmdevices --deldev {image}")
    assert host.run("lvs").stdout == ""
    host.run(f"lvconvert --merge -b vg/s --devices {image}")
    shown = f"lvs -a --noheadings -o lv_name,lv_attr --devices {image} vg"
    until(lambda: host.run(shown).stdout.split() == ["o", "-wi-a-----"])


@pytest.mark.parametrize("name", ["my disk.img", "a\\040b", "a\nb\tc", "a\u2028b \\"])
def test_a_path_may_hold_any_letter(host: UlvmHost, name: str) -> None:
    """A table's line has words between blanks; the state after kill -9 has lines, too."""
    image = shlex.quote(str(host.image(name, "64M")))
    host.run(f"vgcreate vg {image}")
    host.run("lvcreate -L 8M -n a vg")
    host.run("lvcreate -s -L 4M -n s vg/a")
    shown = [host.run(f"dmsetup table {name}").stdout for name in ("vg-a-real", "vg-s")]
    os.kill(host.daemon_pid(), signal.SIGKILL)
    host.run("lvs vg")
    assert [host.run(f"dmsetup table {name}").stdout for name in ("vg-a-real", "vg-s")] == shown
    host.run("lvextend -L 8M vg/s")
    host.run("lvconvert --merge vg/s")
    host.run("vgremove -f vg")
    path = str(host.base / name).replace("\\", r"\\").replace(" ", r"\ ")
    if name.splitlines() == [name]:  # as a table on a command line has them
        host.run("dmsetup create x --table " + shlex.quote(f"0 8 linear {path} 8"))


def test_an_active_volume_stays_on_its_disk_when_a_copy_comes_up(host: UlvmHost) -> None:
    """Nothing else tells them apart: the disk has another name than when its group was changed
    last, and the copy is found first."""
    settings = host.system_dir / "ulvm.conf"
    settings.write_text(settings.read_text() + "devices { allow_changes_with_duplicate_pvs = 1 }\n")
    first = host.image("first", "16M")
    host.run(f"vgcreate -s 1M vg {first}")
    host.run("lvcreate -l 4 -n lv vg")
    host.run("vgchange -an vg")
    disk, copy = first.rename(host.base / "disk"), host.base / "copy"
    host.run("lvmdevices --update")
    shutil.copy(disk, copy)
    host.run("vgchange -ay vg")
    host.path("vg/lv").write_bytes(b"d" * (4 << 20))
    host.run(f"lvmdevices --deldev {disk}")
    host.run(f"lvmdevices --adddev {copy}")
    host.run(f"lvmdevices --adddev {disk}")
    shown = host.run("pvs --noheadings -o pv_name")
    assert shown.stdout.split() == [str(disk)]
    assert f"prefers device {disk} because device is used by LV." in shown.stderr
    before = copy.read_bytes()
    host.run("lvextend -l +1 vg/lv")
    assert copy.read_bytes() == before
    with host.path("vg/lv").open("rb") as file:
        assert file.read(4 << 20) == b"d" * (4 << 20)
