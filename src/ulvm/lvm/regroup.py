"""vgsplit(8), vgmerge(8), vgexport(8), vgimport(8).

Two VGs cannot be committed at once. Crash argument: what is moved is at each moment in a VG that
counts, and in two only while one of them is exported, so that nobody can activate both.

    split   1. the new VG with the PVs that move, exported   2. the old one without them
            3. the new one, imported
    merge   1. the source, exported   2. the target with all of the source

All of a split's 2 but its last step comes before 1: what a disk that stays refuses is known when
nothing has changed.

A cut in the midst of a split's 1 or 2, or a merge's 2, leaves PVs that two VGs name. Every other
change of these is refused (`vgstore.commit`), and the same command, given again, goes on from
there: it writes the text that is ahead to all of its PVs first. A cut behind a split's 2, or a
merge's 1, leaves a VG that is exported and whole, which vgimport takes in. A signal is no cut: it
waits for the last step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ulvm.errors import NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.session import Session
from ulvm.lvm.vg import path_taken
from ulvm.metadata import edit
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.regroup import (
    check_limits,
    export_vg,
    import_vg,
    merge_vgs,
    pvs_of_lv,
    split_vg,
)
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.archive import remove_backup
from ulvm.vgstore.checks import check_complete, check_known, check_members
from ulvm.vgstore.commit import Pending, prepare
from ulvm.vgstore.pv import device_path

__all__ = ["exported", "imported", "merge", "split"]


def _check_complete(vg: VolumeGroup) -> None:
    try:
        check_complete(vg)
    except RefusedError as error:
        words = error.message.replace(f"\nCannot process volume group {vg.name}", "")
        raise RefusedError(words) from None


def exported(session: Session, name: str) -> None:
    """Set the mark; RefusedError while volumes are active."""

    def export(vg: VolumeGroup) -> VolumeGroup:
        if lvm_lv.states(session, vg):
            raise RefusedError(f'Volume group "{vg.name}" has active logical volumes')
        return export_vg(vg)

    session.change_vg(name, export)


def imported(session: Session, name: str, *, incomplete: bool = False) -> None:
    """Take the mark away, and make the VG this host's. `incomplete`: also while PVs are missing."""
    _import_as(session, name, session.host.system_id or None, incomplete=incomplete)


def _import_as(session: Session, name: str, owner: str | None, *, incomplete: bool = False) -> None:
    session.change_vg(
        name,
        lambda vg: import_vg(vg)._replace(system_id=owner),
        exported=True,
        allow_missing=incomplete,
    )


def _prepared(session: Session, old: VolumeGroup | None, new: VolumeGroup) -> Pending:
    return prepare(
        session.host,
        session.scan(),
        old,
        new,
        command=session.command_line,
        exclusive=not any(session.holds(vg) for vg in (old, new) if vg is not None),
        regroup=True,
        exported=True,
        warn=session.warn,
        verbose=session.verbose,
    )


def split(
    session: Session,
    source: str,
    target: str,
    *,
    paths: Sequence[str] = (),
    lv_name: str | None = None,
    attributes: Mapping[str, Any] = MappingProxyType({}),
) -> bool:
    """Move PVs, or those that a volume lies on, to a VG that is new or there. Whether it is new.
    `attributes`: of `VolumeGroup`, for a new one; those of the old one are the default."""
    if source == target:
        raise RefusedError(f'Duplicate volume group name "{source}"')
    first, second = sorted((source, target))
    with session.lock_global(), session.lock(first), session.lock(second):
        vg = _to_split(session, source, target)
        there = _to_join(session, target)
        if there is not None and attributes and "EXPORTED" not in there.status:
            raise RefusedError(f'Volume group "{target}" exists, but new VG option specified')
        taken = path_taken(session, target) if there is None else None
        if taken is not None:
            raise UsageError(taken)
        moving = _moving(session, vg, paths, lv_name)
        new_target = there is None
        if there is not None and "EXPORTED" in there.status and _holds(there, moving):
            # An earlier vgsplit was cut off: some PVs may hold the text of the source yet.
            new, owner = there, vg.system_id
            rest = split_vg(vg, edit.new_vg(target, uuid=new_uuid(), extent_size=vg.extent_size),
                            moving, lambda _: False).rest  # fmt: skip
        else:
            if there is not None and "EXPORTED" in there.status:
                raise RefusedError(
                    f"Volume group {target} is exported\nFailed to read VG {target}."
                )
            if there is not None and there.extent_size != vg.extent_size:
                raise RefusedError(
                    f"Extent sizes differ: {there.extent_size} ({target}) and "
                    f"{vg.extent_size} ({source})"
                )
            if there is not None and attributes:
                raise RefusedError(f"Volume group name {target} already exists")
            active = lvm_lv.states(session, vg)
            if there is not None and active:
                raise RefusedError(f'Logical volumes in "{source}" must be inactive')
            if there is not None:
                check_limits(there, vg)
            base = there or edit.new_vg(
                target,
                uuid=new_uuid(),
                extent_size=vg.extent_size,
                max_lv=vg.max_lv,
                max_pv=vg.max_pv,
                allocation_policy=vg.allocation_policy,
                system_id=vg.system_id,
            )._replace(
                **attributes,
            )
            rest, new = split_vg(vg, base, moving, active.__contains__)
            owner = base.system_id
            session.verbose("Writing out updated volume groups")
        for part in (rest, new):
            if part is not None and not any(pv.areas for pv in session.last_scan.pvs_of(part)):
                raise RefusedError("Cannot split: Nowhere to store metadata for new Volume Group")
        session.hold_signals()
        left = None if rest is None else _prepared(session, vg, rest)
        try:
            _prepared(session, there, export_vg(new)).commit()
        except BaseException:
            if left is not None:
                left.revert()
            raise
        if left is not None:
            left.commit()
        _import_as(session, target, owner)
        if left is None:
            try:
                remove_backup(session.host, source)
            except UlvmError as error:
                session.warn(f"WARNING: {error.message}")
        return new_target


def _to_split(session: Session, source: str, target: str) -> VolumeGroup:
    """LVM2 reads both VGs, and names the one that it cannot lock."""
    try:
        vg = session.scan().vg(source)
        if "EXPORTED" in vg.status:
            raise RefusedError(f"Volume group {source} is exported")
        _check_complete(vg)
        check_known(vg)
    except UlvmError as error:
        raise RefusedError(f"{error.message}\nFailed to read VG {target}.") from error
    return session.vg_for_change(source)


def _to_join(session: Session, target: str) -> VolumeGroup | None:
    """The VG that PVs are split off to; None for one that is to be new. RefusedError for another
    host's, FormatError for one that cannot be read."""
    try:
        return session.last_scan.vg(target)
    except NotFoundError:
        return None
    except UlvmError as error:
        raise type(error)(f"{error.message}\nFailed to read VG {target}.") from error


def _holds(vg: VolumeGroup, pv_uuids: set[str]) -> bool:
    return pv_uuids <= {pv.uuid for pv in vg.pvs}


def _moving(
    session: Session, vg: VolumeGroup, paths: Sequence[str], lv_name: str | None
) -> set[str]:
    if lv_name is not None:
        lv = vg.lv(lv_name)
        if lv is None or lv.snapshot_segment is not None:
            raise NotFoundError(f"Logical volume {lv_name} not in volume group {vg.name}")
        return pvs_of_lv(vg, lv)
    moving = set()
    for path in paths:
        try:
            uuid = session.last_scan.pv(device_path(path)).uuid
        except NotFoundError:
            uuid = ""
        if vg.pv(uuid) is None:
            raise NotFoundError(f"Physical volume {path} not in volume group {vg.name}")
        moving.add(uuid)
    return moving


def merge(session: Session, target: str, source: str) -> None:
    """Put all of the inactive VG `source` into `target`."""
    if source == target:
        raise RefusedError(f'Duplicate volume group name "{target}"')
    first, second = sorted((source, target))
    with session.lock_global(), session.lock(first), session.lock(second):
        session.verbose(f'Checking for volume group "{target}"')
        into = session.scan().vg(target)
        session.verbose(f'Checking for volume group "{source}"')
        vg = session.last_scan.vg(source)
        session.repair(into)
        if "EXPORTED" in into.status:
            raise RefusedError(f"Volume group {target} is exported")
        _check_complete(into)
        check_known(into)
        if lvm_lv.states(session, vg):
            raise RefusedError(f'Logical volumes in "{source}" must be inactive')
        session.hold_signals()
        # What an earlier vgmerge that got into step 2 committed has the PVs already.
        both = into
        if not _holds(into, {pv.uuid for pv in vg.pvs}):
            both = merge_vgs(into, vg)
            session.change_vg(source, export_vg)
        session.verbose("Writing out updated volume group")
        try:
            _prepared(session, into, both).commit()
        except UlvmError:
            if both is not into:
                _import_as(session, source, vg.system_id)
            raise
        check_members(session.scan(), both)  # What a disk refused of a commit that stands.
