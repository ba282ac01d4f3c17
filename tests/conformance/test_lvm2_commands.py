"""The same command lines typed to LVM2 and to ulvm: the same words and exit codes.

Both work on loop devices of their own; LVM2 runs with `--driverloaded n`, so only what needs no
active volume is typed. What differs by nature is made alike: device names, UUIDs, and the blanks
that follow from the length of a name.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.conformance.test_lvm2_metadata import Peer
from tests.e2e.host import Result, UlvmHost

pytestmark = [needs.root, needs.loop, needs.program("lvm")]

_NOISE = ("Activation disabled", "not zeroed", "NOT backed up")
_UUID = re.compile(r"\b\w{6}-\w{4}-\w{4}-\w{4}-\w{4}-\w{4}-\w{6}\b")


class Both:
    """LVM2's devices are D0, D1, ... of `peer`, ulvm's the files d0, d1, ... of `host`."""

    def __init__(self, peer: Peer, host: UlvmHost) -> None:
        self.peer = peer
        self.host = host
        self.ours: list[str] = []
        self.hidden: set[int] = set()

    def add_devices(self, *mib: int) -> None:
        for size in mib:
            self.peer.add_device(size)
            self.ours.append(str(self.host.image(f"d{len(self.ours)}", f"{size}M")))

    def resize(self, number: int, mib: int) -> None:
        """Give a device another size, as one would a disk of a virtual machine."""
        loop = self.peer.devices[number]
        backing = Path(f"/sys/block/{os.path.basename(loop)}/loop/backing_file").read_text().strip()
        for path in (backing, self.ours[number]):
            os.truncate(path, mib << 20)
        subprocess.run(["losetup", "--set-capacity", loop], check=True)

    def hide(self, number: int) -> None:
        """Neither sees this device from here on."""
        self.hidden.add(number)
        os.rename(self.ours[number], f"{self.ours[number]}.away")

    def show(self, number: int) -> None:
        """Both see it again, as it was."""
        self.hidden.discard(number)
        os.rename(f"{self.ours[number]}.away", self.ours[number])

    def typed(self, script: str, without: str = " nothing ") -> None:
        """Type each line, `@0` being the first device, and compare what is said; lines in which
        `without` is found (a regular expression) are left out."""
        for line in filter(None, map(str.strip, script.splitlines())):
            theirs = self._plain(self._theirs(self._named(line, self.peer.devices)), without)
            ours = self._plain(self.host.attempt(self._named(line, self.ours)), without)
            assert ours == theirs, line

    @staticmethod
    def _named(line: str, devices: list[str]) -> str:
        return re.sub(r"@(\d)", lambda m: devices[int(m[1])], line)

    def _theirs(self, line: str) -> Result:
        seen = [d for n, d in enumerate(self.peer.devices) if n not in self.hidden]
        ours = ",".join(f'"a|^{device}$|"' for device in seen)
        folder = self.peer.folder
        config = (
            f'devices{{use_devicesfile=0 filter=[{ours},"r|.*|"] obtain_device_list_from_udev=0}} '
            f'backup{{backup_dir="{folder}/backup" archive_dir="{folder}/archive"}} '
            f'global{{event_activation=0 locking_dir="{folder}/lock"}} '
            "activation{udev_sync=0 udev_rules=0 monitoring=0}"
        )
        command, *words = shlex.split(line)
        done = subprocess.run(
            ["lvm", command, "--config", config, "--driverloaded", "n", *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1", "TZ": "UTC"},
            check=False,
        )
        return Result(done.stdout, done.stderr, done.returncode)

    def _plain(self, said: Result, without: str) -> tuple[int, list[str], list[str]]:
        """Exit code, lines of standard output, and sorted those of standard error, each once."""
        errors = {line for line in self._lines(said.stderr) if not re.search(without, line)}
        return said.rc, self._lines(said.stdout), sorted(errors)

    def _lines(self, text: str) -> list[str]:
        for devices in (self.peer.devices, self.ours):
            for number, device in enumerate(devices):
                text = re.sub(rf"{re.escape(device)}\b", f"@{number}", text)
        text = _UUID.sub("UUID", text)
        # Whether a volume is active LVM2 cannot know here.
        text = text.replace("-XX--", "-----").replace("-XXv-", "---v-")
        lines = [" ".join(line.split()) for line in text.splitlines()]
        return [ln for ln in lines if ln and not any(word in ln for word in _NOISE)]


@pytest.fixture
def both(tmp_path: Path, short_tmp: Path) -> Iterator[Both]:
    peer = Peer(tmp_path)
    host = UlvmHost(short_tmp)
    yield Both(peer, host)
    host.close()
    peer.close()


def test_groups_sent_away_split_and_merged(both: Both) -> None:
    both.add_devices(100, 100, 100, 100)
    both.typed("""
        vgcreate -s 1m va @0 @1
        vgcreate -s 1m vb @2
        lvcreate -an -Zn -Wn -l 5 -n l1 va
        lvcreate -an -Zn -Wn -l 5 -n l2 vb
        vgexport va
        vgs
        lvs
        pvs
        vgdisplay va
        vgexport va
        lvcreate -an -Zn -l1 va
        lvremove -y va/l1
        vgremove va
        vgck va
        vgimport va
        vgimport va
        vgexport
        vgexport nope
        vgck
        vgck vb
        vgck nope
        vgck --updatemetadata vb
        vgextend va @3
        lvcreate -an -Zn -Wn -l 5 -n l3 va @3
        vgsplit va vc @3
        vgs -o+seqno
        vgsplit va vc @1
        vgs -o+seqno,vg_extent_size
        lvs -o+devices
        vgmerge va vc
        vgmerge va vb
        vgs -o+seqno
        lvs -o+devices
        vgmerge va va
        vgmerge nope va
        vgmerge va nope
        vgsplit va vd @0 @1 @2 @3
        vgs -o+seqno
        lvcreate -an -Zn -Wn -l 150 -n wide vd
        vgsplit vd ve @0
        vgsplit vd
        vgsplit vd ve
        vgsplit -n l1 vd ve @0
    """)


def test_physical_volumes_changed_and_resized(both: Both) -> None:
    both.add_devices(100, 100, 100)
    both.typed("""
        vgcreate -s 1m vg @0 @1
        pvcreate @2
        lvcreate -an -Zn -Wn -l 5 -n l1 vg
        pvchange -x n @0
        pvchange -x n @0
        pvs
        pvchange -x y @0
        pvchange --addtag foo --addtag bar @0
        pvs -a -o pv_name,vg_all @2
        pvchange --deltag foo @0
        pvchange --deltag nope @0
        pvs -o+pv_tags
        vgchange --addtag t vg
        pvchange -x n @t
        pvresize @t
        pvs @t
        pvchange -x n @bar
        pvchange -x y @bar @t
        pvchange -x n
        pvchange @0
        pvchange -a -x n
        pvchange -x n @2
        pvchange --addtag x @2
        pvchange -x n /dev/nope
        pvresize @0
        pvresize --setphysicalvolumesize 50m @0
        pvresize --setphysicalvolumesize 50m -y @0
        pvs -o+pv_size,vg_seqno
        pvresize -y --setphysicalvolumesize 1m @0
        pvresize -y --setphysicalvolumesize 3m @0
        pvresize -y --setphysicalvolumesize 40m @2
        pvs -o+pv_missing,pv_in_use,pe_start,pv_pe_count,vg_attr,vg_seqno
        pvresize @0 @2
        pvs
        pvresize /dev/nope
    """)
    both.resize(1, 164)
    both.typed("pvresize @1\npvs\nvgs\nlvcreate -an -Zn -Wn --alloc normal -l 150 vg @1")


def test_striped_error_and_zero_volumes(both: Both) -> None:
    both.add_devices(100, 100, 100, 100)
    both.typed("""
        vgcreate -s 1m va @0 @1 @2 @3
        lvcreate -an -Zn -Wn -i 2 -l 5 -n s1 va
        lvcreate -an -Zn -Wn -i 2 -I 32k -L 6m -n s2 va
        lvcreate -an -Zn -Wn -i 3 -l 100%FREE -n s3 va
        lvs --segments -o+devices,stripes,stripesize,seg_pe_ranges
        lvextend -l +3 va/s1
        lvextend -l +2 va/s2
        lvremove -f va/s3
        lvextend -l +3 va/s1
        lvextend -i1 -l +3 va/s1
        lvreduce -f -l -3 va/s2
        lvreduce -f -l -3 va/s1
        lvextend -l 3 va/s1
        lvextend -l 5 va/s2
        lvreduce -f -l 99 va/s2
        lvcreate -an -Zn -Wn -i 5 -l 5 -n s4 va
        lvcreate -an -Zn -Wn -i 2 -I 3k -l 5 -n s5 va
        lvcreate -an -Zn -Wn -i 2 -I 2k -l 4 -n s5 va
        lvcreate -an -Zn -Wn -i 2 -I 2m -l 4 -n s6 va
        lvcreate -an -Zn -Wn -i 200 -l 4 -n s7 va
        lvcreate -an -Zn -Wn -i 1 -I 64k -l 4 -n s8 va
        lvcreate -an -Zn -Wn -I 64k -l 4 -n s9 va
        lvcreate -an -Zn -Wn -i 0 -l 4 -n s10 va
        lvcreate -an -Zn -Wn --type striped -l 4 -n s11 va
        lvcreate -an -Zn -Wn --type linear -i2 -l 4 -n s12 va
        lvcreate -an --type error -l 4 -n e1 va
        lvcreate -an --type zero -L 4m -n z1 va
        lvextend -L +3m va/z1
        lvresize -f -i2 -l 6 va/z1
        lvresize -f -i2 -I 64k -l 5 va/z1
        lvreduce -f -l -2 va/z1
        lvconvert -y -s va/s1 va/z1
        lvconvert -y -Zn -s va/s1 va/e1
        lvcreate -an -Zn -Wn -i2 -l 4 -n s13 va @0
        lvcreate -an -Zn -Wn -i2 -l 4 -n s14 va @0 @1
        lvs --segments -o+devices,stripes,stripesize,seg_pe_ranges
        vgs -o+seqno
    """)


def test_stripes_that_are_longer_than_an_extent(both: Both) -> None:
    both.add_devices(30, 30)
    both.typed("""
        vgcreate -s 64k vg @0 @1
        lvcreate -an -Zn -Wn -l1 -n a vg
        lvextend -i2 -I 48k -l +6 vg/a
        lvextend -i2 -I 2k -l +6 vg/a
        lvextend -i2 -I 512k -l +6 vg/a
        lvextend -i2 -I 96k -l +1 vg/a
        lvresize -i2 -I 5m -l 4 vg/a
        lvcreate -an -Zn -Wn -i2 -I 64k -l 10 -n c vg
        vgchange -s 16k vg
        lvreduce -f -l 34 vg/c
        lvextend -l +3 vg/c
        lvreduce -f -l 34 vg/c
        lvcreate -an -Zn -Wn -l1 -n d vg
        lvextend -i2 -l +5 vg/d
        lvcreate -an -Zn -Wn -i2 -l 3 -n e vg
        lvs --segments -o+devices,stripes,stripesize,seg_pe_ranges
    """)
    # LVM2 has no active volumes here. Of areas that are no whole stripes it would make one that
    # no kernel takes.
    both.host.run("lvextend -l +100%FREE vg/c")
    both.host.run("vgchange -ay vg")


_SHOWN = """
        pvs
        vgs
        lvs -o+devices
        pvs -o+pv_missing,pv_in_use,pv_ext_vsn,pv_mda_count
        vgck
        vgdisplay va
        pvdisplay
        pvscan
"""


def test_a_disk_away_and_back(both: Both) -> None:
    both.add_devices(100, 100, 100, 100)
    both.typed("""
        vgcreate -s 1m va @0 @1 @2
        pvcreate @3
        lvcreate -an -Zn -Wn -l 5 -n keep va @0
        lvcreate -an -Zn -Wn -l 5 -n gone va @0
        lvcreate -an -Zn -Wn -l 5 -n lost va @2
    """)
    both.hide(2)
    both.typed(_SHOWN)
    both.typed("""
        vgchange --addtag x va
        lvchange --addtag x va/keep
        lvchange -pr va/keep
        lvrename va keep kept
        vgrename va vr
        vgchange -x y va
        vgimport va
        lvextend -l +1 va/keep
        vgextend va @3
        lvremove -y va/gone
        vgs -o+seqno
        pvs
    """)
    both.show(2)
    both.typed(_SHOWN)
    both.typed("""
        lvchange --addtag x va/keep
        vgck --updatemetadata va
        pvs
        vgextend --restoremissing va @2
        pvs
        vgck va
        vgs -o+seqno
        lvchange --addtag x va/lost
    """)


def test_a_disk_that_was_removed_while_it_was_away(both: Both) -> None:
    both.add_devices(100, 100, 100)
    both.typed("""
        vgcreate -s 1m va @0 @1 @2
        lvcreate -an -Zn -Wn -l 5 -n keep va @0
        lvcreate -an -Zn -Wn -l 5 -n lost va @2
    """)
    both.hide(2)
    both.typed("vgreduce --removemissing --force va\npvs\nvgs -o+seqno")
    both.show(2)
    both.typed(_SHOWN)
    # Refused; LVM2 has no eye for the rest of the group then.
    refused = "pvcreate @2\nvgextend va @2\nvgcreate vb @2\npvremove @2"
    both.typed(refused, without="outdated|[Ii]nconsisten|ignoring metadata")
    both.typed("""
        pvdisplay @2
        pvchange --addtag x @2
        lvchange --addtag x va/keep
        pvs
        vgck --updatemetadata va
        pvs
        vgck va
        vgextend va @2
        pvs
        vgs -o+seqno
    """)


def test_physical_volumes_are_displayed_group_by_group(both: Both) -> None:
    both.add_devices(100, 100, 100, 100, 100, 100)
    both.typed("""
        pvcreate @0
        vgcreate -s 1m vz @1 @3
        vgcreate va @2 @4
        vgcreate vm @5
        lvcreate -an -Zn -Wn -l 5 -n lost va @4
        pvdisplay
        pvdisplay -s
        pvdisplay -c
        pvdisplay --units b --nosuffix
        pvdisplay -s --units k
        pvdisplay -S vg_name=va
        pvdisplay -S vg_name=va @1
        pvdisplay -o pv_name
        pvdisplay --binary
        lvdisplay --binary
        pvdisplay -C --units m -o pv_size,pv_free
    """)
    both.hide(4)
    both.typed("pvdisplay\npvdisplay -s\npvdisplay -c\npvscan")


def test_extents_are_taken_where_the_command_line_says(both: Both) -> None:
    both.add_devices(128, 128, 128)
    both.typed("""
        vgcreate vg @0 @1 @2
        lvcreate -an -Zn -Wn -l 4 -n c vg @0:1-5:3-7
        lvcreate -an -Zn -Wn -l 4 -n c vg @0:7-8 @0:1-2
        lvcreate -an -Zn -Wn -l 4 -n c2 vg @1:1-5 @1
        lvcreate -an -Zn -Wn -l 1 -n c4 vg @0:3-
        lvcreate -an -Zn -Wn -l 1 -n c5 vg @0:-9
        lvcreate -an -Zn -Wn -l 1 -n c6 vg @0:12+
        lvcreate -an -Zn -Wn -l 1 -n c8 vg @0:99999999999
        lvcreate -an -Zn -Wn -l 1 -n c9 vg @0:15,16
        lvcreate -an -Zn -Wn -l 1 -n c9 vg @0:x
        lvcreate -an -Zn -Wn -l 1 -n c9 vg @0:
        lvcreate -an -Zn -Wn -l 1 -n c9 vg @0:9-5
        lvcreate -an -Zn -Wn -l 1 -n c9 vg @0:28-31
        lvcreate -an -Zn -Wn -l 8 -n c11 vg @0:15-20
        lvcreate -an -Zn -Wn -l 50%PVS -n c12 vg @0:14-19
        pvchange --addtag fast @2
        lvcreate -an -Zn -Wn -l 8 -n c13 vg @fast
        lvcreate -an -Zn -Wn -l 8 -n c14 vg @nope
        lvcreate -an -Zn -Wn -l 2 -n c15 vg @fast:3-9
        pvchange -xn @2
        lvcreate -an -Zn -Wn -l 2 -n c15 vg @fast
        lvcreate -an -Zn -Wn -l 8 -i 2 -n st vg @0:20-22 @1:20-22
        lvcreate -an -Zn -Wn -l 6 -i 2 -n st vg @0:20-22 @1:20-22
        lvextend -l+1 vg/st @0:23
        lvextend -i1 -l+1 vg/st @0:23
        lvs --segments -o+seg_pe_ranges
    """)


def test_profiles_in_the_metadata(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    both.add_devices(64, 64)
    monkeypatch.setenv("LVM_SYSTEM_DIR", str(both.peer.folder))
    for folder in (both.peer.folder, both.host.system_dir):
        (folder / "profile").mkdir()
        (folder / "profile" / "meta.profile").write_text("allocation { thin_pool_zero = 0 }\n")
        (folder / "profile" / "cmd.profile").write_text("report { headings = 0 }\n")
    both.typed(
        """
        vgcreate --metadataprofile meta va @0
        vgcreate --profile cmd vb @1
        vgcreate --metadataprofile cmd vb @1
        vgs -o+vg_profile --profile cmd
        vgs -o+vg_profile --commandprofile meta
        vgs --metadataprofile meta
        vgchange --detachprofile va
        vgs -o vg_profile va
        vgchange --detachprofile --metadataprofile meta va
        vgchange --metadataprofile cmd va
        vgchange --metadataprofile a/b va
        vgchange --profile '' va
        vgchange --profile meta --addtag t va
        vgs -o vg_profile,vg_tags --commandprofile cmd va
        vgchange --detachprofile --refresh va
        vgchange --commandprofile cmd --metadataprofile meta va
        vgextend --metadataprofile meta va @1
        lvcreate --metadataprofile meta -an -l1 -n a va
        lvcreate --profile meta -an -l1 -n b va
        lvcreate --profile cmd -an -l1 -n c va
        lvcreate --detachprofile -an -l1 -n c va
        lvcreate -an -l1 -n c va
        lvs -o lv_name,lv_profile va
        lvchange --detachprofile va/a
        lvchange --metadataprofile meta --addtag x va/c
        lvchange --metadataprofile meta --detachprofile va/c
        lvchange --metadataprofile meta
        lvextend --metadataprofile meta -l +1 va/a
        lvs -o lv_name,lv_profile,lv_tags va
        lvchange --detachprofile va
        lvs -o lv_name,lv_profile va
        """,
        without="profile/(cmd|meta).profile",
    )
    assert both.peer.lvm("vgcfgbackup", "va")


def test_a_group_that_cannot_be_had_keeps_nothing_else_from_being_done(both: Both) -> None:
    """Another host's, or one of two of a name. But a word that can be no path does."""
    both.add_devices(32, 32, 32, 32)
    both.typed("""
        vgcreate good @0
        lvcreate -an -Zn -Wn -l1 -n lv good
        lvcreate -an -Zn -Wn -l1 -n lw good
        vgcreate other @1
        lvcreate -an -Zn -Wn -l1 -n lv other
        vgchange -y --systemid elsewhere other
        lvdisplay -c good/lv other/lv
        lvdisplay -c other good
        lvdisplay -c
        lvchange --addtag x other/lv good/lv
        lvchange --addtag x @x
        vgchange --addtag x @x
        lvs @x
        vgs @x
        vgs @nope
        lvs @nope good/lv
        pvs @x
        pvs @0
        pvs
        lvchange --addtag z good/lv bad/name/x
        lvconvert --merge good/lv other/lv
        lvs -o name,tags good
    """)
    for hidden in (2, 3):
        both.hide(hidden)
        both.typed(f"""
            vgcreate twice @{5 - hidden}
            lvcreate -an -Zn -Wn -l1 -n lv twice
        """)
        both.show(hidden)
    both.typed("""
        lvdisplay -c twice good
        lvchange --addtag y twice/lv good/lv
        lvremove good/lw twice/lv other/lv
        lvs -o name,tags good
    """)
