"""Metadata and allocation against LVM2's own programs, which need no device-mapper for these.

The PVs are loop devices over sparse files; both sides look at the same bytes. LVM2 runs with
`--driverloaded n`, so it changes metadata and activates nothing.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import needs
from ulvm.errors import UlvmError
from ulvm.metadata import edit, snapshot_edit
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.mda import MdaHeader, RawLocn
from ulvm.metadata.model import SnapshotSegment, StripedSegment, VolumeGroup
from ulvm.metadata.segments import PvExtents
from ulvm.metadata.snapshot_edit import add_snapshot
from ulvm.metadata.text import TextHeader, vg_to_text
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.commit import prepare
from ulvm.vgstore.host import Host
from ulvm.vgstore.pv import as_member, create_pv
from ulvm.vgstore.scan import Scan, scan

pytestmark = [needs.root, needs.loop, needs.program("lvm")]

MIB = 1 << 20
EXTENT = 2048
"""Sectors: 1 MiB."""


class Peer:
    """LVM2 and ulvm over the same loop devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = Host(folder / "etc", folder / "run")
        self.devices: list[str] = []

    def add_device(self, mib: int) -> str:
        path = self.folder / f"disk{len(self.devices)}"
        path.touch()
        os.truncate(path, mib * MIB)
        # Names in alphabetical order, whatever others hold on this machine: LVM2 goes by them.
        number = int(self.devices[-1].removeprefix("/dev/loop")) + 1 if self.devices else 10
        while subprocess.run(
            ["losetup", f"/dev/loop{number}", str(path)], capture_output=True, check=False
        ).returncode:
            number += 1
            assert number < 100, "no loop device is free"
        self.devices.append(f"/dev/loop{number}")
        return self.devices[-1]

    def close(self) -> None:
        for device in self.devices:
            subprocess.run(["losetup", "--detach", device], check=True)

    def lvm(self, *words: str, rc: int | None = 0) -> list[str]:
        """The lines that an LVM2 command prints, without its indentation."""
        ours = ",".join(f'"a|^{device}$|"' for device in self.devices)
        config = (
            f'devices{{use_devicesfile=0 filter=[{ours},"r|.*|"] obtain_device_list_from_udev=0}} '
            f"backup{{backup=0 archive=0}} "
            f'global{{event_activation=0 locking_dir="{self.folder}/lock"}} '
            "activation{udev_sync=0 udev_rules=0 monitoring=0}"
        )
        done = subprocess.run(
            ["lvm", words[0], "--config", config, "--driverloaded", "n", *words[1:]],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1", "TZ": "UTC"},
            check=False,
        )
        if rc is not None:
            assert done.returncode == rc, done.stderr
        noise = ("Activation disabled", "not zeroed", "NOT backed up", "No free extents on")
        lines = (done.stdout + done.stderr).splitlines()
        return [line.strip() for line in lines if not any(word in line for word in noise)]

    def scan(self) -> Scan:
        return scan(self.host, self.devices)

    def vg(self) -> VolumeGroup:
        found = self.scan()
        assert found.warnings == ()
        return found.vg("vg")

    def change(self, new: Callable[[VolumeGroup], VolumeGroup]) -> VolumeGroup:
        old = self.vg()
        return prepare(self.host, self.scan(), old, new(old), command="test").commit()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    made.close()


def linear(name: str, extents: int, **options: object) -> Callable[[VolumeGroup], VolumeGroup]:
    def make(vg: VolumeGroup) -> VolumeGroup:
        return edit.add_linear(
            vg, name, extents, uuid=new_uuid(), now=1795211634, host="h", **options  # type: ignore[arg-type]
        )  # fmt: skip

    return make


def snapshot(origin: str, name: str, extents: int) -> Callable[[VolumeGroup], VolumeGroup]:
    def make(vg: VolumeGroup) -> VolumeGroup:
        return add_snapshot(
            vg,
            origin,
            name,
            extents,
            chunk_size=8,
            uuid=new_uuid(),
            snapshot_uuid=new_uuid(),
            now=1795211634,
            host="h",
        )

    return make


def places(vg: VolumeGroup) -> dict[str, list[tuple[int, int, str, int]]]:
    """Of each volume (logical extent, extents, PV, physical extent) in order."""
    return {
        lv.name: [
            (segment.start_extent, segment.extent_count, area.pv_uuid, area.pe)
            for segment in lv.segments
            if isinstance(segment, StripedSegment)
            for area in segment.areas
        ]
        for lv in vg.lvs
    }


def replace_in_text(path: str, old: bytes, new: bytes) -> None:
    """In the committed text of the first metadata area, with right checksums; the same length."""
    with open(path, "r+b") as stream:
        stream.seek(4096)
        header = MdaHeader.unpack(stream.read(512), start=4096)
        locn = header.committed
        stream.seek(4096 + locn.offset)
        text = stream.read(locn.size)
        assert old in text
        assert len(old) == len(new)
        text = text.replace(old, new)
        stream.seek(4096 + locn.offset)
        stream.write(text)
        stream.seek(4096)
        stream.write(header.with_commit(RawLocn.of_text(locn.offset, text)).pack())


# -- what ulvm writes, LVM2 reads -----------------------------------------------------------------


def test_lvm2_reads_what_ulvm_wrote(peer: Peer) -> None:
    first, second = peer.add_device(64), peer.add_device(64)
    vg = edit.new_vg("vg", uuid=new_uuid(), extent_size=EXTENT, tags=("t1",))
    for path, copies in ((first, 1), (second, 2)):
        pv = create_pv(peer.host, path, uuid=new_uuid(), options=PvOptions(metadata_copies=copies))
        vg = edit.add_pv(vg, as_member(pv, EXTENT))
    prepare(peer.host, peer.scan(), None, vg, command="vgcreate").commit()
    peer.change(linear("base", 40))
    peer.change(linear("span", 70))
    peer.change(snapshot("base", "snap", 10))
    peer.change(lambda old: edit.rename_lv(old, "snap", "dash-ed"))

    assert peer.lvm("vgck", "vg") == []
    assert peer.lvm(
        "vgs",
        "--noheadings",
        "--separator",
        ":",
        "-o",
        "name,pv_count,lv_count,snap_count,vg_mda_count,seqno,tags",
    ) == ["vg:2:3:1:3:5:t1"]
    lvs = peer.lvm("lvs", "--noheadings", "--separator", ":", "-o", "name,size,origin,chunk_size")
    assert sorted(set(lvs)) == [
        "base:40.00m::0",
        "dash-ed:10.00m:base:4.00k",
        "span:70.00m::0",
    ]
    ranges = peer.lvm("lvs", "--noheadings", "-o", "seg_pe_ranges", "vg/span")
    assert ranges == [f"{second}:0-61", f"{first}:40-47"]
    assert peer.lvm(
        "pvs", "--noheadings", "--separator", ":", "-o", "pv_name,pv_size,pv_free,pv_mda_count"
    ) == [f"{first}:63.00m:5.00m:1", f"{second}:62.00m:0 :2"]


def test_lvm2_sees_the_old_metadata_until_the_commit(peer: Peer) -> None:
    a, b = peer.add_device(32), peer.add_device(32)
    peer.lvm("pvcreate", a, b)
    peer.lvm("vgcreate", "-s", "1m", "vg", a, b)
    old = peer.vg()
    pending = prepare(peer.host, peer.scan(), old, linear("x", 3)(old), command="test")
    assert peer.lvm("lvs", "--noheadings", "vg") == []
    pending.commit()
    assert peer.lvm("lvs", "--noheadings", "-o", "name", "vg") == ["x"]


def test_each_writes_after_the_other_round_the_ring(peer: Peer) -> None:
    """A small area: texts of both go round it many times, each beside the other's."""
    a = peer.add_device(32)
    peer.lvm("pvcreate", "--metadatasize", "32k", "--dataalignment", "4k", a)
    peer.lvm("vgcreate", "-s", "1m", "vg", a)
    offsets = set()
    for number in range(30):
        peer.change(linear(f"u{number % 3}", 1))
        peer.lvm("lvcreate", "-an", "-Zn", "-l", "1", "-n", f"l{number % 3}", "vg")
        if number % 3 == 2:
            for name in ("u0", "u1", "u2"):
                peer.lvm("lvremove", "-y", f"vg/{name}")
            for name in ("l0", "l1", "l2"):
                peer.change(lambda vg, name=name: edit.remove_lv(vg, name))  # type: ignore[misc]
        (mda,) = peer.scan().pvs[0].mdas
        assert mda.header is not None
        offsets.add(mda.header.committed.offset)
    assert peer.vg().seqno == 1 + 30 * 2 + 10 * 6
    assert min(offsets) < 2048
    assert max(offsets) > 24 << 10


def test_a_pv_that_leaves_belongs_to_nobody(peer: Peer) -> None:
    a, b = peer.add_device(32), peer.add_device(32)
    peer.lvm("pvcreate", a, b)
    peer.lvm("vgcreate", "-s", "1m", "vg", a, b)
    gone = peer.scan().pv(b).uuid
    peer.change(lambda vg: edit.remove_pv(vg, gone))
    assert peer.lvm("pvs", "--noheadings", "-o", "pv_name,vg_name") == [f"{a} vg", b]
    assert peer.lvm("vgextend", "vg", b) == ['Volume group "vg" successfully extended']
    assert len(peer.vg().pvs) == 2


# -- what LVM2 writes, ulvm reads -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("", PvOptions()),
        ("--bootloaderareasize 2m", PvOptions(bootloader_area_size=4096)),
        (
            "--metadatasize 3m --dataalignment 64k",
            PvOptions(metadata_size=6144, data_alignment=128),
        ),
        (
            "--metadatasize 100k --dataalignment 1k",
            PvOptions(metadata_size=200, data_alignment=2),
        ),
        (
            "--dataalignment 192k --dataalignmentoffset 7s",
            PvOptions(data_alignment=384, data_alignment_offset=7),
        ),
        ("--pvmetadatacopies 2", PvOptions(metadata_copies=2)),
        ("--pvmetadatacopies 0", PvOptions(metadata_copies=0)),
        ("--labelsector 3", PvOptions(label_sector=3)),
    ],
)
def test_pvcreate_makes_the_same_label(peer: Peer, words: str, options: PvOptions) -> None:
    theirs, ours = peer.add_device(64), peer.add_device(64)
    peer.lvm("pvcreate", *words.split(), theirs)
    written = peer.scan().pv(theirs).label
    made = create_pv(peer.host, ours, uuid=written.pv_header.uuid, options=options)
    assert made.label == written
    sectors = [Path(path).read_bytes()[: 8 * 512] for path in (theirs, ours)]
    assert sectors[0] == sectors[1]


def test_texts_of_lvm2_round_trip(peer: Peer) -> None:
    """What LVM2 writes for odd settings, read and written back: but for the header, the same."""
    a, b = peer.add_device(64), peer.add_device(64)
    peer.lvm("pvcreate", a, b)
    peer.lvm("vgcreate", "-s", "1m", "-l", "9", "-p", "7", "--alloc", "cling", "vg", a, b)
    peer.lvm("vgchange", "--addtag", "x/y", "vg")
    peer.lvm("pvchange", "--addtag", "fast", a)
    peer.lvm("pvchange", "-x", "n", b)
    peer.lvm("pvchange", "-x", "y", b)
    create = ("lvcreate", "-an", "-Zn", "-y")
    peer.lvm(*create, "-i", "2", "-I", "64k", "-l", "6", "-n", "striped", "vg")
    peer.lvm(*create, "--alloc", "anywhere", "-l", "3", "-p", "r", "-n", "ro", "vg")
    peer.lvm(*create, "--addtag", "t", "-r", "none", "-l", "3", "-n", "ahead", "vg")
    peer.lvm(*create, "-k", "y", "--setautoactivation", "n", "-l", "3", "-n", "skip", "vg")
    peer.lvm(*create, "--type", "zero", "-l", "3", "-n", "nothing", "vg")
    (mda,) = peer.scan().pv(a).mdas
    assert mda.header is not None
    locn = mda.header.committed
    with open(a, "rb") as stream:
        stream.seek(4096 + locn.offset)
        theirs = stream.read(locn.size).rstrip(b"\0").decode()
    ours = vg_to_text(peer.vg(), TextHeader("", "", 0, ""))
    marker = "# Generated by"
    assert ours.partition(marker)[0] == theirs.partition(marker)[0]


def test_an_unknown_segment_type_can_be_looked_at_and_not_changed(peer: Peer) -> None:
    a, b = peer.add_device(64), peer.add_device(64)
    peer.lvm("pvcreate", a, b)
    peer.lvm("vgcreate", "-s", "1m", "vg", a, b)
    peer.lvm("lvcreate", "-an", "-Zn", "-y", "-l", "6", "-n", "odd", "vg")
    for path in (a, b):
        replace_in_text(path, b'type = "striped"', b'type = "strange"')
    found = peer.scan()
    warning = "WARNING: Unrecognised segment type strange"
    assert found.warnings == (warning,)
    vg = found.vg("vg")
    assert [(lv.name, lv.extent_count) for lv in vg.lvs] == [("odd", 6)]
    assert peer.lvm("lvs", "--noheadings", "-o", "name") == ["odd", warning]
    before = [Path(path).read_bytes()[: 2 * MIB] for path in (a, b)]
    with pytest.raises(UlvmError) as caught:
        prepare(peer.host, found, vg, linear("x", 1)(vg), command="test")
    theirs = peer.lvm("lvcreate", "-an", "-Zn", "-y", "-l", "1", "-n", "x", "vg", rc=5)
    assert [warning, *caught.value.message.splitlines()] == theirs
    assert [Path(path).read_bytes()[: 2 * MIB] for path in (a, b)] == before


def test_duplicates_and_names_that_are_taken_twice(peer: Peer) -> None:
    a, b, c = (peer.add_device(32) for _ in range(3))
    peer.lvm("pvcreate", a, b)
    for path in (a, b):
        others = [d for d in peer.devices if d != path]
        peer.devices = [path]
        peer.lvm("vgcreate", "-s", "1m", "vg", path)
        peer.devices = sorted([path, *others])
    first, second = (vg.uuid for vg in peer.scan().vgs)
    (warning,) = peer.scan().warnings
    assert warning.startswith("WARNING: VG name vg is used by VGs ")
    assert first in warning
    assert second in warning
    with pytest.raises(UlvmError, match="Multiple VGs found with the same name: skipping vg"):
        peer.scan().vg("vg")
    assert "Multiple VGs found with the same name: skipping vg" in peer.lvm("lvs", "vg", rc=5)

    Path(b).write_bytes(bytes(2 * MIB))
    with open(a, "rb") as source, open(c, "r+b") as copy:
        copy.write(source.read(2 * MIB))
    found = peer.scan()
    assert sorted(found.warnings) == sorted(peer.lvm("vgs", "--noheadings", "-o", "uuid")[1:])
    theirs = peer.lvm("lvcreate", "-an", "-Zn", "-y", "-l", "1", "-n", "x", "vg", rc=5)
    with pytest.raises(UlvmError) as caught:
        prepare(peer.host, found, found.vg("vg"), linear("x", 1)(found.vg("vg")), command="test")
    assert caught.value.message == theirs[-1]
    with pytest.raises(UlvmError) as caught:
        found.pv(c)
    assert caught.value.message == peer.lvm("pvcreate", c, rc=5)[-1]


# -- where volumes are put ------------------------------------------------------------------------


class Random:
    """The same random changes asked of both: LVM2 makes them, ulvm says what it would have done."""

    def __init__(self, peer: Peer, seed: int) -> None:
        self.peer = peer
        self.choose = random.Random(seed)
        self.count = 0
        devices = [peer.add_device(self.choose.choice([20, 30, 40, 50])) for _ in range(3)]
        peer.lvm("pvcreate", *devices)
        peer.lvm("vgcreate", "-s", "1m", "vg", *devices)
        self.vg = peer.vg()

    def step(self, policies: list[str]) -> None:
        words, ours = self._pick(policies)
        expected: VolumeGroup | None = None
        refusal = ""
        try:
            expected = ours(self.vg)
        except UlvmError as error:
            refusal = error.message
        said = self.peer.lvm(*words, rc=None)
        now = self.peer.vg()
        if now.seqno == self.vg.seqno:
            assert [refusal] == said, words
        else:
            assert expected is not None, f"{words}: {refusal}"
            assert places(expected) == places(now), f"{words} in {places(self.vg)}"
        self.vg = now

    def _pick(
        self, policies: list[str]
    ) -> tuple[tuple[str, ...], Callable[[VolumeGroup], VolumeGroup]]:
        choose, names = self.choose, [lv.name for lv in self.vg.lvs]
        pvs = choose.sample(self.vg.pvs, choose.choice([1, 2])) if choose.random() < 0.25 else []
        where = [PvExtents(pv.uuid) for pv in pvs] or None
        paths = [pv.device for pv in pvs]
        what = choose.choice(["create", "create", "extend", "extend", "remove", "reduce"])
        if what == "create" or not names:
            self.count += 1
            name, extents, policy = (
                f"v{self.count}",
                choose.randrange(1, 25),
                choose.choice(policies),
            )
            return (
                ("lvcreate", "-an", "-Zn", "-y", "--alloc", policy, "-l", str(extents), "-n", name,
                 "vg", *paths),
                linear(name, extents, places=where, policy=policy),
            )  # fmt: skip
        name = choose.choice(names)
        lv = self.vg.lv(name)
        assert lv is not None
        if what == "extend":
            extents = lv.extent_count + choose.randrange(1, 20)
            return (
                ("lvextend", "-l", str(extents), f"vg/{name}", *paths),
                lambda vg: edit.extend_lv(vg, name, extents, places=where),
            )
        if what == "remove":
            return ("lvremove", "-y", f"vg/{name}"), lambda vg: edit.remove_lv(vg, name)
        extents = choose.randrange(1, lv.extent_count + 1)
        return (
            ("lvreduce", "-f", "-l", str(extents), f"vg/{name}"),
            lambda vg: edit.reduce_lv(vg, name, extents),
        )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policies", [["normal"], ["normal", "contiguous", "cling", "anywhere"]])
def test_volumes_are_put_where_lvm2_puts_them(peer: Peer, seed: int, policies: list[str]) -> None:
    changes = Random(peer, seed)
    for _ in range(60):
        changes.step(policies)


def test_a_snapshot_written_by_ulvm_is_one_for_lvm2(peer: Peer) -> None:
    a = peer.add_device(64)
    peer.lvm("pvcreate", a)
    peer.lvm("vgcreate", "-s", "1m", "vg", a)
    peer.change(linear("base", 8))
    peer.change(snapshot("base", "s1", 50))
    peer.change(snapshot("base", "s2", 3))
    peer.change(lambda vg: snapshot_edit.start_merge(vg, "s1"))
    segments = [s for s in peer.vg().snapshot_segments() if isinstance(s, SnapshotSegment)]
    assert [(s.cow, s.merging) for s in segments] == [("s1", True), ("s2", False)]
    shown = peer.lvm(
        "lvs", "-a", "--noheadings", "--separator", ":", "-o", "name,origin,lv_merging"
    )
    assert sorted(shown) == ["[s1]:base:merging", "base::merging", "s2:base:"]
    assert peer.lvm("vgck", "vg") == []
