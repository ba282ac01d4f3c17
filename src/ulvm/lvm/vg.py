"""Volume groups (vgcreate(8), vgextend(8), vgreduce(8), vgremove(8), vgchange(8), vgrename(8))."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from ulvm.errors import BusyError, ExistsError, NotFoundError, RefusedError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import merge as lvm_merge
from ulvm.lvm import move as lvm_move
from ulvm.lvm import pv as lvm_pv
from ulvm.lvm.session import Change, Session
from ulvm.metadata import edit
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.commit import prepare, remove_vg
from ulvm.vgstore.devices import DeviceEntry, add_devices
from ulvm.vgstore.pv import as_member, device_path
from ulvm.vgstore.scan import PvDevice

__all__ = [
    "Activity",
    "activate",
    "create",
    "deactivate",
    "extend",
    "reduce",
    "refresh",
    "remove",
    "rename",
]

DEFAULT_EXTENT = 8192
"""Sectors: 4 MiB."""


class Activity(NamedTuple):
    """After (de)activation: visible volumes that are active, and how many refused."""

    active: int
    failed: int


def create(
    session: Session,
    name: str,
    paths: Sequence[str],
    *,
    extent_size: int = DEFAULT_EXTENT,
    max_lv: int = 0,
    max_pv: int = 0,
    tags: Sequence[str] = (),
    policy: str = "normal",
    options: PvOptions | None = None,
    force: int = 0,
) -> VolumeGroup:
    """A new VG of devices, which become PVs if they are not."""
    vg = edit.new_vg(
        name,
        uuid=new_uuid(),
        extent_size=extent_size,
        max_lv=max_lv,
        max_pv=max_pv,
        tags=tags,
        allocation_policy=policy,
    )
    with session.lock_global(), session.lock(name):
        _check_new_name(session, name)
        for pv in _orphans(session, name, paths, options, force):
            vg = edit.add_pv(vg, as_member(pv, extent_size))
        scan = session.scan()
        pending = prepare(
            session.host, scan, None, vg, command=session.command_line, warn=session.warn
        )
        return pending.commit()


def _check_new_name(session: Session, name: str) -> None:
    scan = session.scan()
    if name in scan.broken or any(vg.name == name for vg in scan.vgs):
        raise ExistsError(f"A volume group called {name} already exists.")
    path = session.host.dev_dir / name
    if os.path.lexists(path):
        raise ExistsError(f"{path}: already exists in filesystem")


def _orphans(
    session: Session,
    vg_name: str,
    paths: Sequence[str],
    options: PvOptions | None,
    force: int,
) -> list[PvDevice]:
    """PVs in no VG for these devices. All are looked at before the first is written to."""
    absolute = [device_path(path) for path in paths]
    twice = next((p for p in absolute if absolute.count(p) > 1), None)
    if twice is not None:
        raise RefusedError(f"Device {twice} is named twice.")
    scan = session.scan(absolute)
    known = {pv.path: pv for pv in (*scan.pvs, *scan.outdated)}
    for path in absolute:
        scan.check_used(path)
        pv = known.get(path)
        if pv is not None and pv.vg_name is not None:
            raise RefusedError(
                f"Physical volume '{path}' is already in volume group '{pv.vg_name}'\n"
                f"Unable to add physical volume '{path}' to volume group '{pv.vg_name}'\n"
                f"{path}: physical volume not initialized."
            )
        if pv is not None and pv.in_use:
            raise RefusedError(
                f"PV {path} is used by a VG but its metadata is missing.\n"
                f"Unable to add physical volume '{path}' to volume group '{vg_name}'"
            )
    new = [path for path in absolute if path not in known]
    made, failed = lvm_pv.create(session, new, options=options, force=force, together=True)
    if failed:
        raise RefusedError("")
    known.update((pv.path, pv) for pv in made)
    found = [known[path] for path in absolute]
    add_devices(session.host, [DeviceEntry(pv.path, pv.uuid) for pv in found])
    return found


def extend(
    session: Session,
    name: str,
    paths: Sequence[str],
    *,
    options: PvOptions | None = None,
    force: int = 0,
) -> Change:
    """Add devices to a VG."""
    with session.lock_global(), session.lock(name):
        session.scan().vg(name)
        new = _orphans(session, name, paths, options, force)

        def add(vg: VolumeGroup) -> VolumeGroup:
            for pv in new:
                vg = edit.add_pv(vg, as_member(pv, vg.extent_size))
            return vg

        return session.change_vg(name, add, allow_missing=True)


def reduce(session: Session, name: str, paths: Sequence[str], *, unused: bool = False) -> int:
    """Take PVs that hold nothing out of a VG, one by one in the VG's order; `unused`: all but the
    last. What cannot be is warned of. How many refused."""
    failed = 0
    with session.lock_global(), session.lock(name):
        vg = session.vg_for_change(name)
        wanted = {pv.uuid for pv in vg.pvs} if unused else set()
        for path in paths:
            try:
                pv = session.last_scan.pv(device_path(path))
                if vg.pv(pv.uuid) is None:
                    raise NotFoundError(f'Failed to find physical volume "{path}".')
                wanted.add(pv.uuid)
            except UlvmError as error:
                session.warn(error.message)
                failed += 1
        for member in vg.pvs:
            if member.uuid not in wanted:
                continue
            path = session.last_scan.path_of(member.uuid) or member.device
            try:
                _drop(session, name, member.uuid)
                session.say(f'Removed "{path}" from volume group "{name}"')
            except RefusedError as error:
                session.warn(error.message)
                failed += 1
    return failed


def _drop(session: Session, name: str, pv_uuid: str) -> None:
    session.change_vg(name, lambda vg: edit.remove_pv(vg, pv_uuid))


def remove(session: Session, name: str) -> None:
    """Remove a VG without volumes; its PVs are free then."""
    with session.lock_global(), session.lock(name):
        vg = session.vg_for_change(name)
        if vg.visible_lvs():
            raise RefusedError(
                f'Volume group "{name}" still contains {len(vg.visible_lvs())} logical volume(s)'
            )
        remove_vg(
            session.host, session.last_scan, vg, command=session.command_line, warn=session.warn
        )


def rename(session: Session, old: str, new: str) -> Change:
    """Rename a VG, with the devices of its active volumes."""
    with session.lock_global():
        if old == new:
            raise RefusedError("Old and new volume group names must differ")
        first, second = sorted((old, new))
        with session.lock(first), session.lock(second):
            edit.new_vg(new, uuid=new_uuid(), extent_size=DEFAULT_EXTENT)  # checks the name
            _check_new_name(session, new)
            return session.change_vg(old, lambda vg: edit.rename_vg(vg, new))


# -- activation -----------------------------------------------------------------------------------


def activate(session: Session, name: str, *, partial: bool = False) -> Activity:
    """Activate all volumes; what cannot be is warned of."""
    with session.lock(name):
        vg = session.vg_for_change(name)
        failed = 0
        for lv in vg.visible_lvs():
            if vg.is_cow(lv.name):
                continue  # comes with its origin
            try:
                lvm_lv.activate(session, name, lv.name, partial=partial)
            except UlvmError as error:
                session.warn(error.message)
                failed += 1
        lvm_merge.resume_polling(session, vg)
        moving = lvm_move.resume_polling(session, vg)
        if moving:
            session.say(
                f"Background polling started for {moving} logical volume(s) "
                f'in volume group "{vg.name}"'
            )
        return Activity(_active_count(session, vg), failed)


def deactivate(session: Session, name: str) -> Activity:
    """Deactivate all volumes that nobody has open; what cannot be is warned of."""
    with session.lock(name):
        vg = session.scan().vg(name)
        activator = session.activator_if_running
        failed = 0
        for lv in vg.visible_lvs():
            if activator is None or vg.is_cow(lv.name):
                continue
            try:
                activator.deactivate(vg, lv.name)
            except (BusyError, NotFoundError) as error:
                session.warn(error.message)
                failed += 1
        return Activity(_active_count(session, vg), failed)


def _active_count(session: Session, vg: VolumeGroup) -> int:
    active = lvm_lv.states(session, vg)
    return sum(lv.name in active for lv in vg.visible_lvs())


def refresh(session: Session, name: str) -> None:
    """Bring the devices of active volumes to the metadata, resume what is suspended, and begin
    merges that waited for their volumes to be closed."""
    with session.lock(name):
        vg = session.scan().vg(name)
        activator = session.activator_if_running
        if activator is not None:
            activator.refresh(vg, start_merges=True)
            lvm_merge.resume_polling(session, vg)
