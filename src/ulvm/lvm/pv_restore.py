"""What `pvcreate --uuid --restorefile` takes from a backup file: where a PV's extents lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ulvm.errors import DeviceError, FormatError, UsageError
from ulvm.lvm.session import Session
from ulvm.metadata.layout import PvOptions
from ulvm.vgstore.archive import read_backup

__all__ = ["restored_options"]


def restored_options(session: Session, path: str, uuid: str, options: PvOptions) -> PvOptions:
    """The options with the places of the PV `uuid` in a backup file. UsageError if there is no such
    PV, or no such file. Says which of the file's PVs are not there, as LVM2 does."""
    if not Path(path).exists():
        raise UsageError(
            f"{path}: stat failed: No such file or directory\n"
            "WARNING: couldn't read volume group metadata from file.\n"
            f"Failed to read VG (null) from {path}\nUnable to read volume group from {path}"
        )
    try:
        vg, _ = read_backup(Path(path))
    except (DeviceError, FormatError) as error:
        raise UsageError(f"{error.message}\nUnable to read volume group from {path}") from None
    scan = session.scan()
    for pv in vg.pvs:
        if scan.by_uuid(pv.uuid) is None:
            session.warn(f"WARNING: Couldn't find device with uuid {pv.uuid}.")
    found = vg.pv(uuid)
    if found is None:
        raise UsageError(f"Can't find uuid {uuid} in backup file {path}")
    return replace(
        options,
        pe_start=found.pe_start,
        pe_end=found.pe_start + found.pe_count * vg.extent_size,
        ba_start=found.ba_start,
        bootloader_area_size=found.ba_size,
    )
