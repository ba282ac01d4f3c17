"""Volume groups (vgcreate(8), vgextend(8), vgreduce(8), vgremove(8), vgchange(8), vgrename(8))."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from ulvm.errors import ExistsError, NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import pv as lvm_pv
from ulvm.lvm.names import given_vg, look_for
from ulvm.lvm.session import Change, Session
from ulvm.metadata import edit, vg_edit
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.checks import check_complete
from ulvm.vgstore.commit import prepare, remove_vg
from ulvm.vgstore.devices import DeviceEntry, add_devices
from ulvm.vgstore.host import open_shared
from ulvm.vgstore.pv import as_member
from ulvm.vgstore.scan import PvDevice

__all__ = ["DEFAULT_EXTENT", "create", "extend", "path_taken", "reduce", "remove", "rename"]

DEFAULT_EXTENT = 8192
"""Sectors: 4 MiB."""


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
    metadata_copies: int = 0,
    autoactivation: bool = True,
    system_id: str | None = None,
    profile: str | None = None,
) -> VolumeGroup:
    """A new VG of devices, which become PVs if they are not; `system_id` None for this host's."""
    with session.lock_global(), session.lock(name):
        taken = path_taken(session, name)
        if taken is not None:
            raise UsageError(taken)
        if _is_taken(session, name):
            raise ExistsError(f"A volume group called {name} already exists.")
        vg = edit.new_vg(
            name,
            uuid=new_uuid(),
            extent_size=extent_size,
            max_lv=max_lv,
            max_pv=max_pv,
            tags=tags,
            allocation_policy=policy,
            metadata_copies=metadata_copies,
            system_id=(session.host.system_id if system_id is None else system_id) or None,
        )
        vg = vg._replace(profile=profile)
        if not autoactivation:
            vg = vg_edit.set_autoactivation(vg, False)
        devices = _usable(session, name, paths)
        _check_block_sizes(session, devices.paths, [])
        for pv in _as_pvs(session, devices, options, force):
            session.verbose(f"Adding physical volume '{pv.path}' to volume group '{name}'")
            vg = edit.add_pv(vg, as_member(pv, extent_size))
        scan = session.scan()
        session.hold_signals()
        pending = prepare(
            session.host,
            scan,
            None,
            vg,
            command=session.command_line,
            warn=session.warn,
            verbose=session.verbose,
        )
        return pending.commit()


def path_taken(session: Session, name: str) -> str | None:
    """Why a new VG's directory could not be made, if volumes of a VG of the name are active or
    something of the name lies where it would. `mapper/NAME` is a dm device to all commands, and
    with LVM2 the directory is there before the first volume."""
    path = session.host.dev_dir / name
    vg = next((vg for vg in session.scan().vgs if vg.name == name), None)
    if name == "mapper" or os.path.lexists(path) or (vg is not None and lvm_lv.states(session, vg)):
        return f"{path}: already exists in filesystem"
    return None


def _is_taken(session: Session, name: str) -> bool:
    scan = session.last_scan
    return name in scan.broken or any(vg.name == name for vg in (*scan.vgs, *scan.foreign))


class _Devices(NamedTuple):
    """What is to join a VG: absolute paths, and the PVs that some of them are already."""

    paths: list[str]
    known: dict[str, PvDevice]


def _usable(session: Session, vg_name: str, paths: Sequence[str]) -> _Devices:
    """The devices, if all of them may join a VG; nothing is written."""
    absolute = _found(session, paths)
    twice = next((p for p in absolute if absolute.count(p) > 1), None)
    if twice is not None:
        raise RefusedError(f"Device {twice} is named twice.")
    scan = session.scan(absolute)
    known = {pv.path: pv for pv in (*scan.pvs, *scan.outdated)}
    members = []
    for path in absolute:
        scan.check_used(path)
        pv = known.get(path)
        if pv is not None and pv.vg_name is not None:
            members.append(
                f"Physical volume '{path}' is already in volume group '{pv.vg_name}'\n"
                f"Unable to add physical volume '{path}' to volume group '{pv.vg_name}'\n"
                f"{path}: physical volume not initialized."
            )
        elif pv is not None and pv.in_use:
            raise RefusedError(lvm_pv.unowned_words(path))
    if members:
        raise RefusedError("\n".join(members))
    return _Devices(absolute, known)


def _check_block_sizes(session: Session, paths: Sequence[str], members: Sequence[str]) -> None:
    """RefusedError if devices that are to be in one VG, or its `members`, have logical blocks of
    other sizes than the others: a file system would not find its way from one to the other."""
    if session.host.config.get_bool("devices/allow_mixed_block_sizes", False):
        return
    sizes = [_block_size(path) for path in (*paths, *members[:1])]
    other = next((size for size in sizes if size != sizes[0]), None)
    if other is None:
        return
    first = sizes[-1] if members else sizes[0]
    other = sizes[0] if members else other
    if not members:
        session.say("See lvm.conf allow_mixed_block_sizes.")
    raise RefusedError(f"Devices have inconsistent logical block sizes ({first} and {other}).")


def _block_size(path: str) -> int:
    device = open_shared(path, False)
    try:
        return device.block_size
    finally:
        device.close()


def _as_pvs(
    session: Session, devices: _Devices, options: PvOptions | None, force: int
) -> list[PvDevice]:
    """PVs in no VG on the devices, made where there are none."""
    known = devices.known
    new = [path for path in devices.paths if path not in known]
    for path in devices.paths:
        if path in known:  # It may carry what is no label.
            session.verbose(f"Wiping signatures on new PV {path}.")
    made, failed = lvm_pv.create(session, new, options=options, force=force, together=True)
    if failed:
        raise RefusedError("")
    known.update((pv.path, pv) for pv in made)
    found = [known[path] for path in devices.paths]
    add_devices(session.host, [DeviceEntry(pv.path, pv.uuid) for pv in found])
    return found


def _found(session: Session, paths: Sequence[str]) -> list[str]:
    """Absolute paths; NotFoundError that names each device that is not there."""
    found: list[str] = []
    missing: list[str] = []
    for path in paths:
        try:
            found.append(lvm_pv.device_named(session, path))
        except NotFoundError as error:
            missing.append(error.message)
    if missing and found:
        missing.append("Command requires all devices to be found.")
    if missing:
        raise NotFoundError("\n".join(missing))
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
        devices = _usable(session, name, paths)
        vg = session.vg_for_change(name)
        members = [session.last_scan.path_of(pv.uuid) for pv in vg.pvs]
        _check_block_sizes(session, devices.paths, [path for path in members if path])
        new = _as_pvs(session, devices, options, force)
        for pv in new:
            session.verbose(f"Adding physical volume '{pv.path}' to volume group '{name}'")
        session.verbose(
            f'Volume group "{name}" will be extended by {len(new)} new physical volumes'
        )

        def add(vg: VolumeGroup) -> VolumeGroup:
            for pv in new:
                vg = edit.add_pv(vg, as_member(pv, vg.extent_size))
            return vg

        return session.change_vg(name, add, allow_missing=True)


def reduce(session: Session, name: str, paths: Sequence[str], *, unused: bool = False) -> int:
    """Take PVs that hold nothing out of a VG, one by one in the VG's order; `unused`: all but the
    last. What cannot be is warned of. How many refused."""
    gone = [path for path in paths if not os.path.exists(path)]
    for path in gone:
        session.warn(f"Cannot use {path}: device not found")
    failed = len(gone)
    paths = [path for path in paths if path not in gone]
    with session.lock_global(), session.lock(name):
        try:
            vg = session.vg_for_change(name)
            check_complete(vg)
        except UlvmError as error:
            # LVM2 then has not come upon the PVs, either.
            words = [error.message, *(f'Failed to find physical volume "{p}".' for p in paths)]
            if paths and error.message == f"Volume group {name} is exported":
                words = [f"Cannot use PV {path} in exported VG {name}." for path in paths]
            raise type(error)("\n".join(words)) from None
        wanted = {pv.uuid for pv in vg.pvs} if unused else set()
        for path in paths:
            try:
                wanted.add(_member(session, vg, path))
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


def _member(session: Session, vg: VolumeGroup, path: str) -> str:
    """UUID of the PV at a path; NotFoundError in the words of vgreduce."""
    pv = session.last_scan.pv(lvm_pv.device_named(session, path))
    if vg.pv(pv.uuid) is None:
        raise NotFoundError(f'Failed to find physical volume "{path}".')
    return pv.uuid


def _drop(session: Session, name: str, pv_uuid: str) -> None:
    def drop(vg: VolumeGroup) -> VolumeGroup:
        left = edit.remove_pv(vg, pv_uuid)
        scan = session.last_scan
        session.verbose(f'Removing "{scan.path_of(pv_uuid)}" from volume group "{name}"')
        if not any(device.areas for device in scan.pvs_of(left)):
            raise RefusedError(
                f'Cannot remove final metadata area on "{scan.path_of(pv_uuid)}" from "{name}"'
            )
        return left

    session.change_vg(name, drop)


def remove(session: Session, name: str, *, incomplete: bool = False) -> None:
    """Remove a VG without volumes; its PVs are free then. `incomplete`: also if PVs are missing,
    which will hold a VG of the name when they come back."""
    with session.lock_global(), session.lock(name):
        vg = session.vg_for_change(name)
        if vg.partial and not incomplete:
            raise RefusedError(
                f'Volume group "{name}" not found, is inconsistent or has PVs missing.\n'
                "Consider vgreduce --removemissing if metadata is inconsistent."
            )
        if vg.visible_lvs():
            raise RefusedError(
                f'Volume group "{name}" still contains {len(vg.visible_lvs())} logical volume(s)'
            )
        session.hold_signals()
        remove_vg(
            session.host,
            session.last_scan,
            vg,
            command=session.command_line,
            exclusive=not session.holds(vg),
            warn=session.warn,
            verbose=session.verbose,
        )


def rename(session: Session, old: str, new: str) -> None:
    """Rename a VG, exported ones too, with the devices of its active volumes. `old` is a name, a
    path or a UUID."""
    with session.lock_global():
        edit.new_vg(new, uuid=new_uuid(), extent_size=DEFAULT_EXTENT)  # checks the name
        taken = path_taken(session, new)
        if taken is not None:
            raise RefusedError(taken)
        name = next((vg.name for vg in session.last_scan.vgs if vg.uuid == old), None)
        if name is not None:
            session.say(f"Processing VG {name} because of matching UUID {old}")
            session.mean(old)
            same = "New VG name must differ from the old VG name."
        else:
            same = "Old and new volume group names must differ"
            name = given_vg(old, session.host.run_dir)
        if name == new:
            raise RefusedError(same)
        first, second = sorted((name, new))
        with session.lock(first), session.lock(second):
            session.find_vg(name)
            session.verbose("Writing out updated volume group")
            if _is_taken(session, new):
                raise RefusedError(f'New VG name "{new}" already exists')
            changed = session.change_vg(name, lambda vg: edit.rename_vg(vg, new), exported=True)
            look_for(session.host.run_dir, name, [lv.name for lv in changed.vg.visible_lvs()])
