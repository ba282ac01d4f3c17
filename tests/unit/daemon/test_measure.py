"""A measurement is of one device."""

from __future__ import annotations

import pytest

from ulvm.daemon.measure import Measurement
from ulvm.dm.mapper import LocalMapper
from ulvm.dm_ioctl import TableLine
from ulvm.errors import DeviceError


def test_what_has_the_name_of_one_that_is_gone_is_not_measured() -> None:
    mapper = LocalMapper()
    for _ in range(2):
        mapper.create("a")
        mapper.load("a", [TableLine(0, 2048, "zero", "")])
        mapper.resume("a")
        measured = Measurement(mapper.mapped("a"))
        assert measured.slot() == [[]] * len(measured.chunk_sizes)
        mapper.remove("a")
        with pytest.raises(DeviceError, match="a has been deactivated"):
            measured.slot()
        measured.close()
