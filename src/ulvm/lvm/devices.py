"""The devices file of a host, seen and changed (lvmdevices(8), vgimportdevices(8)).

An entry has what a disk is known by, or the path of a file, and the PV that was on it. Where the
path counts, the PV tells whether another disk has taken the name since, and finds a PV whose disk
has another name now.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ulvm.errors import NotFoundError, RefusedError, UlvmError
from ulvm.lvm.names import given_device
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.uuid import format_uuid, parse_uuid
from ulvm.vgstore.device_ids import KNOWN_TYPES, device_id, part_of
from ulvm.vgstore.devices import DeviceEntry, add_devices, lost_words, read_devices, remove_devices
from ulvm.vgstore.pv import device_path
from ulvm.vgstore.read import Texts
from ulvm.vgstore.scan import PvDevice, read_pv
from ulvm.vgstore.scan import scan as look

__all__ = [
    "add",
    "add_pv",
    "adopt",
    "check",
    "entries",
    "find_pvs",
    "import_groups",
    "is_there",
    "remove",
    "remove_id",
    "remove_pv",
    "update",
]

_LONGEST_LIST = 4096
"""Files of one directory that are looked into for a PV."""


def entries(session: Session) -> list[DeviceEntry]:
    """What the devices file has; RefusedError if there is none. Says what is not there."""
    found = _entries(session)
    for entry in found:
        if not is_there(entry):
            session.warn(lost_words(entry))
    return found


def is_there(entry: DeviceEntry) -> bool:
    return not entry.lost and os.path.exists(entry.path)


def _entries(session: Session) -> list[DeviceEntry]:
    if not session.host.devices_file.exists():
        raise RefusedError("Devices file does not exist.")
    return read_devices(session.host)


def add(session: Session, named: str, id_type: str = "") -> None:
    """Enter a device, whether a PV is on it or not; known by the type asked for, if it has that."""
    path = device_path(named)
    with session.lock_global():
        id_name = device_id(path, id_type)[1] if id_type else ""
        if id_type and id_type not in KNOWN_TYPES:
            session.warn(f"WARNING: ignoring unknown device_id type {id_type}.")
        elif id_type and not id_name:
            session.warn(
                f"WARNING: ignoring deviceidtype {id_type} which is not available for device."
            )
        pv = _pv_on(session, path)
        entry = DeviceEntry(path, pv.uuid if pv else None)
        if id_name:
            entry = entry._replace(id_type=id_type, id_name=id_name, part=part_of(path))
        add_devices(session.host, [entry])


def remove_id(session: Session, id_type: str, id_name: str) -> None:
    """Drop the entry of what is known by this; NotFoundError if there is none."""
    with session.lock_global():
        for entry in read_devices(session.host):
            if (entry.id_type, entry.id_name) == (id_type, id_name):
                remove_devices(session.host, [entry.path])
                return
    raise NotFoundError(f"No devices file entry with device id {id_type} {id_name}.")


def adopt(session: Session, paths: Sequence[str]) -> list[PvDevice]:
    """Enter devices that hold PVs already (an image that real LVM2 wrote); NotFoundError, and
    nothing is entered, if one of them does not."""
    with session.lock_global():
        absolute = [device_path(path) for path in paths]
        scan = session.scan(absolute)
        found = [scan.pv(path) for path in absolute]
        add_devices(session.host, [DeviceEntry(pv.path, pv.uuid) for pv in found])
    return found


def remove(session: Session, paths: Sequence[str], *, strict: bool = False) -> None:
    """Drop the entries of these paths; what is on the devices stays. `strict`: NotFoundError for
    one that has none."""
    with session.lock_global():
        known = {entry.path for entry in read_devices(session.host)}
        gone = []
        for named in map(os.path.abspath, paths):
            path = named if named in known else given_device(named, session.host.run_dir)
            if strict and path not in known:
                raise NotFoundError(f"No devices file entry for {named}.")
            gone.append(path)
        remove_devices(session.host, gone)


def add_pv(session: Session, pvid: str) -> str:
    """Find the PV and enter its device; the path. NotFoundError, RefusedError."""
    uuid = _uuid(pvid)
    with session.lock_global():
        for entry in read_devices(session.host):
            if entry.pv_uuid == uuid:
                raise RefusedError(f"PVID already exists in devices file for {entry.path}.")
        found = next((pv for pv in find_pvs(session) if pv.uuid == uuid), None)
        if found is None:
            raise NotFoundError(f"PVID {parse_uuid(uuid)} not found on any devices.")
        add_devices(session.host, [DeviceEntry(found.path, uuid)])
        return found.path


def remove_pv(session: Session, pvid: str) -> None:
    """Drop the entry of a PV; NotFoundError, RefusedError."""
    uuid = _uuid(pvid)
    with session.lock_global():
        paths = [e.path for e in read_devices(session.host) if e.pv_uuid == uuid]
        if not paths:
            raise NotFoundError("PVID not found in devices file.")
        remove_devices(session.host, paths)


def check(session: Session) -> list[tuple[DeviceEntry, DeviceEntry]]:
    """(entry, what it should be) for each that is wrong, of which it tells; a device that is not
    there and whose PV is nowhere else is told of and stays."""
    found = _entries(session)
    wrong = []
    elsewhere: dict[str, str] | None = None
    for entry in found:
        if entry.listed:
            session.warn(f"Device {entry.path} has updated name (devices file {entry.listed})")
            wrong.append((entry, entry._replace(listed="")))
            continue
        if entry.lost:
            session.warn(lost_words(entry))
            continue
        pv = _pv_on(session, entry.path) if os.path.exists(entry.path) else None
        if pv is not None and pv.uuid == entry.pv_uuid:
            continue
        if entry.pv_uuid is not None:
            if elsewhere is None:
                elsewhere = {p.uuid: p.path for p in find_pvs(session)}
            path = elsewhere.get(entry.pv_uuid)
            if path is not None and all(path != e.path for e in found):
                session.warn(f"Device {path} has updated name (devices file {entry.path})")
                wrong.append((entry, entry._replace(path=path, id_type="", id_name="")))
                continue
        if not os.path.exists(entry.path):
            session.warn(lost_words(entry))
        elif pv is None and entry.pv_uuid is not None:
            session.warn(
                f"Device {entry.path} has no PVID (devices file {parse_uuid(entry.pv_uuid)})"
            )
            wrong.append((entry, entry._replace(pv_uuid=None)))
        elif pv is not None:
            old = parse_uuid(entry.pv_uuid) if entry.pv_uuid else "none"
            session.warn(f"Device {entry.path} has PVID {parse_uuid(pv.uuid)} (devices file {old})")
            wrong.append((entry, entry._replace(pv_uuid=pv.uuid)))
    return wrong


def update(session: Session) -> bool:
    """Put right what `check` finds; whether there was something."""
    with session.lock_global():
        wrong = check(session)
        if wrong:
            moved = [old.path for old, new in wrong if old.path != new.path]
            if moved:
                remove_devices(session.host, moved)
            add_devices(session.host, [new for _, new in wrong])
        return bool(wrong)


def import_groups(session: Session, names: Sequence[str]) -> int:
    """Enter the devices of VGs, wherever they are found; no names: of all. How many were entered.
    NotFoundError for a VG that is nowhere."""
    with session.lock_global():
        nearby = [pv.path for pv in find_pvs(session)]
        scan = look(session.host, nearby)
        groups: list[VolumeGroup] = [scan.vg(name) for name in names] or list(scan.vgs)
        known = {(e.path, e.pv_uuid) for e in read_devices(session.host)}
        new = []
        for vg in groups:
            for member in vg.pvs:
                pv = scan.by_uuid(member.uuid)
                if pv is None:
                    raise RefusedError(
                        f"WARNING: Not importing VG {vg.name}: PV {member.uuid} is not there."
                    )
                if (pv.path, pv.uuid) not in known:
                    new.append(DeviceEntry(pv.path, pv.uuid))
        if new:
            add_devices(session.host, new)
        return len(new)


def find_pvs(session: Session) -> Iterator[PvDevice]:
    """PVs on the disks of this machine, and on the files that lie beside those which the devices
    file has. Devices that cannot be read are passed over: a search finds what it can."""
    folders = {os.path.dirname(e.path) for e in read_devices(session.host)}
    candidates = [*_disks()]
    for folder in sorted(folders - {"/dev"}):
        candidates += _files(folder)
    for path in dict.fromkeys(candidates):
        pv = _pv_on(session, path)
        if pv is not None:
            yield pv


def _disks() -> Iterator[str]:
    block = Path("/sys/class/block")
    for name in sorted(os.listdir(block)) if block.is_dir() else ():
        path = f"/dev/{name.replace('!', '/')}"
        if os.path.exists(path):
            yield path


def _files(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            items = sorted(item.path for item, _ in zip(found, range(_LONGEST_LIST), strict=False))
    except OSError:
        return
    for path in items:
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path
        except OSError:
            continue


def _pv_on(session: Session, path: str) -> PvDevice | None:
    try:
        device = session.host.opener(path, False)
    except UlvmError:
        return None
    try:
        return read_pv(path, device, Texts(), [])
    except UlvmError:
        return None
    finally:
        device.close()


def _uuid(pvid: str) -> str:
    try:
        return format_uuid(parse_uuid(pvid))
    except UlvmError:
        raise RefusedError("Invalid PVID.") from None
