"""pvck of LVM2 and of ulvm on the same disks: the same words, the same bytes written."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import needs
from tests.conformance.test_lvm2_metadata import Peer
from tests.e2e.host import Result, UlvmHost

pytestmark = [needs.root, needs.loop, needs.program("lvm")]

_NOISE = "Activation disabled"


class Sides(NamedTuple):
    """Both look at the devices of `peer`."""

    peer: Peer
    host: UlvmHost

    def theirs(self, line: str) -> Result:
        config = "devices{use_devicesfile=0 obtain_device_list_from_udev=0}"
        command, *words = line.split(" ", 1)
        done = subprocess.run(
            f"lvm {command} --config '{config}' --driverloaded n {' '.join(words)}",
            shell=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1", "TZ": "UTC"},
            check=False,
        )
        errors = [ln for ln in done.stderr.splitlines() if _NOISE not in ln]
        return Result(done.stdout, "\n".join(errors), done.returncode)

    def ours(self, line: str) -> Result:
        done = self.host.attempt(line)
        return Result(done.stdout, done.stderr.rstrip("\n"), done.rc)

    def typed(self, script: str) -> None:
        """Each line to both; `@0` is the first device."""
        for line in filter(None, map(str.strip, script.splitlines())):
            named = re.sub(r"@(\d)", lambda m: self.peer.devices[int(m[1])], line)
            assert self.ours(named) == self.theirs(named), line


@pytest.fixture
def sides(tmp_path: Path, short_tmp: Path) -> Iterator[Sides]:
    peer, host = Peer(tmp_path), UlvmHost(short_tmp)
    yield Sides(peer, host)
    host.close()
    peer.close()


def damage(device: str, offset: int, data: bytes) -> None:
    with open(device, "r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def content(device: str) -> bytes:
    with open(device, "rb") as file:
        return file.read(2 << 20)


def test_headers_and_metadata_are_shown_and_written_as_lvm2_does(sides: Sides) -> None:
    peer = sides.peer
    first, second = peer.add_device(32), peer.add_device(32)
    peer.lvm("pvcreate", "--pvmetadatacopies", "2", first)
    peer.lvm("vgcreate", "-s1m", "vg", first, second)
    peer.lvm("lvcreate", "-an", "-Zn", "-Wn", "-l5", "-n", "l1", "vg")
    sides.typed("""
        pvck @0
        pvck --dump headers @0
        pvck --dump metadata @0
        pvck --dump metadata_all @0
        pvck --dump metadata_search --settings mda_num=2 @0
        pvck --dump metadata --settings mda_num=2 @0
        pvck --dump metadata --settings mda_num=0 @0
        pvck --dump metadata_all --settings mda_num=0 @0
    """)
    text = sides.host.base / "text"
    sides.host.run(f"pvck --dump metadata --file {text} {first}")
    peer.lvm("pvck", "--dump", "metadata", "--file", f"{text}.lvm2", first)
    assert text.read_bytes() == Path(f"{text}.lvm2").read_bytes()

    damage(first, 4700, b"XX")
    damage(second, 528, b"X")
    sides.typed("""
        pvck @0
        pvck --dump metadata @0
        pvck @1
        pvck --dump headers @1
        pvck --repairtype label_header @1
    """)
    damage(first, 4096, bytes(512))
    sides.typed("""
        pvck @0
        pvck --dump headers @0
        pvck --dump metadata @0
    """)
    damage(first, 512, bytes(512))
    sides.typed(f"""
        pvck @0
        pvck --dump metadata_search @0
        pvck --dump metadata_search --pvmetadatacopies 2 @0
        pvck --dump metadata_search --settings mda_num=0 @0
        pvck --dump metadata --settings mda_num=0 @0
        pvck --repairtype pv_header @0
        pvck --repairtype pv_header -f {text} @0
        pvck --repairtype metadata -f {text} @0
    """)

    sides.host.run(f"pvck --repair -y --file {text} {first}")
    sides.host.run(f"pvck --repairtype label_header -y {second}")
    ours = content(first), content(second)
    damage(first, 512, bytes(512))
    damage(first, 4096, bytes(512))
    damage(second, 528, b"X")
    peer.lvm("pvck", "--repair", "-y", "--file", str(text), first)
    peer.lvm("pvck", "--repairtype", "label_header", "-y", second)
    assert (content(first), content(second)) == ours
    assert "l1" in "".join(peer.lvm("lvs", "vg"))
