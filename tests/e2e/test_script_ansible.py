"""Ansible's community.general.lvg and lvol, unchanged, as a playbook would call them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.scripts import ScriptHost, unpacked

pytestmark = [
    needs.fuse,
    needs.root,
    needs.program("apt-get"),
    needs.program("dpkg-deb"),
    needs.program("mkfs.ext4"),
    needs.program("resize2fs"),
]

_LIBRARY = "usr/lib/python3/dist-packages"
_MODULES = f"{_LIBRARY}/ansible_collections/community/general/plugins/modules"


class Playbook:
    """Tasks on one host."""

    def __init__(self, host: UlvmHost) -> None:
        self._scripts = ScriptHost(host)
        members = [f"./{_MODULES}/{name}.py" for name in ("lvg", "lvol")]
        self._modules = unpacked("ansible", members) / _MODULES
        core = f"./{_LIBRARY}/ansible"
        self._library = unpacked("ansible-core", [core]) / _LIBRARY

    def task(self, module: str, **arguments: Any) -> dict[str, Any]:
        done = self._scripts.attempt(
            sys.executable,
            self._modules / f"{module}.py",
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={"PYTHONPATH": str(self._library)},
        )
        assert not done.stderr, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def changed(self, module: str, **arguments: Any) -> bool:
        found = self.task(module, **arguments)
        assert "failed" not in found, found
        return bool(found["changed"])


def fields(host: UlvmHost, what: str) -> list[str]:
    return host.run(f"{what} --noheadings").stdout.split()


def test_groups_and_volumes_come_grow_and_go(host: UlvmHost) -> None:
    playbook = Playbook(host)
    disks = [str(host.image(f"{name}.img", "128M")) for name in "ab"]
    assert playbook.changed("lvg", vg="vg", pvs=disks[:1], pesize="8")
    assert fields(host, "vgs -o vg_extent_size,pv_count") == ["8.00m", "1"]
    assert playbook.changed("lvg", vg="vg", pvs=disks)
    assert not playbook.changed("lvg", vg="vg", pvs=disks)
    assert playbook.changed("lvg", vg="vg", pvs=disks[:1])
    assert fields(host, "pvs -o vg_name") == ["vg"]
    with Path(disks[0]).open("r+b") as file:
        file.truncate(192 << 20)
    assert playbook.changed("lvg", vg="vg", pvs=disks[:1], pvresize=True)
    assert fields(host, "vgs -o vg_size") == ["184.00m"]

    assert playbook.changed("lvol", vg="vg", lv="data", size="64M", opts="--addtag ansible")
    assert not playbook.changed("lvol", vg="vg", lv="data", size="64M")
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", host.path("vg/data")], check=True)
    assert playbook.changed("lvol", vg="vg", lv="data", size="96M", resizefs=True)
    with host.path("vg/data").open("rb") as file:
        file.seek(1024 + 4)  # s_blocks_count_lo
        assert int.from_bytes(file.read(4), "little") * 4096 == 96 << 20
    assert fields(host, "lvs -o lv_size,lv_tags") == ["96.00m", "ansible"]
    assert "no shrinking" in playbook.task("lvol", vg="vg", lv="data", size="64M")["msg"]
    assert playbook.changed("lvol", vg="vg", lv="data", snapshot="snap", size="16M")
    assert fields(host, "lvs -o origin vg/snap") == ["data"]
    assert playbook.changed("lvol", vg="vg", lv="snap", state="absent", force=True)
    assert playbook.changed("lvol", vg="vg", lv="rest", size="+100%FREE")
    assert fields(host, "vgs -o vg_free,lv_count") == ["0", "2"]

    assert playbook.task("lvg", vg="vg", state="absent")["failed"]
    assert playbook.changed("lvg", vg="vg", state="absent", force=True)
    assert fields(host, "vgs") == []
