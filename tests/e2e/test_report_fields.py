"""Fields of reports as LVM2 shows them: what groups that changed hands showed differently."""

from __future__ import annotations

from tests.e2e.host import UlvmHost


def fields(host: UlvmHost, volume: str, names: str) -> list[str]:
    command = f"lvs --noheadings --separator | --units s --nosuffix -o {names} {volume}"
    return host.run(command.replace("|", "'|'")).stdout.strip().split("|")


def test_a_striped_volume(host: UlvmHost) -> None:
    a, b = host.image("a.img", "32M"), host.image("b.img", "32M")
    host.run(f"vgcreate -s 256k vg {a} {b}")
    host.run("lvcreate -Wn -i 2 -I 64k -L 2M -n wide vg")
    host.run("lvcreate -Wn -i 2 -I 4k -L 2M -n narrow vg")
    # Two stripes of each disk, and no less than what the kernel reads ahead by itself.
    assert fields(host, "vg/wide", "lv_kernel_read_ahead") == ["512"]
    assert fields(host, "vg/narrow", "lv_kernel_read_ahead") == ["256"]
    host.run("lvcreate -s -L 512k -n snap vg/wide")
    assert fields(host, "vg/snap", "lv_kernel_read_ahead") == ["512"]
    ranges = fields(host, "vg/wide", "seg_pe_ranges,seg_le_ranges")
    assert ranges == [f"{a}:0-3 {b}:0-3", f"{a}:0-3,{b}:0-3"]


def test_snapshots_are_listed_as_the_group_has_them(host: UlvmHost) -> None:
    host.run(f"vgcreate -s 256k vg {host.image('a.img', '32M')}")
    host.run("lvcreate -Wn -L 2M -n base vg")
    for name in ("s6", "s11", "a1"):
        host.run(f"lvcreate -s -L 512k -n {name} vg/base")
    assert fields(host, "vg/base", "lv_descendants,lv_full_descendants") == ["s6,s11,a1"] * 2


def test_an_inactive_volume(host: UlvmHost) -> None:
    host.run(f"vgcreate -s 256k vg {host.image('a.img', '32M')}")
    host.run("lvcreate -Wn -L 2M -n base vg")
    names = "lv_active_locally,lv_active_remotely,lv_active_exclusively,lv_permissions,lv_suspended"
    active = ["active locally", "", "active exclusively", "writeable", ""]
    assert fields(host, "vg/base", names) == active
    host.run("vgchange -an vg")
    assert fields(host, "vg/base", names) == ["", "", "", "unknown", "unknown"]


def test_devices_beside_the_volumes_on_them(host: UlvmHost) -> None:
    a, b = host.image("a.img", "32M"), host.image("b.img", "32M")
    host.run(f"vgcreate -s 256k vg {a} {b}")
    host.run("lvcreate -Wn -L 2M -n base vg")
    host.run("lvcreate -an -Zn -L 2M -n off vg")
    shown = host.run("pvs --noheadings -o lv_name,lv_attr,lv_active,lv_kernel_minor -S lv_name!=''")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["base", "-wi-a-----", "active", "0"],
        ["off", "-wi-------", "-1"],
    ]
    host.run("pvchange --addtag busy -S lv_active=active")
    tags = host.run("pvs --noheadings --separator : -o pv_name,pv_tags").stdout.split()
    assert tags == [f"{a}:busy", f"{b}:"]
    parts = "--configreport pvseg -o lv_attr --configreport lv -o lv_name"
    assert "-wi-a-----" in host.run(f"fullreport vg {parts}").stdout
    asked = host.run("lvs --readonly --noheadings -o lv_active,lv_active_locally vg/base")
    assert asked.stdout.split() == ["unknown", "unknown"]


def test_vgcfgbackup_writes_where_the_disks_are_now(host: UlvmHost) -> None:
    a, b = host.image("a.img", "32M"), host.image("b.img", "32M")
    host.run(f"vgcreate -s 256k vg {a} {b}")
    moved = host.base / "moved.img"
    a.rename(moved)
    b.rename(host.base / "away")
    host.run(f"devices add {moved}")
    host.run(f"vgcfgbackup -f {host.base}/text vg")
    text = (host.base / "text").read_text()
    assert f'device = "{moved}"' in text
    assert 'device = "[unknown]"' in text
    assert 'flags = ["MISSING"]' in text
    assert "a.img" not in text


def test_who_changes_selects_by_what_is_shown(host: UlvmHost) -> None:
    """Whether a snapshot is watched is a segment's field, which the daemon is asked for."""
    host.run(f"vgcreate vg {host.image('a.img', '64M')}")
    host.run("lvcreate -n lv -L 4M vg")
    host.run("lvcreate -s -n s -L 4M vg/lv")
    host.run("lvchange --addtag seen vg -S seg_monitor=monitored")
    for way in ("-S seg_monitor=monitored", "-S lv_tags=seen"):
        assert host.run(f"lvs --noheadings -o lv_name {way} vg").stdout.split() == ["s"]
