"""Physical volumes are made and unmade (pvcreate(8), pvremove(8)), several by one command.

Order, as LVM2's: all devices are looked at, then all questions are asked, then what is to be wiped
is wiped, and only then the first PV is made. A device that is refused or fails leaves the others to
be done, unless they are wanted together (vgcreate, vgextend). Messages are LVM's; the caller prints
results.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ulvm.blockdev.file import FileDevice
from ulvm.errors import NotFoundError, RefusedError, UlvmError
from ulvm.lvm.names import given_device
from ulvm.lvm.session import Session
from ulvm.lvm.signatures import ask_and_wipe, left_words
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.uuid import new_uuid
from ulvm.units import SECTOR, display_size
from ulvm.vgstore.candidates import min_sectors
from ulvm.vgstore.pv import (
    create_pv,
    device_path,
    erase_pv,
    new_label,
    partitioned,
)
from ulvm.vgstore.scan import PvDevice, Scan

__all__ = ["create", "device_named", "remove", "unowned_words"]

_T = TypeVar("_T")
_R = TypeVar("_R")

_UNKNOWN = "<unknown>"


@dataclass(frozen=True)
class _Candidate:
    """A device that may be written to, under the name it was given. `owner` is the VG that it is
    taken from, or `<unknown>`."""

    named: str
    path: str
    sectors: int
    owner: str | None = None
    is_pv: bool = False


def create(
    session: Session,
    paths: Sequence[str],
    *,
    options: PvOptions | None = None,
    uuid: str | None = None,
    force: int = 0,
    together: bool = False,
) -> tuple[list[PvDevice], int]:
    """Make devices PVs in no VG; (those made, how many could not be). `together`: all or none,
    as far as refusals go. Asks about what is on them; `uuid` is for a single device."""
    options = options or PvOptions()
    made: list[PvDevice] = []
    with session.lock_global():
        usable = list(_each(session, paths, lambda p: _check_usable(session, p)))
        if together and len(usable) < len(paths):
            session.warn("Command requires all devices to be found.")
            return [], len(paths) - len(usable)
        checked = list(_each(session, usable, lambda c: _check_new(session, c, force, uuid)))
        asked = list(
            _each(session, checked, lambda c: _ask_to_initialize(session, c, force, options))
        )
        if together and len(asked) < len(paths):
            return [], len(paths) - len(asked)
        ready = list(_each(session, asked, lambda c: _wipe_signatures(session, c, force)))
        if together and len(ready) < len(paths):
            return [], len(paths) - len(ready)
        made = list(_each(session, ready, lambda c: _initialize(session, c, options, uuid)))
    return made, len(paths) - len(made)


def _each(session: Session, items: Sequence[_T], step: Callable[[_T], _R]) -> Iterator[_R]:
    for item in items:
        try:
            yield step(item)
        except UlvmError as error:
            session.warn(error.message)


def _check_usable(session: Session, named: str) -> _Candidate:
    """Whether LVM looks at a device at all."""
    path = device_named(session, named)
    session.scan([path], labels_only=True).check_used(path)
    device = session.host.opener(path, False)
    try:
        if stat.S_ISBLK(os.stat(path).st_mode) and "/loop" not in path and partitioned(device):
            raise RefusedError(f"Cannot use {path}: device is partitioned")
        sectors = device.size // SECTOR
    finally:
        device.close()
    if sectors < min_sectors(session.host):
        raise RefusedError(f"Cannot use {path}: device is too small (pv_min_size)")
    return _Candidate(named, path, sectors)


def _check_new(session: Session, candidate: _Candidate, force: int, uuid: str | None) -> _Candidate:
    """Whether a device may be made a PV, so far as no question has to be asked."""
    path = candidate.path
    scan = session.scan([path], labels_only=True)
    if uuid is not None:
        other = next((p for p in (*scan.pvs, *scan.outdated) if p.uuid == uuid), None)
        if other is not None and other.path != path:
            raise RefusedError(f'UUID {uuid} already in use on "{other.path}".')
    owner = _owner(scan, path)
    if owner is not None and force < 2:
        if owner == _UNKNOWN:
            raise RefusedError(unowned_words(path))
        raise RefusedError(
            f'Can\'t initialize physical volume "{path}" of volume group "{owner}" without -ff\n'
            f"{path}: physical volume not initialized."
        )
    # Held by a daemon, a virtual machine, a mount: the claim says by whom.
    FileDevice(path, writable=True, claim=True).close()
    known = any(pv.path == path for pv in (*scan.pvs, *scan.outdated))
    return replace(candidate, owner=owner, is_pv=known)


def unowned_words(path: str) -> str:
    """Why a PV is not made anew that is in use by nobody knows what."""
    return (
        f"PV {path} is used by a VG but its metadata is missing.\n"
        f"Can't initialize PV '{path}' without -ff.\n"
        f"{path}: physical volume not initialized."
    )


def device_named(session: Session, named: str) -> str:
    """The path of a device that is there; NotFoundError in the words of `device_path`."""
    path = given_device(named, session.host.run_dir)
    return device_path(path if os.path.exists(path) and not os.path.exists(named) else named)


def _owner(scan: Scan, path: str) -> str | None:
    """The VG of the PV on a device; `<unknown>` if it is in use and no text says by what."""
    known = next((pv for pv in (*scan.pvs, *scan.outdated) if pv.path == path), None)
    if known is None:
        return None
    if known.vg_name is not None:
        return known.vg_name
    return _UNKNOWN if known.in_use else None


def _ask_to_initialize(
    session: Session, candidate: _Candidate, force: int, options: PvOptions
) -> _Candidate:
    path, refused = candidate.path, f"{candidate.path}: physical volume not initialized."
    if candidate.owner is not None and not session.ask(
        f'Really INITIALIZE physical volume "{path}" of volume group "{candidate.owner}" [y/n]? '
    ):
        raise RefusedError(refused)
    if options.size and options.size != candidate.sectors and candidate.is_pv:
        have, wanted = display_size(candidate.sectors), display_size(options.size)
        if not force and not session.ask(
            f"WARNING: {path}: device size {have} does not match requested size {wanted}. Proceed?"
        ):
            raise RefusedError(refused)
    return candidate


def _wipe_signatures(session: Session, candidate: _Candidate, force: int) -> _Candidate:
    """What other programs know the device by is wiped, each kind if the user says so."""
    session.verbose(f"Wiping signatures on new PV {candidate.path}.")
    device = session.host.opener(candidate.path, True)
    try:
        left = ask_and_wipe(session, device, candidate.path, without_asking=bool(force))
    finally:
        device.close()
    if left:
        raise RefusedError(left_words(session, left))
    return candidate


def _initialize(
    session: Session, candidate: _Candidate, options: PvOptions, uuid: str | None
) -> PvDevice:
    path = candidate.path
    failed = f'Failed to setup physical volume "{path}".'
    if options.size:
        if candidate.is_pv:
            session.warn(f"WARNING: Faking size of PV {path}. Don't write outside real device.")
        if options.size > candidate.sectors:
            session.warn(f"WARNING: {path}: Overriding real size. You could lose data.")
    sectors = options.size or candidate.sectors
    session.verbose(f'Set up physical volume for "{path}" with {sectors} available sectors.')
    least = min_sectors(session.host)
    if sectors < least:
        raise RefusedError(f"{path}: Size must exceed minimum of {least} sectors.\n{failed}")
    align = options.data_alignment
    if options.pe_start and align and options.pe_start % align:
        session.warn(
            f"WARNING: Ignoring data alignment {display_size(align)} incompatible with restored "
            f"pe_start value {display_size(options.pe_start)}."
        )
    try:
        new_label(sectors, "", options, device=path)
    except RefusedError as error:
        raise RefusedError(f"{error.message}\n{failed}") from None
    uuid = uuid or new_uuid()
    session.verbose(f"Zeroing start of device {path}.")
    session.verbose(f'Writing physical volume data to disk "{path}".')
    pv = create_pv(session.host, path, uuid=uuid, options=options)
    session.say(f'Physical volume "{path}" successfully created.')
    return pv


def remove(session: Session, paths: Sequence[str], *, force: int = 0) -> int:
    """Wipe labels; how many could not be. A PV that a VG uses is refused unless forced twice;
    forced once, a device without a label is wiped as well."""
    done = 0
    with session.lock_global():
        found = list(_each(session, paths, lambda named: device_named(session, named)))
        checked = list(_each(session, found, lambda path: _check_old(session, path, force)))
        wanted = list(_each(session, checked, lambda c: _ask_to_wipe(session, c)))
        for _ in _each(session, wanted, lambda c: _wipe_label(session, c)):
            done += 1
    return len(paths) - done


def _check_old(session: Session, path: str, force: int) -> _Candidate:
    scan = session.scan([path], labels_only=True)
    known = any(pv.path == path for pv in (*scan.pvs, *scan.outdated))
    if path in scan.unused:
        raise NotFoundError(f"No PV found on device {path}.")
    scan.check_used(path)
    if not known and not force:
        raise NotFoundError(f"No PV found on device {path}.")
    owner = _owner(scan, path)
    if owner is not None and force < 2:
        if owner == _UNKNOWN:
            reason = f"PV {path} is used by a VG but its metadata is missing."
        else:
            reason = f"PV {path} is used by VG {owner} so please use vgreduce first."
        raise RefusedError(
            f"{reason}\n"
            "(If you are certain you need pvremove, then confirm by using --force twice.)\n"
            f"{path}: physical volume label not removed."
        )
    FileDevice(path, writable=True, claim=True).close()
    return _Candidate(path, path, 0, owner)


def _ask_to_wipe(session: Session, candidate: _Candidate) -> _Candidate:
    path, owner = candidate.path, candidate.owner
    if owner is not None:
        session.warn(f"WARNING: PV {path} is used by VG {owner}.")
        if not session.ask(
            f'Really WIPE LABELS from physical volume "{path}" of volume group "{owner}" [y/n]? '
        ):
            raise RefusedError(f"{path}: physical volume label not removed.")
        session.warn(
            f'WARNING: Wiping physical volume label from {path} of volume group "{owner}".'
        )
    return candidate


def _wipe_label(session: Session, candidate: _Candidate) -> None:
    erase_pv(session.host, candidate.path)
    session.say(f'Labels on physical volume "{candidate.path}" successfully wiped.')
