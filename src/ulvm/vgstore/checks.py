"""What must hold before a VG may be changed: asked before anything is written.

Checks of what the metadata say in themselves are in `metadata.check`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ulvm.blockdev.file import FileDevice
from ulvm.errors import RefusedError
from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore.newest import same_group
from ulvm.vgstore.scan import PvDevice, Scan

__all__ = [
    "check_change",
    "check_complete",
    "check_known",
    "check_members",
    "check_settled",
    "check_single",
    "claim",
    "incomplete_words",
]


def check_complete(vg: VolumeGroup) -> None:
    """RefusedError, with LVM's words, if PVs are missing."""
    if vg.partial:
        raise RefusedError(incomplete_words(vg))


def check_known(vg: VolumeGroup) -> None:
    """RefusedError if a volume is of a type that is not known, nor then what it stands on."""
    if vg.has_unknown_segments:
        raise RefusedError(
            f"Cannot change VG {vg.name} with unknown segments in it!\n"
            f"Cannot process volume group {vg.name}"
        )


def check_settled(scan: Scan, vg: VolumeGroup) -> None:
    """RefusedError if PVs have other metadata of the VG than those that count, and no older ones:
    extents that are free by the one text may be used by the other."""
    why = scan.differing.get(vg.uuid)
    if why is not None:
        raise RefusedError(
            f"Cannot use VG {vg.name} while {why}: run vgck --updatemetadata to go on with those "
            "that lvs shows, or vgcfgrestore with those of a file.\n"
            f"Cannot process volume group {vg.name}"
        )


def check_single(scan: Scan, vg: VolumeGroup) -> None:
    """RefusedError while two devices claim to be one PV: a table may lead to the wrong one."""
    if scan.in_doubt(vg):
        raise RefusedError(
            f"Cannot activate LVs in VG {vg.name} while PVs appear on duplicate devices."
        )


def incomplete_words(vg: VolumeGroup) -> str:
    """Why a VG with missing PVs cannot be changed."""
    return (
        f"Cannot change VG {vg.name} while PVs are missing.\n"
        "See vgreduce --removemissing and vgextend --restoremissing.\n"
        f"Cannot process volume group {vg.name}"
    )


def check_change(
    scan: Scan,
    old: VolumeGroup,
    vg: VolumeGroup,
    *,
    allow_missing: bool,
    exported: bool,
    settle: bool = False,
) -> None:
    """RefusedError if `old` may not become `vg`. `allow_missing`: for what LVM allows while PVs are
    missing, `exported` with an exported VG, `settle` for what ends that PVs differ."""
    if not settle:
        check_settled(scan, old)
        check_settled(scan, vg)
    check_known(vg)
    if not allow_missing:
        check_complete(vg)
    if scan.in_doubt(old) or scan.in_doubt(vg):
        raise RefusedError(f"Cannot update volume group {vg.name} with duplicate PV devices.")
    # All that may be done to an exported VG is to import it, and to rename it.
    if "EXPORTED" in old.status and "EXPORTED" in vg.status and old.seqno and not exported:
        raise RefusedError(f"Volume group {vg.name} is exported")


def check_members(scan: Scan, vg: VolumeGroup) -> None:
    """A PV of the VG that holds another VG's text: what a vgsplit or vgmerge that was interrupted
    leaves. To write there would destroy the only text of the other VG; not if that has a newer one,
    in which it has gone on without the PV."""
    newest = {other.uuid: other for other in (*scan.vgs, *scan.foreign)}
    for pv in scan.pvs_of(vg):
        for mda in pv.mdas:
            if mda.vg is None or same_group(mda.vg, vg):
                continue
            other = newest.get(mda.vg.uuid, mda.vg)
            if other.pv(pv.uuid) is not None:
                raise RefusedError(
                    f"PV {pv.path} of VG {vg.name} also belongs to VG {other.name}: "
                    "run the vgsplit or vgmerge again that was interrupted."
                )


def claim(pvs: Iterable[PvDevice]) -> None:
    """BusyError, naming who has it, for one that another program has open."""
    for pv in pvs:
        FileDevice(pv.path, writable=True, claim=True).close()
