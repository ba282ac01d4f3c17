"""Volume groups with PVs that are not there: give them up, or take them back.

A change that is made while a PV is missing (only removals are allowed) leaves the mark MISSING on
it: what it holds is older than the VG. Such a PV stays missing when it comes back, until
`restore` says that its content counts (vgextend --restoremissing), or `remove` drops it
(vgreduce --removemissing).

An origin of which only a snapshot has lost extents is partial, and yet kept: its own data are all
there. LVM2 removes it, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.errors import NotFoundError, RefusedError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.session import Change, Session
from ulvm.metadata import edit
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.vgstore.pv import device_path

__all__ = ["remove", "restore"]


def remove(session: Session, name: str, *, force: bool, mirrors: bool = False) -> bool:
    """Drop the missing PVs, unless a volume needs one; with `force` first all volumes with extents
    on missing PVs, and the snapshots of such origins; with `mirrors` none of these, since none is a
    mirror's. Whether that is what was wanted."""
    with session.lock_global(), session.lock(name):
        vg = session.vg_for_change(name)
        if not vg.partial:
            session.say(f'Volume group "{name}" is already consistent.')
            return True
        partial = [lv.name for lv in vg.lvs if vg.is_partial(lv)]
        if force and not mirrors:
            lost = [lv for lv in vg.lvs if vg.has_lost_extents(lv)]
            _check_at_rest(vg, lost)
            for lv in lost:
                _remove_volume(session, name, lv.name)
        elif partial:
            for lv_name in partial if force else ():
                session.warn(f"Non-mirror-image LV {lv_name} found: can't remove.")
            for lv_name in partial:
                session.warn(f"WARNING: Partial LV {lv_name} needs to be repaired or removed. ")
            session.warn(
                f"There are still partial LVs in VG {name}.\n"
                "To remove them unconditionally use: vgreduce --removemissing --force.\n"
                "To remove them unconditionally from mirror LVs use: "
                "vgreduce --removemissing --mirrorsonly --force.\n"
                "WARNING: Proceeding to remove empty missing PVs."
            )
        # LVM2's words go further than its deeds: where a partial volume stays, all PVs do.
        done = _without_missing if (force and not mirrors) or not partial else lambda vg: vg
        left = session.change_vg(name, done, allow_missing=True).vg
        if left.partial and not force:
            return False
        session.say(f"Wrote out consistent volume group {name}.")
        return True


def _check_at_rest(vg: VolumeGroup, lost: Sequence[LogicalVolume]) -> None:
    """A volume of which extents are moved stays, so its snapshots must, too; and where the way out
    of a missing PV, or to one, is given up, nothing of it may be lost."""
    for lv in lost:
        try:
            edit.check_unlocked(vg, lv, "remove")
        except RefusedError as error:
            raise RefusedError(f"{error.message}\nSee pvmove --abort.") from None


def _remove_volume(session: Session, vg_name: str, lv_name: str) -> None:
    vg = session.vg_for_change(vg_name)
    if vg.lv(lv_name) is None:
        return  # it went with its origin
    session.warn(f"WARNING: Removing partial LV {vg_name}/{lv_name}.")
    segments = vg.snapshots_of_origin(lv_name)
    for each in (*(s.cow for s in segments if not s.merging), lv_name):
        lvm_lv.remove(session, vg_name, each)
        with_it = [s.cow for s in segments if s.merging and each == lv_name]
        for gone in (*with_it, each):
            session.say(f'Logical volume "{gone}" successfully removed.')


def _without_missing(vg: VolumeGroup) -> VolumeGroup:
    for pv in vg.pvs:
        if (pv.missing or pv.uuid in vg.missing_uuids) and not vg.allocated(pv.uuid):
            vg = edit.remove_pv(vg, pv.uuid)
    return vg


def restore(session: Session, name: str, paths: Sequence[str]) -> Change:
    """Take back PVs that are there again. RefusedError if none of them was missing."""

    def take_back(vg: VolumeGroup) -> VolumeGroup:
        new, restored = vg, False
        missing = {pv.uuid for pv in vg.pvs if pv.missing} | session.last_scan.reappeared
        for path in paths:
            try:
                pv = vg.pv(session.last_scan.pv(device_path(path)).uuid)
            except NotFoundError:
                pv = None
            if pv is None:
                session.warn(f"WARNING: PV {path} not found in VG {name}")
                continue
            if pv.uuid not in missing:
                session.warn(f"WARNING: PV {path} was not missing in VG {name}")
                continue
            missing.remove(pv.uuid)
            new = edit.restore_pv(new, pv.uuid)
            restored = True
        if not restored:
            raise RefusedError("No PV has been restored.")
        return new

    with session.lock_global():
        return session.change_vg(name, take_back, allow_missing=True)
