"""The FUSE tree over devices of a test: what reaches the device."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from tests import needs
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.exports.fuse import FuseServer
from ulvm.exports.source import StaticSource

pytestmark = needs.fuse


@pytest.mark.parametrize("direct", [0, os.O_DIRECT])
@pytest.mark.parametrize(
    ("opened", "written", "durable"),
    [
        (0, 0, False),
        (os.O_DSYNC, 0, True),
        (os.O_SYNC, 0, True),
        (0, os.RWF_DSYNC, True),
        (0, os.RWF_SYNC, True),
    ],
)
def test_a_synchronous_write_is_durable(
    tmp_path: Path, opened: int, written: int, durable: bool, direct: int
) -> None:
    """Its return is all that the writer waits for."""
    device = FaultDevice(MemoryDevice(1 << 20))
    record = device.record()
    server = FuseServer(StaticSource({"vg/lv": device}), tmp_path)
    server.start()
    try:
        fd = os.open(tmp_path / "vg/lv", os.O_RDWR | opened | direct)
        page = mmap.mmap(-1, 4096)
        assert os.pwritev(fd, [page], 8192, written) == 4096
        events = [kind for kind, _ in record.events]
        os.close(fd)
    finally:
        server.stop()
    assert ("durable" in events) == durable, events
