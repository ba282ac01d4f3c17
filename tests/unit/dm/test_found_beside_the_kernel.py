"""What random programs beside a real kernel found in the front of the mapper; the kernel is right.

`tests/kernel/test_programs.py` runs the same beside the kernel, as far as it looks at it.
"""

from __future__ import annotations

import errno

import pytest

from tests.unit.dm.lab import Lab
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError, TableError


def test_info_counts_the_targets_of_the_live_table_alone(lab: Lab) -> None:
    lab.dm.create("t")
    assert lab.dm.load("t", parse_table("0 8 error")).target_count == 0
    assert lab.dm.resume("t").target_count == 1


def test_suspending_twice_is_no_error(lab: Lab) -> None:
    lab.device("t", "0 8 error")
    lab.dm.suspend("t")
    assert lab.dm.suspend("t").suspended
    assert not lab.dm.resume("t").suspended


def test_a_rename_is_an_event_of_a_device_with_a_live_table(lab: Lab) -> None:
    lab.dm.create("t")
    lab.dm.load("t", parse_table("0 8 error"))
    assert lab.dm.rename("t", "u").event_nr == 0
    lab.dm.resume("u")
    assert lab.dm.rename("u", "v").event_nr == 1
    assert lab.dm.set_uuid("v", "LVM-x").event_nr == 2


def test_a_message_needs_a_live_table(lab: Lab) -> None:
    lab.dm.create("t")
    with pytest.raises(TableError) as caught:
        lab.dm.message("t", 0, "hello")
    assert caught.value.errno == errno.EINVAL


def test_a_table_with_an_error_target_takes_no_discard(lab: Lab) -> None:
    path = lab.file("disk", 100)
    lab.device("t", f"0 64 linear {path} 0\n64 9 error")
    with pytest.raises(DeviceError) as caught:
        lab.dm.mapped("t").discard(0, 512)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_device_that_never_had_a_table_cannot_be_opened(lab: Lab) -> None:
    lab.dm.create("x")
    lab.dm.create("t")
    with pytest.raises(TableError) as caught:
        lab.dm.load("t", parse_table("0 8 linear /dev/mapper/x 0"))
    assert caught.value.errno == errno.ENXIO
    # Without a live table it has no size yet, and any range is taken.
    lab.dm.load("x", parse_table("0 4 error"))
    assert lab.dm.load("t", parse_table("0 8 linear /dev/mapper/x 0")).inactive_table


@pytest.mark.parametrize("table", ["snapshot-origin {org}", "snapshot {org} {cow} P 4"])
def test_a_target_longer_than_its_origin_is_refused(lab: Lab, table: str) -> None:
    params = table.format(org=lab.file("org", 100), cow=lab.file("cow", 200))
    lab.dm.create("t")
    with pytest.raises(TableError) as caught:
        lab.dm.load("t", parse_table(f"0 101 {params}"))
    assert caught.value.errno == errno.EINVAL
    assert lab.dm.load("t", parse_table(f"0 100 {params}")).inactive_table
