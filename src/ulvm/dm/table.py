"""Tables: the lines of dmsetup, and the sequence of targets that a device routes requests to."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.targets.base import Target
from ulvm.dm_ioctl import TableLine
from ulvm.errors import TableError
from ulvm.units import SECTOR, parse_u64

__all__ = ["Table", "check_table", "parse_table"]

_COMMENT = re.compile(r"(?:^|\s+)#")

_MOST_SECTORS = ((1 << 63) - 1) // SECTOR
"""A byte's number must fit in loff_t."""


def parse_table(text: str) -> list[TableLine]:
    """`<start> <length> <type> <params>` lines, as dmsetup create reads them; blank lines and
    `#` comments, also those behind the parameters, are skipped. TableError for anything else."""
    lines: list[TableLine] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        words = line.split(None, 3)
        start, length = (*map(parse_u64, words[:2]), None, None)[:2]
        if len(words) < 3 or start is None or length is None:
            raise TableError(f"Invalid format on line {number} of table: {line[:80]!r}")
        params = _COMMENT.split(words[3], maxsplit=1)[0] if len(words) > 3 else ""
        lines.append(TableLine(start, length, words[2], params))
    return lines


def check_table(lines: Sequence[TableLine]) -> None:
    """Targets must follow each other without a gap from sector 0 (dm-table.c)."""
    if not lines:
        raise TableError("no targets specified")
    position = 0
    for line in lines:
        if line.length <= 0:
            raise TableError("zero-length target")
        if line.start != position:
            raise TableError("Gap in table")
        position += line.length
    if position > _MOST_SECTORS:
        raise TableError("too large device")


class Table:
    """Targets in order. `size` in bytes. A table holds each device it uses open once; `modes`: of
    each of `devices`, in all ways in which the targets want it."""

    def __init__(self, targets: Sequence[Target], *, read_only: bool) -> None:
        self.targets = tuple(targets)
        self.read_only = read_only
        self.size = sum(t.length for t in targets)
        self._begins = [t.begin for t in targets]
        self.devices = _unique(d for t in targets for d in t.devices)
        wanted: dict[int, set[str]] = {}
        for target in targets:
            for n, device in enumerate(target.devices):
                mode = target.modes[n] if target.modes else "rw"
                wanted.setdefault(id(device), set()).update(mode)
        self.modes = tuple("".join(sorted(wanted[id(device)])) for device in self.devices)
        self.flush_devices = _unique(d for t in targets for d in t.flush_devices)
        self.settling = tuple(t for t in targets if type(t).settle is not Target.settle)
        """The targets for which a flush of the devices is not all."""
        self.can_discard = bool(targets) and all(t.can_discard for t in targets)
        self.described: tuple[tuple[str, ...], list[list[Any]]] | None = None
        """See `dm.state`: the names of `devices`, and its lines with these."""
        self.block_size = max((d.block_size for d in self.devices), default=SECTOR)

    def check_sizes(self) -> None:
        """TableError if a device is too small. As the kernel, at a device's first load and at each
        resume with a new table (dm-table.c, dm_calculate_queue_limits, device_area_is_invalid);
        a device without a live table has no size yet."""
        for target in self.targets:
            for device, offset, length in target.areas():
                if 0 < device.size < offset + length:
                    raise TableError(f"a device of {target.type_name} is too small for the target")

    def find(self, offset: int) -> Target:
        """The target that holds byte `offset`."""
        return self.targets[bisect_right(self._begins, offset) - 1]


def _unique(devices: Iterable[BlockDevice]) -> tuple[BlockDevice, ...]:
    seen: dict[int, BlockDevice] = {}
    for device in devices:
        seen.setdefault(id(device), device)
    return tuple(seen.values())
