"""PVs that lie on volumes (devices/scan_lvs)."""

from __future__ import annotations

import os
import signal

from tests import needs
from tests.e2e.host import UlvmHost

pytestmark = needs.fuse


def test_a_group_on_a_volume_of_another(host: UlvmHost) -> None:
    host.run(f"vgcreate low {host.image('pv.img', '64M')}")
    host.run("lvcreate -n base -L 40M low")
    base = host.path("low/base")
    assert f"Cannot use {base}: device is an LV" in host.run(f"pvcreate {base}", rc=5).stderr

    (host.system_dir / "ulvm.conf").write_text("devices/scan_lvs = 1")
    host.run(f"vgcreate -s 1m high {base}")
    host.run("lvcreate -n top -L 8M high")
    # The table names the mapped device, as the kernel's would, and not the file that shows it.
    assert " linear 253:0 " in host.run("dmsetup table high-top").stdout
    data = os.urandom(1 << 20)
    with host.path("high/top").open("r+b") as file:
        file.write(data)
    host.run("lvcreate -s -n before -L 8M high/top")
    with host.path("high/top").open("r+b") as file:
        file.write(bytes(1 << 20))

    # What lies below is in use; after kill -9 both layers come back.
    assert "in use" in host.run("lvchange -an low/base", rc=5).stderr
    os.kill(host.daemon_pid(), signal.SIGKILL)
    assert host.run("lvs --noheadings -o name high").stdout.split() == ["before", "top"]
    assert host.path("high/before").read_bytes()[: 1 << 20] == data
    assert host.path("high/top").read_bytes()[: 1 << 20] == bytes(1 << 20)

    host.run("vgchange -an high")
    host.run("vgchange -an low")
    assert host.run("vgs --noheadings -o name").stdout.split() == ["low"]
    host.run("vgchange -ay low")
    host.run("vgchange -ay high")
    assert host.path("high/before").read_bytes()[: 1 << 20] == data
    host.run("vgremove -ff -y high")
    host.run("vgremove -ff -y low")
