"""Physical volumes (pvcreate(8), pvremove(8)). Messages are LVM's; the caller prints results."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ulvm.blockdev.file import FileDevice
from ulvm.errors import RefusedError
from ulvm.lvm.session import Session
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.uuid import format_uuid, new_uuid, parse_uuid
from ulvm.vgstore.devices import DeviceEntry, add_devices, remove_devices
from ulvm.vgstore.pv import create_pv, device_path, erase_pv, probe_signatures, wipe_signature
from ulvm.vgstore.scan import PvDevice, Scan

__all__ = ["add_device", "create", "forget_device", "remove"]


def create(
    session: Session,
    path: str,
    *,
    options: PvOptions | None = None,
    uuid: str | None = None,
    force: int = 0,
) -> PvDevice:
    """Make a device a PV in no VG. Asks about what is on it; RefusedError, BusyError."""
    path = device_path(path)
    with session.lock_global():
        scan = session.scan([path])
        scan.check_used(path)
        _check_free(session, scan, path, force)
        if uuid is not None:
            uuid = format_uuid(parse_uuid(uuid))
            if any(p.uuid == uuid and p.path != path for p in (*scan.pvs, *scan.outdated)):
                raise RefusedError(f"uuid {uuid} already in use on another device.")
        _wipe_signatures(session, path, force)
        return create_pv(
            session.host, path, uuid=uuid or new_uuid(), options=options or PvOptions()
        )


def _check_free(session: Session, scan: Scan, path: str, force: int) -> None:
    """Whether the device may be overwritten."""
    known = next((pv for pv in (*scan.pvs, *scan.outdated) if pv.path == path), None)
    refused = f"{path}: physical volume not initialized."
    if known is not None and known.vg_name is not None:
        if force < 2:
            raise RefusedError(
                f'Can\'t initialize physical volume "{path}" of volume group '
                f'"{known.vg_name}" without -ff\n{refused}'
            )
        if not session.ask(
            f'Really INITIALIZE physical volume "{path}" of volume group "{known.vg_name}"?'
        ):
            raise RefusedError(refused)
    elif known is not None and known.in_use and force < 2:
        raise RefusedError(
            f"PV {path} is used by a VG but its metadata is missing.\n"
            f"Can't initialize PV '{path}' without -ff.\n{refused}"
        )
    # Held by a daemon, a virtual machine, a mount: the claim says by whom.
    FileDevice(path, writable=True, claim=True).close()


def _wipe_signatures(session: Session, path: str, force: int) -> None:
    device = session.host.opener(path, True)
    try:
        for found in probe_signatures(device):
            question = (
                f"WARNING: {found.name} signature detected on {path} at offset {found.offset}. "
                "Wipe it?"
            )
            if not force and not session.ask(question):
                raise RefusedError(
                    f"Aborted wiping of {found.name}.\n1 existing signature left on the device."
                )
            session.say(f"Wiping {found.name} signature on {path}.")
            wipe_signature(device, found)
    finally:
        device.close()


def remove(session: Session, path: str, *, force: int = 0) -> None:
    """Wipe the label. RefusedError for a PV that a VG uses, unless forced twice."""
    path = device_path(path)
    with session.lock_global():
        scan = session.scan([path])
        pv = next((pv for pv in scan.outdated if pv.path == path), None) or scan.pv(path)
        if pv.vg_name is not None or pv.in_use:
            owner = pv.vg_name or "a VG whose metadata is missing"
            if force < 2:
                raise RefusedError(
                    f"PV {path} is used by VG {owner} so please use vgreduce first.\n"
                    "(If you are certain you need pvremove, then confirm by using --force twice.)\n"
                    f"{path}: physical volume label not removed."
                )
            session.warn(f"WARNING: PV {path} is used by VG {owner}.")
            if not session.ask(
                f'Really WIPE LABELS from physical volume "{path}" of volume group "{owner}"?'
            ):
                raise RefusedError(f"{path}: physical volume label not removed.")
        FileDevice(path, writable=True, claim=True).close()
        erase_pv(session.host, path)


def add_device(session: Session, paths: Sequence[str]) -> list[PvDevice]:
    """Enter devices that hold PVs already (an image that real LVM2 wrote) in the devices file."""
    found = []
    with session.lock_global():
        absolute = [device_path(path) for path in paths]
        scan = session.scan(absolute)
        for path in absolute:
            found.append(scan.pv(path))
        add_devices(session.host, [DeviceEntry(pv.path, pv.uuid) for pv in found])
    return found


def forget_device(session: Session, paths: Sequence[str]) -> None:
    """Drop devices from the devices file; what is on them stays."""
    with session.lock_global():
        remove_devices(session.host, [os.path.abspath(path) for path in paths])
