"""libblockdev, the library of udisks, blivet and installers, calls `lvm` for all that it does."""

from __future__ import annotations

from pathlib import Path

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.scripts import ScriptHost

pytestmark = [needs.fuse, needs.blockdev]

PYTHON = "/usr/bin/python3"  # which has the bindings
LIFE = Path(__file__).with_name("blockdev_life.py")


def test_the_life_of_a_group(host: UlvmHost) -> None:
    first, second = host.image("a.img", "128M"), host.image("b.img", "128M")
    said = ScriptHost(host).run(PYTHON, LIFE, first, second)
    assert said.splitlines()[-1] == "done"
    assert host.run("vgs --noheadings").stdout == ""
