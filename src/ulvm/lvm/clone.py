"""vgimportclone(8): copies of all devices of a VG become a VG of their own."""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.activation.names import LVM_UUID_PREFIX
from ulvm.blockdev.file import FileDevice
from ulvm.errors import NotFoundError, RefusedError, UlvmError
from ulvm.lvm.session import Session
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.names import check_new_vg_name
from ulvm.metadata.pv_edit import set_uuid
from ulvm.metadata.uuid import UUID_LEN, new_uuid
from ulvm.vgstore.archive import backup_vg
from ulvm.vgstore.clone import interrupted, write_clone
from ulvm.vgstore.devices import DeviceEntry, add_devices
from ulvm.vgstore.pv import device_path
from ulvm.vgstore.read import Texts
from ulvm.vgstore.scan import PvDevice, Scan, read_pv
from ulvm.vgstore.scan import scan as look

__all__ = ["import_clone"]


def import_clone(
    session: Session, paths: Sequence[str], *, name: str | None = None, exported: bool = False
) -> VolumeGroup:
    """Give the devices new UUIDs and their VG a new one and the name `name`, or its own with a
    number that is free. `exported`: it may be exported, and is imported.

    All devices of the VG must be named. The originals may be there or not. RefusedError,
    NotFoundError, and nothing is written.
    """
    with session.lock_global():
        devices = [_device(session, path) for path in paths]
        if len({pv.path for pv in devices}) < len(devices):
            raise RefusedError("A device is named twice.")
        scan = look(session.host)
        # `mapper` is a directory of the tree: volumes of such a VG would have no path.
        names = {vg.name for vg in (*scan.vgs, *scan.foreign)} | {*scan.broken, "mapper"}
        wanted = interrupted(session.host, devices)
        if wanted is None:
            old = _group(devices)
            if not _is_elsewhere(scan, old, devices):
                names.discard(old.name)
            wanted = _cloned(old, devices, _new_name(name, old, names), exported)
        _check_inactive(session, wanted, devices)
        for pv in devices:
            # Held by a daemon, a virtual machine, another program: the claim says by whom.
            FileDevice(pv.path, writable=True, claim=True).close()
        with session.lock(wanted.name):
            session.hold_signals()
            write_clone(session.host, devices, wanted, session.command_line)
            add_devices(session.host, [DeviceEntry(pv.device, pv.uuid) for pv in wanted.pvs])
            try:
                backup_vg(session.host, wanted, session.command_line)
            except UlvmError as error:  # The clone stands.
                session.warn(f"WARNING: {error.message}")
    return wanted


def _check_inactive(session: Session, vg: VolumeGroup, devices: Sequence[PvDevice]) -> None:
    """No device of ours stands on them; the volumes are the same in a copy and its original."""
    dm = session.dm_if_running
    lvs = {lv.uuid.replace("-", "") for lv in vg.lvs}
    active = {info.uuid[len(LVM_UUID_PREFIX) :] for info in dm.devices()} if dm else set()
    on = {mda.vg.uuid.replace("-", "") for pv in devices for mda in pv.mdas if mda.vg is not None}
    ours = {uuid for uuid in active if uuid[:UUID_LEN] in on and uuid[UUID_LEN:][:UUID_LEN] in lvs}
    if ours and all(session.last_scan.path_of(pv.uuid) == pv.path for pv in devices):
        lines = [f"Device {pv.path} has active LVs, deactivate first." for pv in devices]
        raise RefusedError("\n".join([*lines, "Failed to update VG on devices being imported."]))


def _device(session: Session, named: str) -> PvDevice:
    """Read by itself: beside its original a copy is passed over by the scan."""
    try:
        path = device_path(named)
    except NotFoundError:
        raise NotFoundError(f"Failed to find device {named}.") from None
    warnings: list[str] = []
    device = session.host.opener(path, False)
    try:
        pv = read_pv(path, device, Texts(), warnings)
    finally:
        device.close()
    for text in warnings:
        session.warn(text)
    if pv is None:
        raise NotFoundError(f"Failed to find PVID for device {path}.")
    return pv


def _group(devices: Sequence[PvDevice]) -> VolumeGroup:
    """The VG on the devices, of which they are all PVs."""
    found = [mda.vg for pv in devices for mda in pv.mdas if mda.vg is not None]
    if not found:
        raise RefusedError(f"Failed to find VG on devices being imported: {devices[0].path}.")
    newest = max(found, key=lambda vg: vg.seqno)
    if any(vg.uuid != newest.uuid for vg in found):
        raise RefusedError("Devices must be from the same VG.")
    if any(vg.seqno == newest.seqno and vg != newest for vg in found):
        raise RefusedError(
            f"The devices have different metadata of VG {newest.name} and none that are older: "
            "settle that where they were copied from."
        )
    here = {pv.uuid for pv in devices}
    if any(newest.pv(uuid) is None for uuid in here):
        raise RefusedError("Devices must be from the same VG.")
    missing = [pv.uuid for pv in newest.pvs if pv.uuid not in here]
    if missing:
        lines = [f"WARNING: Couldn't find device with uuid {uuid}." for uuid in missing]
        raise RefusedError(
            "\n".join(lines) + f"\nCannot change VG {newest.name} while PVs are missing.\n"
            "See vgreduce --removemissing and vgextend --restoremissing.\n"
            f"Failed to read VG {newest.name} from devices being imported."
        )
    return newest


def _is_elsewhere(scan: Scan, vg: VolumeGroup, devices: Sequence[PvDevice]) -> bool:
    """Other devices than these hold the VG, or another of its name."""
    groups = (*scan.vgs, *scan.foreign)
    if any(other.name == vg.name and other.uuid != vg.uuid for other in groups):
        return True
    ours = {pv.path for pv in devices}
    return any(
        pv.uuid in scan.duplicates or scan.path_of(pv.uuid) not in (None, *ours) for pv in vg.pvs
    )


def _new_name(asked: str | None, old: VolumeGroup, names: set[str]) -> str:
    """What was asked for if it is free; else that, or the old name, with the first free number."""
    if asked is not None and asked not in names:
        check_new_vg_name(asked)
        return asked
    base = asked or old.name
    number = 1
    while f"{base}{number}" in names:
        number += 1
    try:
        check_new_vg_name(f"{base}{number}")
    except UlvmError as error:
        raise RefusedError(error.message) from None
    return f"{base}{number}"


def _cloned(
    old: VolumeGroup, devices: Sequence[PvDevice], name: str, exported: bool
) -> VolumeGroup:
    if "EXPORTED" in old.status and not exported:
        raise RefusedError(
            f"VG {old.name} is exported, use the --import option.\n"
            "Failed to update VG on devices being imported."
        )
    vg = old._replace(missing_uuids=frozenset())
    path_of = {pv.uuid: pv.path for pv in devices}
    for member in old.pvs:
        vg = set_uuid(vg, member.uuid, new_uuid())
    pvs: list[PhysicalVolume] = []
    for before, after in zip(old.pvs, vg.pvs, strict=True):
        status = after.status - {"EXPORTED"}
        pvs.append(after._replace(device=path_of[before.uuid], status=status))
    return vg._replace(
        name=name,
        uuid=new_uuid(),
        pvs=tuple(pvs),
        seqno=old.seqno + 1,
        status=vg.status - {"EXPORTED"},
    )
