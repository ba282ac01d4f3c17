"""pvscan --cache: which PVs have come, and which VGs are complete by that (pvscan(8)).

`<run_dir>/pvs_online/<PV UUID>` says that a PV was seen, `<run_dir>/vgs_online/<VG>` that somebody
has taken it on to activate the VG: the file is made by one only, so a VG is activated once however
many of its devices come at a time. The run directory is new after a boot, and so are they. Without
a device, all are looked at afresh.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulvm.errors import DeviceError
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.regroup import pvs_of_lv
from ulvm.metadata.uuid import parse_uuid
from ulvm.vgstore.files import private_dir
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import PvDevice

__all__ = ["Arrival", "arrivals", "claim_vg", "forget_all", "volumes_on"]

_PVS, _VGS = "pvs_online", "vgs_online"


@dataclass(frozen=True)
class Arrival:
    """A device that was named, or found. `pv` None: no PV is on it; `vg` None: in no VG. `absent`:
    the PVs of the VG that have not come yet."""

    path: str
    pv: PvDevice | None = None
    vg: VolumeGroup | None = None
    absent: int = 0

    @property
    def complete(self) -> bool:
        return self.vg is not None and not self.absent


def forget_all(host: Host) -> None:
    """No PV has come and no VG was taken on."""
    if host.trial:
        return
    for name in (_PVS, _VGS):
        shutil.rmtree(host.run_dir / name, ignore_errors=True)


def arrivals(session: Session, paths: Sequence[str] | None, *, record: bool) -> Iterator[Arrival]:
    """What the devices are; None: all PVs there are. `record`: they are online from now on."""
    scan = session.scan(paths or ())
    if paths is None:
        names = dict.fromkeys(vg.name for vg in scan.vgs)
        devices = [pv for name in names for pv in scan.pvs if pv.vg_name == name]
        devices += [pv for pv in scan.pvs if pv.vg_name is None]
        wanted: list[tuple[str, PvDevice | None]] = [(pv.path, pv) for pv in devices]
    else:
        found = {pv.path: pv for pv in scan.pvs}
        wanted = [(path, found.get(path)) for path in paths]
    for path, pv in wanted:
        vg = next((g for g in scan.vgs if pv is not None and g.pv(pv.uuid) is not None), None)
        if pv is None or vg is None:
            yield Arrival(path, pv)
            continue
        if record:
            _mark(session.host, _PVS, parse_uuid(pv.uuid), f"{path}\nvg:{vg.name}\n")
        absent = sum(not _is_marked(session.host, _PVS, parse_uuid(p.uuid)) for p in vg.pvs)
        yield Arrival(path, pv, vg, absent)


def claim_vg(host: Host, vg_name: str) -> bool:
    """Whether nobody has taken on the VG yet; now somebody has."""
    return _mark(host, _VGS, vg_name, "")


def volumes_on(vg: VolumeGroup, pv: PvDevice) -> list[str]:
    """Names of the visible volumes with extents on the PV."""
    return [lv.name for lv in vg.visible_lvs() if pv.uuid in pvs_of_lv(vg, lv)]


def _mark(host: Host, folder: str, name: str, text: str) -> bool:
    if host.trial:
        return not _is_marked(host, folder, name)
    private_dir(host.run_dir)
    private_dir(host.run_dir / folder)
    try:
        fd = os.open(_path(host, folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise DeviceError(
            f"{_path(host, folder, name)}: open failed: {error.strerror}", errno=error.errno
        ) from error
    with os.fdopen(fd, "w") as file:
        file.write(text)
    return True


def _is_marked(host: Host, folder: str, name: str) -> bool:
    return _path(host, folder, name).exists()


def _path(host: Host, folder: str, name: str) -> Path:
    return host.run_dir / folder / name
