"""lvmdiskscan(8): the devices that may be used as physical volumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import UlvmError
from ulvm.lvm.session import Session
from ulvm.metadata.label import LABEL_SCAN_SIZE, find_label
from ulvm.units import SECTOR
from ulvm.vgstore.candidates import find_candidates, min_sectors

__all__ = ["Candidate", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """A disk or file; `sectors` of its size. `whole`: a disk that is no partition."""

    path: str
    sectors: int
    is_pv: bool
    whole: bool


def candidates(session: Session) -> Iterator[Candidate]:
    """What the settings let be looked at, in order of path."""
    least = min_sectors(session.host)
    for path in sorted(find_candidates(session.host).paths):
        try:
            device = session.host.opener(path, False)
        except UlvmError:
            continue  # no medium in it, or not for us: none that could be used
        try:
            sectors = device.size // SECTOR
            is_pv = _has_label(device)
        finally:
            device.close()
        if sectors >= least:
            yield Candidate(path, sectors, is_pv, _is_whole(path))


def _has_label(device: BlockDevice) -> bool:
    try:
        return find_label(device.read(0, LABEL_SCAN_SIZE)) is not None
    except UlvmError:
        return False


def _is_whole(path: str) -> bool:
    """Not a partition; and no loop device, which LVM2 counts as one."""
    if not Path(path).is_block_device():
        return True
    name = os.path.basename(os.path.realpath(path))
    return not name.startswith("loop") and not Path(f"/sys/class/block/{name}/partition").exists()
