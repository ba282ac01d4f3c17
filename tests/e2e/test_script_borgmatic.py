"""borgmatic's LVM hook: it finds a mounted volume by lsblk, makes a snapshot, backs that up by borg
and removes it."""

from __future__ import annotations

import subprocess
import sys

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.scripts import ScriptHost

pytestmark = [
    needs.fuse,
    needs.root,
    needs.loop,
    needs.program("mkfs.ext4"),
    needs.program("borg"),
]

_SETTINGS = """\
activation {{ snapshot_autoextend_threshold = 100 }}
devices {{ dir = "{0}/dev" }}
ulvm {{ device_links = 1 }}
"""


def test_a_mounted_volume_is_backed_up_from_a_snapshot(host: UlvmHost) -> None:
    (host.system_dir / "ulvm.conf").write_text(_SETTINGS.format(host.base))
    scripts = ScriptHost(host)
    host.run(f"vgcreate vg {host.image('a.img', '192M')}")
    host.run("lvcreate -y -n data -L 64M vg")
    where, repository = host.base / "mnt", host.base / "repo"
    where.mkdir()
    subprocess.run(["mkfs.ext4", "-q", host.base / "dev" / "vg" / "data"], check=True)
    subprocess.run(["mount", host.base / "dev" / "vg" / "data", where], check=True)
    (where / "file").write_text("of the snapshot")
    settings = host.base / "borgmatic.yaml"
    settings.write_text(
        f"source_directories: ['{where}']\nrepositories: [{{path: '{repository}'}}]\nlvm: {{}}\n"
    )
    borgmatic = [sys.executable, "-m", "borgmatic.commands.borgmatic", "-c", settings]
    scripts.run(*borgmatic, "repo-create", "--encryption", "none")
    done = scripts.attempt(*borgmatic, "-v2", "create")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Creating LVM snapshot vg-data_borgmatic-" in said
    # Nothing is left of it.
    assert host.run("lvs --noheadings -o lv_name vg").stdout.split() == ["data"]
    there = host.base / "restored"
    there.mkdir()
    scripts.run(*borgmatic, "extract", "--archive", "latest", "--destination", there)
    (stored,) = there.rglob("file")
    assert "lvm_snapshots" in str(stored)
    assert stored.read_text() == "of the snapshot"
    subprocess.run(["umount", where], check=True)
