"""Which of the texts that the PVs of a VG hold counts, and what is to be said of the others.

The highest seqno counts (spec/lvm2-format.md sec. 4). Slot 1 (precommitted) is never read. An area
whose text or header is damaged is passed over while another one is good.

Two texts of one VG may differ and have the same seqno: one was committed on a PV that was away when
the other was made. Then the one counts that was made without the PV of the other, else the first;
but nobody knows which volumes were used since, so the VG is not changed nor activated before that
is settled (`Scan.differing`). The same holds while a PV of the VG has a text that nobody
understands, which may be the newest.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore.read import MdaCopy, PvDevice

__all__ = [
    "Newest",
    "copies",
    "find_differing",
    "find_outdated",
    "newest_texts",
    "same_group",
    "warn_about_old_copies",
]

Newest = Mapping[str, tuple[VolumeGroup, PvDevice]]
"""By VG UUID, the text that counts and a PV that has it."""


def copies(pvs: Iterable[PvDevice]) -> Iterator[tuple[PvDevice, MdaCopy, VolumeGroup]]:
    """Each area with a text that is understood."""
    for pv in pvs:
        for mda in pv.mdas:
            if mda.vg is not None:
                yield pv, mda, mda.vg


def newest_texts(pvs: Sequence[PvDevice]) -> Newest:
    """A change of the UUID that was cut short leaves two UUIDs, for which the newer text stands."""
    newest: dict[str, tuple[VolumeGroup, PvDevice]] = {}
    for pv, _, vg in copies(pvs):
        known = newest.get(vg.uuid)
        if known is None or vg.seqno > known[0].seqno or _is_later((vg, pv), known):
            newest[vg.uuid] = (vg, pv)
    for uuid, (vg, _) in list(newest.items()):
        for other in list(newest.values()):
            if other[0].seqno > vg.seqno and same_group(vg, other[0]):
                newest[uuid] = other
    return newest


def _is_later(one: tuple[VolumeGroup, PvDevice], other: tuple[VolumeGroup, PvDevice]) -> bool:
    """Of two texts of one seqno: whether only this one was made without the PV of the other."""

    def lacks(vg: VolumeGroup, device: PvDevice) -> bool:
        pv = vg.pv(device.uuid)
        return pv is None or pv.missing

    same = one[0].seqno == other[0].seqno
    return same and lacks(one[0], other[1]) and not lacks(other[0], one[1])


def find_differing(
    pvs: Sequence[PvDevice],
    newest: Newest,
    warnings: list[str],
) -> dict[str, str]:
    """`Scan.differing`."""
    found = {}
    for pv, mda, vg in copies(pvs):
        best, where = newest[vg.uuid]
        if vg.seqno == best.seqno and vg != best:
            warnings.append(
                f"WARNING: Scanning {pv.path} mda{mda.number} found mismatch with other metadata."
            )
            warnings.append(
                f"WARNING: VG {best.name} has two different metadata of seqno {best.seqno}: "
                f"those on {where.path} are used, those on {pv.path} are not."
            )
            found[best.uuid] = f"its metadata on {where.path} and on {pv.path} differ"
    for best, _ in newest.values():
        for pv in pvs:
            for mda in pv.mdas:
                if mda.problem and mda.vg_name == best.name and best.pv(pv.uuid) is not None:
                    warnings.append(
                        f"WARNING: ignoring metadata of VG {best.name} on {pv.path} "
                        f"mda{mda.number}: {mda.problem}"
                    )
                    found[best.uuid] = f"its metadata on {pv.path} are not understood"
    return found


def same_group(one: VolumeGroup, other: VolumeGroup) -> bool:
    """Whether two texts are of one VG: by the UUID, or as the states before and after a change of
    it (vgchange --uuid). That leaves the name and all PVs and volumes; a disk that missed further
    changes has some in common. A VG made anew of the same PVs has no volume in common."""
    if one.uuid == other.uuid:
        return True
    if one.name != other.name:
        return False
    pvs = [{pv.uuid for pv in vg.pvs} for vg in (one, other)]
    lvs = [{lv.uuid for lv in vg.lvs} for vg in (one, other)]
    if pvs[0] & pvs[1] and lvs[0] & lvs[1]:
        return True
    return pvs[0] == pvs[1] and lvs[0] == lvs[1] and abs(one.seqno - other.seqno) == 1


def find_outdated(
    pvs: Sequence[PvDevice],
    newest: Newest,
    warnings: list[str],
) -> dict[str, str]:
    """`Scan.outdated`: the UUIDs of these PVs, with their VG's name."""
    members = {pv.uuid for vg, _ in newest.values() for pv in vg.pvs}
    found = {}
    for pv, _, vg in copies(pvs):
        best, _ = newest[vg.uuid]
        if pv.uuid not in members and pv.uuid not in found and vg.seqno < best.seqno:
            found[pv.uuid] = best.name
            warnings.append(
                f"WARNING: outdated PV {pv.path} seqno {vg.seqno} has been removed in current VG "
                f"{best.name} seqno {best.seqno}."
            )
            warnings.append("See vgck --updatemetadata to clear outdated metadata.")
    return found


def warn_about_old_copies(
    pvs: Sequence[PvDevice],
    newest: Newest,
    outdated: Container[str],
    warnings: list[str],
) -> None:
    """Of PVs that belong to their VG, or are `outdated`."""
    inconsistent = set()
    for pv, _, vg in copies(pvs):
        best, where = newest[vg.uuid]
        known = best.pv(pv.uuid) is not None or pv.uuid in outdated
        if vg.seqno < best.seqno and known:
            warnings.append(
                f"WARNING: ignoring metadata seqno {vg.seqno} on {pv.path} for seqno "
                f"{best.seqno} on {where.path} for VG {best.name}."
            )
            inconsistent.add(best.name)
    for name in sorted(inconsistent):
        warnings.append(f"WARNING: Inconsistent metadata found for VG {name}.")
        warnings.append("See vgck --updatemetadata to correct inconsistency.")
