"""What -v tells of a change of devices."""

from __future__ import annotations

from ulvm.activation.told import ToldMapper
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table


def test_each_change_of_a_device_is_told_with_its_name_and_number() -> None:
    told: list[str] = []
    mapper = ToldMapper(LocalMapper(), told.append)
    mapper.create("va-a", "LVM-a")
    mapper.load("LVM-a", parse_table("0 8 zero"))
    mapper.resume("LVM-a")
    mapper.suspend("LVM-a")
    mapper.resume("LVM-a")
    mapper.rename("LVM-a", "va-b")
    assert [info.name for info in mapper.devices()] == ["va-b"]
    mapper.suspend("LVM-a", lockfs=False)
    mapper.remove("LVM-a")
    assert told == [
        "Creating va-a",
        "Loading table for va-a (253:0).",
        "Resuming va-a (253:0).",
        "Suspending va-a (253:0) with filesystem sync with device flush",
        "Resuming va-a (253:0).",
        "Renaming va-a (253:0) to va-b",
        "Suspending va-b (253:0) with device flush",
        "Removing va-b (253:0)",
    ]
