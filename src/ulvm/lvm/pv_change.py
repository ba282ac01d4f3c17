"""pvchange(8) and pvresize(8)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from ulvm.errors import NotFoundError, RefusedError
from ulvm.lvm.session import Session
from ulvm.metadata.layout import usable_extents
from ulvm.metadata.pv_edit import resize_pv, set_allocatable, set_tags
from ulvm.units import SECTOR, display_size
from ulvm.vgstore.commit import write_label
from ulvm.vgstore.pv import device_path
from ulvm.vgstore.scan import PvDevice

__all__ = ["change", "resize"]

_MIN_SECTORS = 4096
"""devices/pv_min_size of LVM2."""


def _find(session: Session, path: str) -> PvDevice:
    try:
        return session.scan().pv(device_path(path))
    except NotFoundError:
        if os.path.exists(path):
            raise
        raise NotFoundError(f"Cannot use {path}: device not found") from None


def change(
    session: Session,
    path: str,
    *,
    allocatable: bool | None = None,
    add_tags: Sequence[str] = (),
    remove_tags: Sequence[str] = (),
) -> bool:
    """Change a PV that is in a VG; whether there was something to change. RefusedError for a PV
    that is in none."""
    with session.lock_global():
        pv = _find(session, path)
        if pv.vg_name is None:
            if allocatable is not None:
                raise RefusedError(f"Allocatability not supported by orphan lvm2 format PV {path}")
            raise RefusedError(f"Can't change tag on Physical Volume {path} not in volume group")
        if allocatable is not None:
            member = session.last_scan.vg(pv.vg_name).pv(pv.uuid)
            if member is not None and member.allocatable == allocatable:
                word = "allocatable" if allocatable else "unallocatable"
                session.warn(f'Physical volume "{path}" is already {word}.')
                return False
            session.change_vg(pv.vg_name, lambda vg: set_allocatable(vg, pv.uuid, allocatable))
        if add_tags or remove_tags:
            session.change_vg(
                pv.vg_name, lambda vg: set_tags(vg, pv.uuid, add=add_tags, remove=remove_tags)
            )
        return True


def resize(session: Session, path: str, sectors: int | None = None) -> None:
    """Bring the PV to its device's size, or to `sectors` if the user confirms that.

    First the metadata, then the label, whose size is for information alone: a cut between the two
    is repaired by the next pvresize.
    """
    with session.lock_global():
        pv = _find(session, path)
        real = pv.size // SECTOR
        size = real if sectors is None else sectors
        if sectors is not None and sectors != real:
            _confirm(session, path, real, sectors)
        if size < _MIN_SECTORS:
            raise RefusedError(f"Size must exceed minimum of {_MIN_SECTORS} sectors on PV {path}.")
        header = pv.label.pv_header
        start = header.pe_start // SECTOR
        if any(area.offset // SECTOR >= start for area in header.metadata_areas):
            raise RefusedError(
                f"{path} has a metadata area at its end: it cannot be resized, only replaced."
            )
        if pv.vg_name is not None:
            vg = session.vg_for_change(pv.vg_name)
            extents = usable_extents(size, start, header.metadata_areas, vg.extent_size)
            # As LVM2: once resized, a PV's dev_size is without what lies before its extents.
            session.change_vg(vg.name, lambda vg: resize_pv(vg, pv.uuid, size - start, extents))
        resized = replace(header, device_size=size * SECTOR)
        label = replace(pv.label, pv_header=resized)
        write_label(session.host, replace(pv, label=label), in_use=header.in_use)


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
