"""Two volume groups of one name, as when disks of two hosts come together."""

from __future__ import annotations

import os
import signal

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.waiting import until


@pytest.fixture
def twins(host: UlvmHost) -> tuple[UlvmHost, list[str]]:
    """vg on a.img with `one`, and another vg on b.img with `two` and `one`; their UUIDs."""
    a, b = host.image("a.img", "64M"), host.image("b.img", "64M")
    host.run(f"vgcreate -s 1M vg {a}")
    host.run("lvcreate -an -Zn -Wn -l 4 -n one vg")
    first = host.run("vgs --noheadings -o vg_uuid vg").stdout.strip()
    host.run(f"lvmdevices --deldev {a}")
    host.run(f"vgcreate -s 1M vg {b}")
    host.run("lvcreate -an -Zn -Wn -l 6 -n two vg")
    host.run("lvcreate -an -Zn -Wn -l 6 -n one vg")
    second = host.run("vgs --noheadings -o vg_uuid vg").stdout.strip()
    host.run(f"lvmdevices --adddev {a}")
    return host, [first, second]


def shown(host: UlvmHost, fields: str) -> list[str]:
    return sorted(host.run(f"lvs --noheadings -o {fields}").stdout.split())


def test_both_are_shown_and_a_name_alone_is_not_enough(
    twins: tuple[UlvmHost, list[str]],
) -> None:
    host, uuids = twins
    assert sorted(host.run("vgs --noheadings -o vg_uuid").stdout.split()) == sorted(uuids)
    assert shown(host, "lv_name") == ["one", "one", "two"]
    assert host.run("lvdisplay -c").stdout.count("/dev/vg/one:") == 2
    before = [(host.base / name).read_bytes() for name in ("a.img", "b.img")]
    refused = host.run("vgremove -y vg", rc=5).stderr
    assert "Multiple VGs found with the same name: skipping vg" in refused
    assert "Use --select vg_uuid=<uuid> in place of the VG name." in refused
    assert "Fix duplicate VG names with vgrename uuid" in refused
    assert [(host.base / name).read_bytes() for name in ("a.img", "b.img")] == before


def test_one_is_renamed_by_its_uuid(twins: tuple[UlvmHost, list[str]]) -> None:
    host, uuids = twins
    other = (host.base / "a.img").read_bytes()
    host.run(f"vgrename {uuids[1]} new")
    assert (host.base / "a.img").read_bytes() == other
    found = host.run("vgs --noheadings -o vg_name,vg_uuid")
    assert sorted(found.stdout.split()) == sorted(["vg", uuids[0], "new", uuids[1]])
    assert "WARNING" not in found.stderr
    host.run("vgchange -ay")
    assert shown(host, "lv_full_name") == ["new/one", "new/two", "vg/one"]


def test_one_is_chosen_by_its_uuid(twins: tuple[UlvmHost, list[str]]) -> None:
    host, uuids = twins
    other = (host.base / "a.img").read_bytes()
    host.run(f"vgchange --addtag t -S vg_uuid={uuids[1]}")
    host.run(f"pvchange --addtag p {host.base}/b.img")
    tags = host.run("pvs --noheadings -o vg_uuid,vg_tags,pv_tags").stdout.split()
    assert sorted(tags) == sorted([*uuids, "t", "p"])
    # Of volumes of one name it is seen which is active.
    host.run(f"vgchange -ay -S vg_uuid={uuids[1]}")
    active = host.run("lvs --noheadings -o vg_uuid,lv_active").stdout
    assert [line.split()[0] for line in active.splitlines() if "active" in line] == [uuids[1]] * 2
    host.run("vgchange -an")
    host.run(f"vgremove -y -S vg_uuid={uuids[1]}")
    assert host.run("vgs --noheadings -o vg_uuid").stdout.split() == [uuids[0]]
    assert (host.base / "a.img").read_bytes() == other


def test_volumes_of_one_are_chosen_by_its_uuid(twins: tuple[UlvmHost, list[str]]) -> None:
    host, uuids = twins
    other = (host.base / "a.img").read_bytes()
    select = f"-S vg_uuid={uuids[1]}"
    assert host.run(f"lvdisplay -c {select}").stdout.count("/dev/vg/") == 2
    host.run(f"lvchange -ay --addtag t {select}")
    found = host.run("lvs --noheadings --separator , -o vg_uuid,lv_name,lv_active,lv_tags").stdout
    assert sorted(found.split()) == sorted(
        [f"{uuids[0]},one,,", f"{uuids[1]},one,active,t", f"{uuids[1]},two,active,t"]
    )
    host.run(f"lvremove -y {select}")
    assert shown(host, "vg_uuid,lv_name") == sorted([uuids[0], "one"])
    assert "Multiple VGs found" in host.run("lvremove -y vg/one", rc=5).stderr
    assert (host.base / "a.img").read_bytes() == other


def test_those_that_a_tag_names_are_shown(twins: tuple[UlvmHost, list[str]]) -> None:
    host, uuids = twins
    host.run(f"vgchange --addtag t -S vg_uuid={uuids[1]}")
    host.run(f"lvchange --addtag v -S vg_uuid={uuids[0]}")
    assert host.run("vgs --noheadings -o vg_uuid @t").stdout.split() == [uuids[1]]
    assert host.run("vgs --noheadings -o pv_name @t").stdout.split() == [f"{host.base}/b.img"]
    fields = "--noheadings --separator , -o vg_uuid,lv_name"
    whole = [f"{uuids[1]},one", f"{uuids[1]},two"]
    assert sorted(host.run(f"lvs {fields} @t").stdout.split()) == whole
    assert host.run(f"lvs {fields} @v").stdout.split() == [f"{uuids[0]},one"]
    found = host.run(f"lvs {fields} @t @v").stdout.split()
    assert sorted(found) == sorted([*whole, f"{uuids[0]},one"])
    # A name is not enough, even if a tag has one of them.
    for command in ("vgs vg @t", "lvs vg @t", "lvs vg/two @t"):
        assert "Multiple VGs found with the same name" in host.run(command, rc=5).stderr


@pytest.fixture
def snapshot(twins: tuple[UlvmHost, list[str]]) -> tuple[UlvmHost, str]:
    """`one` of the second group has a snapshot with the tag `t`; that group's UUID."""
    host, uuids = twins
    host.run(f"lvmdevices --deldev {host.base}/a.img")
    host.run("lvchange -ay vg/one")
    host.run("lvcreate -s -l 100%ORIGIN -n snap --addtag t vg/one")
    host.path("vg/one").write_bytes(os.urandom(6 << 20))
    host.run(f"lvmdevices --adddev {host.base}/a.img")
    return host, uuids[1]


def merged(host: UlvmHost, uuid: str) -> bool:
    found = host.run(f"lvs -a --noheadings -o lv_name,lv_attr -S vg_uuid={uuid}").stdout.split()
    return found[:2] == ["one", "-wi-a-----"] and "snap" not in found


@needs.fuse
def test_a_merge_of_one_ends_in_the_background(snapshot: tuple[UlvmHost, str]) -> None:
    host, uuid = snapshot
    host.run("lvconvert --merge -b @t")
    until(lambda: merged(host, uuid))


@needs.fuse
def test_a_merge_of_one_that_waited_ends(snapshot: tuple[UlvmHost, str]) -> None:
    host, uuid = snapshot
    host.run(f"vgchange -an -S vg_uuid={uuid}")
    host.run("lvconvert --merge @t")
    host.run(f"vgchange -ay -S vg_uuid={uuid}")
    until(lambda: merged(host, uuid))


@needs.fuse
def test_a_merge_of_one_ends_though_all_who_waited_were_killed(
    snapshot: tuple[UlvmHost, str],
) -> None:
    host, uuid = snapshot
    host.run(f"vgchange -an -S vg_uuid={uuid}")
    host.run("lvconvert --merge @t")
    host.run(f"vgchange -ay --poll n -S vg_uuid={uuid}")
    os.kill(host.daemon_pid(), signal.SIGKILL)
    host.run("lvs")  # starts the next one
    until(lambda: merged(host, uuid))


@needs.fuse
def test_what_a_dead_command_left_of_one_is_resumed(snapshot: tuple[UlvmHost, str]) -> None:
    host, uuid = snapshot
    host.env["ULVM_FAULT_POINT"] = "at=after suspend"
    assert host.attempt(f"lvchange -pr -S 'vg_uuid={uuid} && lv_name=one'").rc == -signal.SIGKILL
    del host.env["ULVM_FAULT_POINT"]
    until(lambda: "left suspended" in host.log())
    until(lambda: "SUSPENDED" not in host.run("dmsetup info").stdout)


@needs.fuse
def test_a_snapshot_of_one_is_extended_in_time(twins: tuple[UlvmHost, list[str]]) -> None:
    host, uuids = twins
    host.run(f"lvmdevices --deldev {host.base}/a.img")
    host.run("lvchange -ay vg/one")
    host.run("lvcreate -s -l 2 -n snap vg/one")
    host.run(f"lvmdevices --adddev {host.base}/a.img")
    host.path("vg/one").write_bytes(os.urandom(3 << 19))
    (host.system_dir / "ulvm.conf").write_text(
        "activation { snapshot_autoextend_threshold = 60 snapshot_autoextend_percent = 100 }"
    )
    select = f"-S 'vg_uuid={uuids[1]} && lv_name=snap'"
    until(lambda: host.run(f"lvs --noheadings -o lv_size {select}").stdout.strip() == "4.00m")


def test_a_move_is_in_the_group_of_its_pv(twins: tuple[UlvmHost, list[str]]) -> None:
    host, uuids = twins
    host.run(f"lvmdevices --deldev {host.base}/a.img")
    host.run(f"vgextend vg {host.image('c.img', '64M')}")
    host.run(f"lvmdevices --adddev {host.base}/a.img")

    def used() -> list[float]:
        fields = "--noheadings --units m --nosuffix -o pv_used"
        return [float(word) for word in host.run(f"pvs {fields} b.img c.img").stdout.split()]

    assert used() == [12, 0]
    host.run("pvmove -i0 b.img c.img")
    assert used() == [0, 12]
    host.run("pvmove -b -i0 c.img b.img")
    until(lambda: used() == [12, 0])
    host.env["ULVM_FAULT_POINT"] = "at=after a move was begun"
    assert host.attempt("pvmove b.img c.img").rc == -signal.SIGKILL
    del host.env["ULVM_FAULT_POINT"]
    host.run("pvmove --abort")
    assert used() == [12, 0]
    assert host.run(f"lvs -a --noheadings -o lv_name -S vg_uuid={uuids[1]}").stdout.split() == [
        "one",
        "two",
    ]


def test_all_is_taken_down(twins: tuple[UlvmHost, list[str]]) -> None:
    host, uuids = twins
    host.run(f"vgchange -ay -S vg_uuid={uuids[1]}")
    host.run("blkdeactivate")
    assert host.run("dmsetup ls").stdout == "No devices found\n"
    host.run(f"vgchange -ay -S vg_uuid={uuids[1]}")
    host.run("blkdeactivate -l wholevg")
    assert host.run("dmsetup ls").stdout == "No devices found\n"


def test_each_pv_comes_online_once(twins: tuple[UlvmHost, list[str]]) -> None:
    host, _ = twins
    found = host.run("pvscan --cache").stdout.splitlines()
    assert sorted(line.partition("]")[2] for line in found) == [
        f" PV {host.base}/{name} online." for name in ("a.img", "b.img")
    ]
