"""Commands for logical volumes, replayed as LVM2 2.03.16 answered them.

In `recordings/` is what the real thing printed: `# ` a command line, then its output (standard
output and error together) and its exit code. `! write VOLUME BYTES` writes at the start of a volume
in between. /dev/vda and /dev/vdb are images of 128 MiB, as the disks of the recordings were.
"""

from __future__ import annotations

import pytest

from tests.e2e.host import UlvmHost
from tests.e2e.machine import Machine, wait_closed, wait_merged


@pytest.fixture
def machine(host: UlvmHost) -> Machine:
    return Machine.with_group(host)


def test_the_first_recording(machine: Machine) -> None:
    machine.replay("lv-first")


def test_the_second_recording(machine: Machine) -> None:
    machine.replay("lv-second", alone=False)
    device = machine.device("vg/a")
    machine.replay("lv-open-origin")
    device.close()
    wait_closed(machine, "vg/a")
    machine.ok("lvchange -an vg/a")
    machine.ok("lvchange -ay vg/a")
    wait_merged(machine, "a")
    machine.replay("lv-after-merge")


def test_inactive_volumes(machine: Machine) -> None:
    machine.replay("lv-inactive", alone=False)


def test_sizes_and_names(machine: Machine) -> None:
    machine.replay("lv-sizes", alone=False)


def test_a_refusal_changes_nothing(machine: Machine) -> None:
    machine.replay("lv-refused")
