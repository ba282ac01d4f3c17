"""lvmdiskscan(8): the devices that may be used as physical volumes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import UlvmError
from ulvm.lvm.session import Session
from ulvm.metadata.label import LABEL_SCAN_SIZE, find_label
from ulvm.units import SECTOR
from ulvm.vgstore.pv import min_sectors

__all__ = ["Candidate", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """A disk or file; `sectors` of its size. `whole`: a disk that is no partition."""

    path: str
    sectors: int
    is_pv: bool
    whole: bool


def candidates(session: Session) -> Iterator[Candidate]:
    """What the settings let be looked at, and the disks of this machine, in order of path."""
    scan = session.scan(labels_only=True)
    pvs = {pv.path for pv in (*scan.pvs, *scan.outdated)}
    least = min_sectors(session.host)
    for path in sorted({*pvs, *_disks()} - set(scan.rejected)):
        try:
            device = session.host.opener(path, False)
        except UlvmError:
            continue  # no medium in it, or not for us: none that could be used
        try:
            sectors = device.size // SECTOR
            is_pv = path in pvs or _has_label(device)
        finally:
            device.close()
        if sectors >= least:
            yield Candidate(path, sectors, is_pv, _is_whole(path))


def _has_label(device: BlockDevice) -> bool:
    """Also of a PV that is not among those looked at."""
    try:
        return find_label(device.read(0, LABEL_SCAN_SIZE)) is not None
    except UlvmError:
        return False


def _disks() -> Iterator[str]:
    folder = Path("/sys/class/block")
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        path = f"/dev/{name.replace('!', '/')}"
        # A disk with partitions on it is not to be used as a whole.
        if os.path.exists(path) and not any((folder / name).glob(f"{name}*/partition")):
            yield path


def _is_whole(path: str) -> bool:
    """LVM2 counts those whose names are of a disk: neither partitions, nor loop devices."""
    if not stat.S_ISBLK(os.stat(path).st_mode):
        return False
    return re.search(r"\d$", path) is None
