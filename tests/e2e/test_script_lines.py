"""Command lines of programs that manage volumes for others, typed as they type them and read as
they read them: libvirt's logical pools, Proxmox VE's LVM storage, OpenStack's bricks, and the
backup script that everybody has written once."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.scripts import ScriptHost

pytestmark = [needs.fuse]

MIB = 1 << 20


@pytest.fixture
def scripts(host: UlvmHost) -> ScriptHost:
    host.image("a.img", "256M")
    host.image("b.img", "256M")
    return ScriptHost(host)


def test_libvirts_logical_pool(scripts: ScriptHost) -> None:
    run, a, b = scripts.run, scripts.host.base / "a.img", scripts.host.base / "b.img"
    run("pvcreate", a)
    run("pvcreate", b)
    run("vgcreate", "pool", a, b)
    run("vgchange", "-aly", "pool")
    run("lvcreate", "--name", "v1", "-L", "65536K", "pool")
    run("lvcreate", "--name", "v2", "-L", "32768K", "--virtualsize", "262144K", "pool")
    run("lvcreate", "--name", "v3", "-L", "16384K", "-s", "/dev/pool/v1")
    words = "--separator : --noheadings --units b --unbuffered --nosuffix --options"
    sizes = run("vgs", *words.split(), "vg_size,vg_free", "pool")
    found = re.fullmatch(r"\s*(\d+):(\d+)\s*", sizes)
    assert found is not None
    assert int(found[1]) - int(found[2]) == (64 + 32 + 16) * MIB
    fields = "lv_name,origin,uuid,devices,segtype,stripes,seg_size,vg_extent_size,size,lv_attr"
    lines = run("lvs", *words.replace(":", "#").split(), fields, "pool").splitlines()
    pattern = r"\s*(\S+)#(\S*)#(\S+)#(\S+)#(\S+)#([0-9]+)#(\S+)#([0-9]+)#([0-9]+)#(\S+)#?\s*"
    volumes = [re.fullmatch(pattern, line) for line in lines]
    assert [found and found.group(1, 2, 9) for found in volumes] == [
        ("v1", "", str(64 * MIB)),
        ("v2", "[v2_vorigin]", str(32 * MIB)),
        ("v3", "v1", str(16 * MIB)),
    ]
    assert {*run("pvs", "--noheadings", "-o", "pv_name,vg_name").split()} == {
        str(a),
        str(b),
        "pool",
    }
    for name in ("v3", "v2", "v1"):
        run("lvremove", "-f", f"pool/{name}")
    run("vgchange", "-aln", "pool")
    run("vgremove", "-f", "pool")
    run("pvremove", a)


def test_proxmoxs_storage(scripts: ScriptHost) -> None:
    run, a = scripts.run, scripts.host.base / "a.img"
    run("pvcreate", "--metadatasize", "250k", "-y", "-ff", a)
    run("vgcreate", "pve", a)
    words = ["--separator", ":", "--noheadings", "--units", "b", "--unbuffered", "--nosuffix"]
    create = "lvcreate -aly -Wy --yes --size 65536k --name vm-1-disk-0 --addtag pve-vm-1"
    run(*create.split(), "--setautoactivation", "n", "pve")
    (line,) = run(
        "lvs", *words, "--config", 'report/time_format="%s"', "--options",
        "vg_name,lv_name,lv_size,lv_attr,pool_lv,data_percent,metadata_percent,snap_percent,"
        "uuid,tags,metadata_size,time",
    ).splitlines()  # fmt: skip
    name, volume, size, attributes, *_, tags, _, time = line.strip().split(":")
    assert (name, volume, int(size), tags) == ("pve", "vm-1-disk-0", 64 * MIB, "pve-vm-1")
    assert attributes.startswith("-wi-a")
    assert int(time) > 1 << 30
    run("vgscan", "--ignorelockingfailure", "--mknodes")
    run("lvextend", "-L", "131072k", "/dev/pve/vm-1-disk-0")
    run("lvchange", "--refresh", "pve/vm-1-disk-0")
    run("lvrename", "pve", "vm-1-disk-0", "del-vm-1-disk-0")
    free = run("vgs", *words, "--options", "vg_name,vg_size,vg_free,lv_count,pv_name,pv_size")
    assert free.strip().split(":")[3:5] == ["1", str(a)]
    run("lvremove", "-f", "pve/del-vm-1-disk-0")


def test_openstacks_bricks(scripts: ScriptHost) -> None:
    def run(line: str) -> str:
        return scripts.run(*shlex.split(line))

    a = scripts.host.base / "a.img"
    run(f"vgcreate cinder {a}")
    assert run("vgs --noheadings -o name --readonly cinder").split() == ["cinder"]
    run("lvcreate -n volume-1 cinder -L 0.1g")
    run("lvcreate --name snap-1 -k y --snapshot cinder/volume-1 -L 0.10g")
    shown = run("lvs --noheadings --unit=g -o vg_name,name,size --nosuffix --readonly")
    assert shown.split() == ["cinder", "snap-1", "0.10", "cinder", "volume-1", "0.10"]
    attributes = run("lvdisplay --noheading -C -o Attr --readonly cinder/volume-1")
    assert attributes.strip().startswith("o")
    run("lvchange -a y --yes -K cinder/snap-1")
    run("lvchange -a n -y cinder/volume-1")
    shown = run("pvs --noheadings --unit=g -o vg_name,name,size,free --separator '|' --nosuffix")
    assert shown.strip().split("|")[:2] == ["cinder", str(a)]


SCRIPT = r"""
set -e
SNAP=data_snap
FREE=$(vgs --noheadings --nosuffix --units m -o vg_free vg | awk '{print int($1)}')
[ "$FREE" -gt 32 ]
[ "$(lvdisplay -c /dev/vg/data | cut -d: -f7)" = 131072 ]
lvs --noheadings -o lv_name vg | grep -qw $SNAP && lvremove -f /dev/vg/$SNAP
$(command -v lvcreate) -L32M -s -n $SNAP /dev/vg/data
pct=$(lvs --noheadings -o snap_percent vg/$SNAP | tr -d ' ')
[ "$(lvdisplay /dev/vg/$SNAP | awk '/Allocated to snapshot/{print $4}')" = "${pct}%" ]
lvdisplay /dev/vg/$SNAP | grep -q "LV snapshot status *active destination for data"
lvs | grep -q '^  data_snap vg swi-a-s---'
lvremove -f /dev/vg/$SNAP
"""


def test_the_script_that_everybody_has(scripts: ScriptHost) -> None:
    scripts.run("vgcreate", "vg", Path("a.img"))
    scripts.run("lvcreate", "-L", "64M", "-n", "data", "vg")
    assert "successfully removed" in scripts.run("bash", "-c", SCRIPT)
