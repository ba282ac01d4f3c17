"""Texts that were written and not committed (slot 1 of a metadata area).

Readers never look at them (`vgstore.scan`). They tell what a command that died meant to do, where
that has to be gone on with: a PV that has its new UUID already, and a VG that does not know it yet.
"""

from __future__ import annotations

from ulvm.errors import FormatError
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.mda import MAX_TEXT, ring_parts
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.text import vg_from_text
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import PvDevice

__all__ = ["precommitted"]


def precommitted(host: Host, pv: PvDevice) -> VolumeGroup | None:
    """What the PV's areas hold in slot 1; None if there is nothing, or nothing whole."""
    for mda in pv.mdas:
        locn = mda.header.precommitted if mda.header is not None else None
        if mda.header is None or locn is None or locn.empty or locn.size > MAX_TEXT:
            continue
        device = host.opener(pv.path, False)
        try:
            text = b"".join(
                device.read(mda.offset + start, length)
                for start, length in ring_parts(mda.header.size, locn.offset, locn.size)
            )
        finally:
            device.close()
        if lvm_crc(text) != locn.checksum:
            continue
        try:
            return vg_from_text(text.rstrip(b"\0"))
        except FormatError:
            continue
    return None
