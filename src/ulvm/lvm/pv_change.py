"""pvchange(8) and pvresize(8)."""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.errors import RefusedError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.session import Session
from ulvm.metadata.layout import usable_extents
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.pv_edit import resize_pv, set_allocatable, set_tags, set_uuid
from ulvm.metadata.uuid import new_uuid
from ulvm.units import SECTOR, display_size
from ulvm.vgstore.candidates import min_sectors
from ulvm.vgstore.commit import ignore_areas, prepare, write_label
from ulvm.vgstore.devices import DeviceEntry, add_devices
from ulvm.vgstore.precommit import precommitted
from ulvm.vgstore.scan import PvDevice

__all__ = ["change", "resize"]


def change(
    session: Session,
    path: str,
    *,
    allocatable: bool | None = None,
    add_tags: Sequence[str] = (),
    remove_tags: Sequence[str] = (),
    new_identity: bool = False,
    ignore: bool | None = None,
    force: bool = False,
) -> bool:
    """Change a PV, by one commit; whether there was something to change. `new_identity`: another
    UUID; `ignore`: its metadata areas go out of use, or back into it; where the VG says how many
    are in use, the user is asked first unless `force`. RefusedError for what a PV in no VG cannot
    have."""
    with session.lock_global():
        scan = session.scan([path], unowned=True)
        scan.check_used(path)
        pv = scan.pv(path)
        _mean_its_group(session, pv)
        if pv.vg_name is None:
            if add_tags or remove_tags:
                raise RefusedError(
                    f"Can't change tag on Physical Volume {path} not in volume group"
                )
            if allocatable is not None:
                raise RefusedError(f"Allocatability not supported by orphan lvm2 format PV {path}")
            _change_orphan(session, pv, new_identity, ignore)
            return True
        with session.lock(pv.vg_name):
            vg = session.vg_for_change(pv.vg_name)
            member = vg.pv(pv.uuid)
            assert member is not None
            if allocatable is not None and member.allocatable == allocatable:
                word = "allocatable" if allocatable else "unallocatable"
                session.warn(f'Physical volume "{path}" is already {word}.')
                return False
            copies = vg.metadata_copies
            if ignore is not None:
                question = f"Override preferred number of copies of VG {vg.name} metadata?"
                if copies and not force and not session.ask(question):
                    raise RefusedError("")
                _check_ignore(session, vg, pv, ignore)
                if copies:
                    copies = _copies_with(session, vg, pv, ignore)
            uuid = new_uuid() if new_identity else pv.uuid
            if new_identity and lvm_lv.states(session, vg):
                raise RefusedError(f"Volume group containing {path} has active logical volumes")

            def edit(vg: VolumeGroup) -> VolumeGroup:
                if allocatable is not None:
                    vg = set_allocatable(vg, pv.uuid, allocatable)
                vg = set_tags(vg, pv.uuid, add=add_tags, remove=remove_tags)
                vg = vg._replace(metadata_copies=copies)
                return set_uuid(vg, pv.uuid, uuid) if new_identity else vg

            if allocatable is not None:
                word = "allocatable" if allocatable else "NOT allocatable"
                session.verbose(f'Setting physical volume "{path}" {word}')
            session.verbose(f'Updating physical volume "{path}"')
            session.change_vg(
                pv.vg_name,
                edit,
                ignore=None if ignore is None else {uuid: ignore},
                relabel={pv.uuid: uuid} if new_identity else None,
            )
            if new_identity:
                add_devices(session.host, [DeviceEntry(pv.path, uuid)])
        return True


def _mean_its_group(session: Session, pv: PvDevice) -> None:
    """Not another one of its name."""
    for vg in session.last_scan.vgs:
        if vg.pv(pv.uuid) is not None:
            session.mean(vg.uuid)


def _check_ignore(session: Session, vg: VolumeGroup, pv: PvDevice, ignore: bool) -> None:
    _check_ignored_already(pv, ignore)
    if not ignore:
        return
    others = (other for other in session.last_scan.pvs_of(vg) if other.uuid != pv.uuid)
    if all(mda.ignored for other in others for mda in other.areas):
        raise RefusedError(f"Cannot disable all metadata areas in volume group {vg.name}.")


def _copies_with(session: Session, vg: VolumeGroup, pv: PvDevice, ignore: bool) -> int:
    """How many copies the VG is to have so that the areas of the PV stay as they are wanted."""
    others = (other for other in session.last_scan.pvs_of(vg) if other.uuid != pv.uuid)
    used = sum(not mda.ignored for other in others for mda in other.areas)
    used += 0 if ignore else len(pv.areas)
    session.warn(
        f"WARNING: Changing preferred number of copies of VG {vg.name} metadata "
        f"from {vg.metadata_copies} to {used}"
    )
    return used


def _check_ignored_already(pv: PvDevice, ignore: bool) -> None:
    if all(mda.ignored == ignore for mda in pv.areas):
        word = "ignored" if ignore else "marked as in-use"
        raise RefusedError(f'Metadata areas on physical volume "{pv.path}" already {word}.')


def _change_orphan(session: Session, pv: PvDevice, new_identity: bool, ignore: bool | None) -> None:
    if pv.in_use:
        if new_identity and _finish_relabelling(session, pv):
            return
        raise RefusedError(f"PV {pv.path} is used by a VG but its metadata is missing.")
    if ignore is not None:
        _check_ignored_already(pv, ignore)
        ignore_areas(session.host, pv, ignore)
    if new_identity:
        pv = pv.with_uuid(new_uuid())
        write_label(session.host, pv, in_use=False)
        add_devices(session.host, [DeviceEntry(pv.path, pv.uuid)])


def _finish_relabelling(session: Session, pv: PvDevice) -> bool:
    """Commit the text that names the PV as it is, which a `pvchange -u` that died has left in slot
    1 (see `vgstore.commit`); whether there is one."""
    meant = precommitted(session.host, pv)
    scan = session.last_scan
    for other in scan.pvs:
        meant = meant or precommitted(session.host, other)
        if meant is not None and meant.pv(pv.uuid) is None:
            meant = None
    old = next((vg for vg in scan.vgs if meant is not None and vg.uuid == meant.uuid), None)
    if meant is None or old is None or meant.seqno != old.seqno + 1:
        return False
    if any(scan.by_uuid(member.uuid) is None for member in meant.pvs):
        return False
    with session.lock(old.name):
        scan = session.scan()
        if not any(vg.uuid == old.uuid and vg.seqno == old.seqno for vg in scan.vgs):
            return False  # Changed meanwhile, which has written over slot 1.
        session.hold_signals()
        prepare(
            session.host,
            scan,
            old,
            meant._replace(seqno=old.seqno, missing_uuids=frozenset()),
            command=session.command_line,
            allow_missing=True,
            warn=session.warn,
            verbose=session.verbose,
        ).commit()
    add_devices(session.host, [DeviceEntry(pv.path, pv.uuid)])
    return True


def resize(session: Session, path: str, sectors: int | None = None) -> None:
    """Bring the PV to its device's size, or to `sectors` if the user confirms that."""
    with session.lock_global():
        scan = session.scan([path], unowned=True)
        scan.check_used(path)
        pv = scan.pv(path)
        _mean_its_group(session, pv)
        real = pv.size // SECTOR
        size = real if sectors is None else sectors
        if sectors is not None and sectors != real:
            _confirm(session, path, real, sectors)
        least = min_sectors(session.host)
        if size < least:
            raise RefusedError(f"Size must exceed minimum of {least} sectors on PV {path}.")
        header = pv.label.pv_header
        start = header.pe_start // SECTOR
        if size < start:
            raise RefusedError(
                f"Size must exceed physical extent start of {start} sectors on PV {path}."
            )
        session.verbose(f'Resizing volume "{path}" to {size} sectors.')
        if any(area.offset // SECTOR >= start for area in header.metadata_areas):
            raise RefusedError(
                f"{path} has a metadata area at its end: it cannot be resized, only replaced."
            )
        if pv.vg_name is not None:

            def edit(vg: VolumeGroup) -> VolumeGroup:
                extents = usable_extents(size, start, header.metadata_areas, vg.extent_size)
                if not extents:
                    raise RefusedError(
                        "Size must leave space for at least one physical extent of "
                        f"{vg.extent_size} sectors on PV {path}."
                    )
                member = vg.pv(pv.uuid)
                if member is not None and member.pe_count == extents:
                    session.verbose(f"No change to size of physical volume {path}.")
                session.verbose(f'Updating physical volume "{path}"')
                # As LVM2: once resized, a PV's dev_size is without what lies before its extents.
                return resize_pv(vg, pv.uuid, size - start, extents)

            session.change_vg(pv.vg_name, edit)
        else:
            # The label of a PV in a VG keeps the size it had, as LVM2 leaves it: the VG's counts.
            resized = header._replace(device_size=size * SECTOR)
            label = pv.label._replace(pv_header=resized)
            write_label(session.host, pv._replace(label=label), in_use=header.in_use)


def _confirm(session: Session, path: str, real: int, sectors: int) -> None:
    wanted, have = display_size(sectors), display_size(real)
    if sectors > real:
        session.warn(f"WARNING: {path}: Overriding real size {have}. You could lose data.")
        question = f"{path}: Requested size {wanted} exceeds real size {have}. Proceed?  [y/n]: "
    else:
        question = (
            f"{path}: Requested size {wanted} is less than real size {have}. Proceed?  [y/n]: "
        )
    if not session.ask(question):
        raise RefusedError(f"Physical Volume {path} not resized.")
    session.warn(f"WARNING: {path}: Pretending size is {sectors} not {real} sectors.")
