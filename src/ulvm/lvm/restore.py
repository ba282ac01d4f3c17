"""vgcfgrestore(8) and vgck(8): metadata from a text file, and metadata written afresh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ulvm.activation.names import LVM_UUID_PREFIX, dm_uuid, split_dm_name
from ulvm.errors import DeviceError, FormatError, NotFoundError, RefusedError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.text import TextHeader
from ulvm.vgstore.archive import archived, backup_path, read_backup
from ulvm.vgstore.commit import free_outdated, prepare
from ulvm.vgstore.scan import Scan

__all__ = ["backups", "check", "restore", "rewrite"]


def backups(
    session: Session, vg_name: str, path: Path | None = None
) -> Iterator[tuple[Path, VolumeGroup, TextHeader]]:
    """The archived states of a VG, oldest first, and its backup; or what one file holds."""
    host = session.host
    if path is not None:
        if not path.exists():
            raise NotFoundError(f"Archive file {path} not found.")
        yield path, *read_backup(path)
        return
    files = archived(host.archive_dir, vg_name)
    if not files:
        session.say(f"No archives found in {host.archive_dir}.")
    last = backup_path(host, vg_name)
    for file in (*files, *([last] if last.exists() else [])):
        try:
            found, header = read_backup(file)
        except (DeviceError, FormatError) as error:
            session.warn(f"WARNING: {file}: {error.message}")
            continue
        if found.name == vg_name:
            yield file, found, header


def restore(session: Session, vg_name: str, path: Path | None = None) -> None:
    """Bring a VG back to what a file of `vgcfgbackup`, or of the archive, says; without a path to
    its last backup. Data are not touched.

    Its PVs must be there and in no other VG. RefusedError, and nothing is changed, if a volume
    is active that the file does not know or knows otherwise (a snapshot would be lost).
    """
    with session.lock_global(), session.lock(vg_name):
        scan = session.scan(labels_only=True)
        _ask_about_active(session, scan, vg_name)
        wanted = _read(session, vg_name, path or backup_path(session.host, vg_name))
        current = next((vg for vg in scan.vgs if vg.uuid == wanted.uuid), None)
        named = next((vg for vg in scan.vgs if vg.name == vg_name), None)
        if named is not None and named.uuid != wanted.uuid:
            raise RefusedError(
                f"{vg_name} is another volume group than that of the file.\nRestore failed."
            )
        if current is not None and current.name != vg_name:  # Renamed since.
            _ask_about_active(session, scan, current.name)
        _check_pvs(session, wanted)
        if current is None:
            _write_new(session, scan, wanted)
            return
        _check_active(session, current, wanted)
        seqno = max(current.seqno, wanted.seqno)
        session.change_vg(
            current.name,
            lambda _: wanted._replace(seqno=seqno),
            allow_missing=True,
            exported=True,
            settle=True,
            take_back=True,
            frees=False,  # Another state of the VG may yet be wanted, with its data.
        )


def _write_new(session: Session, scan: Scan, wanted: VolumeGroup) -> None:
    """A VG of which nothing is left on its PVs."""
    session.hold_signals()
    try:
        prepare(
            session.host,
            scan,
            None,
            wanted,
            command=session.command_line,
            exclusive=not session.holds(wanted),
            warn=session.warn,
            verbose=session.verbose,
        ).commit()
    except UlvmError as error:
        raise type(error)(f"{error.message}\nRestore failed.") from error


def _ask_about_active(session: Session, scan: Scan, vg_name: str) -> None:
    """RefusedError unless none of the VG's devices is there, or the user wants to go on. By their
    names, since nothing of the VG may be left on its PVs; by UUID what was renamed by hand."""
    dm = session.dm_if_running
    known = tuple(dm_uuid(vg.uuid, "") for vg in scan.vgs if vg.name == vg_name)
    found = []
    for info in dm.devices() if dm is not None else ():
        if not info.uuid.startswith(LVM_UUID_PREFIX):
            continue
        try:
            group, volume, _ = split_dm_name(info.name)
        except FormatError:
            group, volume = "", info.name
        if group == vg_name or info.uuid.startswith(known):
            found.append(volume)
    if not found:
        return
    for volume in sorted(found):
        session.say(f"Volume group {vg_name} has active volume: {volume}.")
    session.warn(f'WARNING: Found {len(found)} active volume(s) in volume group "{vg_name}".')
    session.say("Restoring VG with active LVs, may cause mismatch with its metadata.")
    if not session.ask(
        f'Do you really want to proceed with restore of volume group "{vg_name}", '
        f"while {len(found)} volume(s) are active?"
    ):
        raise RefusedError("Restore aborted.")


def _read(session: Session, vg_name: str, path: Path) -> VolumeGroup:
    failed = f"Failed to read VG {vg_name} from {path}\nRestore failed."
    if not path.exists():
        raise RefusedError(
            f"{path}: stat failed: No such file or directory\n"
            f"WARNING: couldn't read volume group metadata from file.\n{failed}"
        )
    try:
        found, _ = read_backup(path)
    except UlvmError as error:
        raise RefusedError(
            f"{error.message}\nWARNING: couldn't read volume group metadata from file.\n{failed}"
        ) from error
    if found.name != vg_name:
        raise RefusedError(f"'{path}' does not contain volume group '{vg_name}'.\nRestore failed.")
    return found


def _check_pvs(session: Session, wanted: VolumeGroup) -> None:
    scan = session.last_scan.with_outdated(wanted)
    missing = 0
    for pv in wanted.pvs:
        device = scan.by_uuid(pv.uuid)
        if device is None:
            session.warn(f"WARNING: Couldn't find device with uuid {pv.uuid}.")
            missing += 1
            continue
        if device.vg_name not in (None, wanted.name):
            owner = next((vg for vg in scan.vgs if vg.name == device.vg_name), None)
            if owner is None or owner.uuid != wanted.uuid:
                raise RefusedError(
                    f"PV {device.path} is in volume group {device.vg_name}.\nRestore failed."
                )
        if pv.missing:
            session.warn(
                f"WARNING: VG {wanted.name} was previously updated while PV {device.path} "
                "was missing."
            )
            missing += 1
    if missing:
        raise RefusedError(
            f"Cannot restore Volume Group {wanted.name} with {missing} PVs marked as missing.\n"
            "Restore failed."
        )


def _check_active(session: Session, current: VolumeGroup, wanted: VolumeGroup) -> None:
    for name in lvm_lv.states(session, current):
        lv = current.lv(name)
        after = wanted.lv_by_uuid(lv.uuid) if lv is not None else None
        if lv is None or after is None or _ties(current, lv.name) != _ties(wanted, after.name):
            raise RefusedError(
                f"Logical volume {current.name}/{name} is active and would be lost: "
                "deactivate it first.\nRestore failed."
            )


def _ties(vg: VolumeGroup, name: str) -> set[tuple[str, str]]:
    """UUIDs of the (origin, COW) pairs that a volume is in."""
    pairs = set()
    for segment in vg.snapshot_segments():
        if name in (segment.origin, segment.cow):
            origin, cow = vg.lv(segment.origin), vg.lv(segment.cow)
            if origin is not None and cow is not None:
                pairs.add((origin.uuid, cow.uuid))
    return pairs


def check(session: Session, vg_name: str) -> None:
    """RefusedError if PVs are missing; what else is odd the scan has told."""
    missing = len(session.find_vg(vg_name).all_missing)
    if missing:
        raise RefusedError(f"The volume group is missing {missing} physical volumes.")


def rewrite(session: Session, vg_name: str) -> None:
    """Write the newest metadata to all areas, damaged ones too, and free the PVs that the VG
    has gone on without (vgck --updatemetadata)."""
    with session.lock_global():
        session.change_vg(vg_name, lambda vg: vg, allow_missing=True, mend=True, settle=True)
        for pv in session.last_scan.outdated:
            if pv.vg_name == vg_name:
                session.warn(f"WARNING: wiping mda on outdated PV {pv.path}")
                session.warn(f"WARNING: wiping header on outdated PV {pv.path}")
                free_outdated(session.host, pv)
