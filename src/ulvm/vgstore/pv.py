"""Physical volumes are made and unmade here: pvcreate(8), pvremove(8), and what stands in the way.

Order of pvcreate: the first sectors are wiped, or the old labels in them alone, metadata areas are
zeroed and given empty headers, a flush, and the label last: a crash before it leaves no PV, after
it a whole one.
pvremove wipes the label first.
"""

from __future__ import annotations

import os
import stat

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import DeviceError, NotFoundError, RefusedError
from ulvm.faultpoints import reach
from ulvm.metadata.label import LABEL_SCAN_SIZE, DiskLocn, Label, PvHeader, labelled_sectors
from ulvm.metadata.layout import PvOptions, plan_layout, usable_extents
from ulvm.metadata.mda import IGNORED_LOCN, NO_LOCN, MdaHeader
from ulvm.metadata.model import PhysicalVolume
from ulvm.units import SECTOR
from ulvm.vgstore.candidates import min_sectors
from ulvm.vgstore.devices import DeviceEntry, add_devices, remove_devices
from ulvm.vgstore.host import Host
from ulvm.vgstore.read import Texts
from ulvm.vgstore.scan import PvDevice, read_pv

__all__ = [
    "as_member",
    "create_pv",
    "device_path",
    "erase_pv",
    "new_label",
    "partitioned",
]

_MDA_CLEAN = 4096
"""Bytes zeroed at the start of a new metadata area."""


def device_path(path: str) -> str:
    """The real path of a device named on a command line; NotFoundError if there is none."""
    absolute = os.path.realpath(path) if path else ""
    try:
        mode = os.stat(absolute).st_mode
    except FileNotFoundError:
        raise NotFoundError(f"No device found for {path}.") from None
    except OSError as error:
        raise NotFoundError(f"No device found for {path}: {error.strerror}.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise NotFoundError(f"No device found for {path}: it is neither a file nor a disk.")
    return absolute


def partitioned(device: BlockDevice) -> bool:
    """The first sector has a partition table with an entry in it: a protective one counts."""
    if device.size < SECTOR:
        return False
    sector = device.read(0, SECTOR)
    entries = [sector[at : at + 16] for at in range(446, 510, 16)]
    return (
        sector[510:] == b"\x55\xaa"
        and any(e[4] for e in entries)
        and all(e[0] in (0, 0x80) for e in entries)
    )


def new_label(sectors: int, uuid: str, options: PvOptions, *, device: str) -> Label:
    """Of a PV of so many sectors in no VG; RefusedError if the options do not fit."""
    layout = plan_layout(sectors, options, device=device)
    header = PvHeader(
        uuid,
        sectors * SECTOR,
        data_areas=(DiskLocn(layout.pe_start * SECTOR, 0),),
        metadata_areas=layout.metadata_areas,
        bootloader_areas=layout.bootloader_areas,
    )
    return Label(options.label_sector, header)


def create_pv(host: Host, path: str, *, uuid: str, options: PvOptions) -> PvDevice:
    """Make the device a PV in no VG and enter it in the devices file.

    The caller holds the global lock and has asked about whatever is on the device.
    RefusedError if it is too small or the options do not fit.
    """
    device = host.opener(path, True)
    try:
        sectors = options.size or device.size // SECTOR
        if sectors < min_sectors(host):
            raise RefusedError(f"Cannot use {path}: device is too small (pv_min_size)")
        label = new_label(sectors, uuid, options, device=path)
        if options.zero:
            device.write(0, bytes(LABEL_SCAN_SIZE))
        else:
            # The first label counts, so none may stay before the new one.
            for sector in labelled_sectors(device.read(0, LABEL_SCAN_SIZE)):
                device.write(sector * SECTOR, bytes(SECTOR))
        for area in label.pv_header.metadata_areas:
            device.write(area.offset, bytes(min(_MDA_CLEAN, area.size)))
            empty = IGNORED_LOCN if options.metadata_ignore else NO_LOCN
            device.write(area.offset, MdaHeader(area.offset, area.size, empty).pack())
        device.flush()
        reach("before a new label is written")
        device.write(label.sector * SECTOR, label.pack())
        device.flush()
        reach("after a new label was written")
        pv = read_pv(path, device, Texts(), [])
    finally:
        device.close()
    if pv is None:
        raise DeviceError(f"{path}: the label that was written cannot be read back.")
    add_devices(host, [DeviceEntry(path, uuid)])
    return pv


def erase_pv(host: Host, path: str) -> None:
    """Wipe the label, so that the device is no PV any more, and drop it from the devices file."""
    device = host.opener(path, True)
    try:
        device.write(0, bytes(min(LABEL_SCAN_SIZE, device.size)))
        device.flush()
        reach("after a label was wiped")
    finally:
        device.close()
    remove_devices(host, [path])


def as_member(pv: PvDevice, extent_size: int) -> PhysicalVolume:
    """How the PV will stand in a VG whose extents have `extent_size` sectors."""
    header = pv.label.pv_header
    sectors = header.device_size // SECTOR or pv.size // SECTOR
    pe_start = header.pe_start // SECTOR
    boot = header.bootloader_areas[0] if header.bootloader_areas else DiskLocn(0, 0)
    return PhysicalVolume(
        header.uuid,
        pv.path,
        sectors,
        pe_start,
        usable_extents(sectors, pe_start, header.metadata_areas, extent_size),
        ba_start=boot.offset // SECTOR,
        ba_size=boot.size // SECTOR,
    )
