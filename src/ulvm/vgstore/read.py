"""What lies on one device: its label, and of each metadata area the header and the committed text.

Reading takes no lock and changes nothing; what is odd is told in LVM2's words. Slot 1 of an area
(precommitted) is never read, nor is the text of an area that is out of use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import FormatError
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.label import LABEL_SCAN_SIZE, DiskLocn, Label, PvHeader, find_label
from ulvm.metadata.mda import MDA_HEADER_SIZE, MdaHeader, ring_parts
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.text import vg_from_text

__all__ = ["MdaCopy", "PvDevice", "read_pv"]

_MAX_TEXT = 64 << 20
"""Bytes; a header that claims more is damaged or hostile."""


@dataclass(frozen=True, slots=True)
class MdaCopy:
    """One metadata area of a PV; offsets and sizes in bytes. `header` is None if it is bad."""

    offset: int
    size: int
    header: MdaHeader | None = None
    vg: VolumeGroup | None = None
    vg_name: str | None = None
    """The name its text gives, even if the text cannot be understood."""
    problem: str | None = None

    @property
    def ignored(self) -> bool:
        return self.header is not None and self.header.ignored


@dataclass(frozen=True, slots=True)
class PvDevice:
    """A device with a PV label on it. `size` is the device's own, in bytes."""

    path: str
    size: int
    label: Label
    mdas: tuple[MdaCopy, ...] = ()
    vg_name: str | None = None

    @property
    def uuid(self) -> str:
        """In text form, with dashes."""
        return self.label.pv_header.uuid

    def with_uuid(self, uuid: str) -> PvDevice:
        """The same PV under another UUID."""
        if uuid == self.uuid:
            return self
        header = replace(self.label.pv_header, uuid=uuid)
        return replace(self, label=replace(self.label, pv_header=header))

    @classmethod
    def without_label(cls, path: str, size: int) -> PvDevice:
        """A device that is no PV, for lists that show it beside those that are; its UUID is
        empty."""
        return cls(path, size, Label(0, PvHeader("", 0, (DiskLocn(0, 0),))))

    @property
    def in_use(self) -> bool:
        """The header says that the PV belongs to a VG."""
        return self.label.pv_header.in_use


def read_pv(
    path: str,
    device: BlockDevice,
    texts: dict[tuple[int, int], VolumeGroup | FormatError],
    warnings: list[str],
) -> PvDevice | None:
    """The PV on an open device, or None. `texts` keeps what was parsed, by size and checksum."""
    size = device.size
    if size < LABEL_SCAN_SIZE:
        return None
    try:
        label = find_label(device.read(0, LABEL_SCAN_SIZE))
    except FormatError as error:
        warnings.append(f"WARNING: {path}: {error.message}")
        return None
    if label is None:
        return None
    areas = label.pv_header.metadata_areas
    mdas = tuple(_read_mda(path, device, area, texts, warnings) for area in areas)
    return PvDevice(path, size, label, mdas)


def _read_mda(
    path: str,
    device: BlockDevice,
    area: DiskLocn,
    texts: dict[tuple[int, int], VolumeGroup | FormatError],
    warnings: list[str],
) -> MdaCopy:
    offset, size = area
    copy = MdaCopy(offset, size)
    if offset + max(size, MDA_HEADER_SIZE) > device.size:
        warnings.append(f"WARNING: metadata area on {path} at {offset} is beyond the device.")
        return replace(copy, problem="beyond the device")
    try:
        header = MdaHeader.unpack(device.read(offset, MDA_HEADER_SIZE), start=offset, device=path)
    except FormatError as error:
        warnings += [f"WARNING: {line}" for line in error.message.splitlines()]
        warnings.append(f"WARNING: bad metadata header on {path} at {offset}.")
        return replace(copy, problem=error.message)
    copy = replace(copy, header=header)
    locn = header.current
    if locn is None:
        return copy
    if header.size > device.size - offset or locn.size > _MAX_TEXT:
        warnings.append(f"WARNING: bad metadata text size on {path} at {offset}.")
        return replace(copy, problem="bad text size")
    parts = ring_parts(header.size, locn.offset, locn.size)
    text = b"".join(device.read(offset + start, length) for start, length in parts)
    if lvm_crc(text) != locn.checksum:
        where = offset + locn.offset
        warnings.append(f"WARNING: Checksum error on {path} at offset {where}.")
        return replace(copy, problem="checksum", vg_name=_first_word(text))
    key = (locn.size, locn.checksum)
    if key not in texts:
        try:
            texts[key] = vg_from_text(text.rstrip(b"\0"))
        except FormatError as error:
            texts[key] = error
    parsed = texts[key]
    if isinstance(parsed, FormatError):
        return replace(copy, problem=parsed.message, vg_name=_first_word(text))
    return replace(copy, vg=parsed, vg_name=parsed.name)


def _first_word(text: bytes) -> str | None:
    """The VG's name at the beginning of a text, so far as it can be told."""
    words = text[:256].decode("ascii", errors="replace").split(None, 2)
    return words[0] if len(words) > 1 and words[1] == "{" else None
