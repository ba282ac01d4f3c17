"""Copies of a VG's devices get UUIDs of their own, so that they may stand beside the originals.

    1. the new text into the free part of every ring, slot 1 names it, a flush
    2. a label with a new UUID on every device
    3. slot 0 = the new text, slot 1 empty, on every device

Crash argument. Until 2 the copies are what they were. In 2 and 3 slot 1 or slot 0 of every device
holds the same new text, which names the devices' UUIDs to be; `interrupted` finds it, and the same
command once more goes on with it: a label that has its new UUID, and a header that has the text,
are written again to no effect. A device with its new label and the old text belongs to no VG and is
marked as used, so it is refused to others meanwhile. A device that has no metadata area
is known by the path that the text has for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.errors import RefusedError
from ulvm.metadata.check import check_name_lengths, check_vg
from ulvm.metadata.mda import RawLocn, next_offset, ring_write
from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore.commit import check_size, text_of, write_label, write_to
from ulvm.vgstore.host import Host
from ulvm.vgstore.precommit import precommitted
from ulvm.vgstore.scan import MdaCopy, PvDevice

__all__ = ["interrupted", "write_clone"]


def interrupted(host: Host, devices: Sequence[PvDevice]) -> VolumeGroup | None:
    """The VG that a command that died was about to make of just these devices; None if none was.
    It was if a label has its new UUID and not all headers the text."""
    meant = [vg for pv in devices if (vg := precommitted(host, pv)) is not None]
    if not meant:
        return None
    wanted = meant[0]
    committed = {mda.vg.uuid for pv in devices for mda in pv.mdas if mda.vg is not None}
    begun = wanted.uuid in committed or any(wanted.pv(pv.uuid) is not None for pv in devices)
    # What any other command leaves in slot 1 is of the VG that is in slot 0.
    another = any(uuid != wanted.uuid for uuid in committed)
    fits = {pv.device for pv in wanted.pvs} == {pv.path for pv in devices}
    same = all(vg.uuid == wanted.uuid for vg in meant)
    return wanted if begun and another and fits and same else None


def write_clone(host: Host, devices: Sequence[PvDevice], vg: VolumeGroup, command: str) -> None:
    """Make the devices the PVs of `vg`, in which each stands under its path. FormatError if it
    could not be read again, RefusedError if the text does not fit or a name is too long, before
    anything is written."""
    check_vg(vg)
    check_name_lengths(vg)
    data = text_of(host, vg, command)
    by_path = {pv.device: pv for pv in vg.pvs}
    areas = [(pv, mda) for pv in devices for mda in _in_use(pv)]
    for pv, mda in areas:
        assert mda.header is not None
        check_size(vg, pv.path, mda.header, data)
    if not areas:
        raise RefusedError(f"Volume group {vg.name} has no metadata area to write to.")
    written = []
    for pv, mda in areas:
        header = mda.header
        assert header is not None
        locn = RawLocn.of_text(next_offset(header.size, header.current), data)
        for start, part in ring_write(header.size, locn.offset, data):
            write_to(host, pv.path, header.start + start, part)
        written.append((pv, header, locn))
    for pv, header, locn in written:
        write_to(host, pv.path, header.start, header.with_precommit(locn).pack())
    for pv in devices:
        new = pv.with_uuid(by_path[pv.path].uuid)
        write_label(host, new, in_use=True)
    for pv, header, locn in written:
        write_to(host, pv.path, header.start, header.with_commit(locn).pack())


def _in_use(pv: PvDevice) -> list[MdaCopy]:
    return [mda for mda in pv.areas if not mda.ignored]
