"""What lies on one device: its label, and of each metadata area the header and the committed text.

Reading takes no lock and changes nothing; what is odd is told in LVM2's words. Slot 1 of an area
(precommitted) is never read, nor is the text of an area that is out of use. An area with a damaged
header or text counts for nothing; so does one that cannot be read, and the volumes on a disk with
bad sectors there are served all the same.
"""

from __future__ import annotations

from typing import NamedTuple

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import DeviceError, FormatError
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.label import LABEL_SCAN_SIZE, DiskLocn, Label, PvHeader, find_label
from ulvm.metadata.mda import (
    MAX_TEXT,
    MDA_HEADER_SIZE,
    UNDAMAGED,
    Damage,
    MdaHeader,
    header_damage,
    ring_parts,
)
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import name_problem
from ulvm.metadata.text import vg_from_text

__all__ = ["MdaCopy", "PvDevice", "Texts", "read_pv"]


class Texts:
    """What texts say, by their bytes, each parsed once. Those that the scan before met stay known:
    a command looks several times, and most groups are then as they were. For one thread."""

    def __init__(self) -> None:
        self._before: dict[bytes, VolumeGroup | FormatError] = {}
        self._met: dict[bytes, VolumeGroup | FormatError] = {}

    def next_scan(self) -> None:
        self._before, self._met = self._met, {}

    def parsed(self, text: bytes) -> VolumeGroup | FormatError:
        """`text` with the NUL at its end."""
        found = self._met.get(text, self._before.get(text))
        if found is None:
            try:
                found = vg_from_text(text.rstrip(b"\0"))
            except FormatError as error:
                found = error
        self._met[text] = found
        return found


class MdaCopy(NamedTuple):
    """One metadata area of a PV; offsets and sizes in bytes. `header` is None if it is bad."""

    offset: int
    size: int
    number: int = 1
    """Among those of its PV, from 1."""
    header: MdaHeader | None = None
    vg: VolumeGroup | None = None
    vg_name: str | None = None
    """The name its text gives, even if the text cannot be understood."""
    damage: Damage = UNDAMAGED
    """What is wrong with the header, or that the text's checksum or first word is."""
    problem: str | None = None
    """Why a text that is as it was written cannot be understood."""

    @property
    def ignored(self) -> bool:
        return self.header is not None and self.header.ignored

    @property
    def good(self) -> bool:
        """It counts, and is written to. One that is damaged is as if it were not there, until
        `vgck --updatemetadata` writes it anew."""
        return not self.damage


class PvDevice(NamedTuple):
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
        header = self.label.pv_header._replace(uuid=uuid)
        return self._replace(label=self.label._replace(pv_header=header))

    @classmethod
    def without_label(cls, path: str, size: int) -> PvDevice:
        """A device that is no PV, for lists that show it beside those that are; its UUID is
        empty."""
        return cls(path, size, Label(0, PvHeader("", 0, (DiskLocn(0, 0),))))

    @property
    def areas(self) -> tuple[MdaCopy, ...]:
        """Metadata areas that are not damaged."""
        return tuple(mda for mda in self.mdas if mda.good)

    @property
    def unowned(self) -> bool:
        """Some VG uses the PV, and no metadata say which."""
        return self.in_use and self.vg_name is None

    @property
    def in_use(self) -> bool:
        """The header says that the PV belongs to a VG."""
        return self.label.pv_header.in_use


def read_pv(
    path: str,
    device: BlockDevice,
    texts: Texts,
    warnings: list[str],
) -> PvDevice | None:
    """What the device holds; None if it is no PV."""
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
    mdas = []
    for number, area in enumerate(label.pv_header.metadata_areas, 1):
        mda, said = _read_mda(path, device, MdaCopy(*area, number), texts)
        mdas.append(mda)
        warnings += said
        if mda.damage:
            warnings += [
                f"WARNING: scanning {path} mda{number} failed to read metadata summary.",
                f"WARNING: repair VG metadata on {path} with vgck --updatemetadata.",
            ]
    if mdas and all(mda.damage for mda in mdas):
        pvid = label.pv_header.uuid.replace("-", "")
        warnings.append(f"WARNING: scan failed to get metadata summary from {path} PVID {pvid}")
    return PvDevice(path, size, label, tuple(mdas))


def _read_mda(
    path: str,
    device: BlockDevice,
    copy: MdaCopy,
    texts: Texts,
) -> tuple[MdaCopy, list[str]]:
    """The area with what it holds, and what is wrong with it."""
    offset = copy.offset
    if offset + max(copy.size, MDA_HEADER_SIZE) > device.size:
        said = f"WARNING: metadata area on {path} at {offset} is beyond the device."
        return copy._replace(damage=Damage.READ), [said]
    try:
        data = device.read(offset, MDA_HEADER_SIZE)
    except DeviceError as error:
        return copy._replace(damage=Damage.READ), [
            f"WARNING: Failed to read metadata area header on {path} at {offset}: {error.message}",
            f"WARNING: bad metadata header on {path} at {offset}.",
        ]
    try:
        header = MdaHeader.unpack(data, start=offset, device=path)
        if header.size > copy.size:  # What it calls its own may be the first extents.
            raise FormatError(f"wrong size {header.size} in mda header on {path} at {offset}")
    except FormatError as error:
        lines = [f"WARNING: {line}" for line in error.message.splitlines()]
        lines.append(f"WARNING: bad metadata header on {path} at {offset}.")
        return copy._replace(damage=header_damage(data, start=offset)), lines
    copy = copy._replace(header=header)
    locn = header.current
    if locn is None:
        return copy, []
    at = offset + locn.offset
    what, text = f"WARNING: Checksum error on {path} at offset {at}.", b""
    if header.size > device.size - offset or locn.size > MAX_TEXT:
        what = f"WARNING: bad metadata text size on {path} at {offset}."
    else:
        parts = ring_parts(header.size, locn.offset, locn.size)
        try:
            text = b"".join(device.read(offset + start, length) for start, length in parts)
            if lvm_crc(text) == locn.checksum:
                what = ""
        except DeviceError as error:
            what = f"WARNING: Failed to read metadata text on {path} at {at}: {error.message}"
    if not what:
        parsed = texts.parsed(text)
        if not isinstance(parsed, FormatError):
            return copy._replace(vg=parsed, vg_name=parsed.name), []
        if (name := _first_word(text)) is not None:
            return copy._replace(problem=parsed.message, vg_name=name), []
        what = f"WARNING: Metadata location on {path} at offset {at} begins with invalid name."
    return copy._replace(damage=Damage.TEXT), [
        what,
        f"WARNING: invalid metadata text from {path} at {at}.",
        f"WARNING: metadata on {path} at {at} has invalid summary for VG.",
        f"WARNING: bad metadata text on {path} in mda{copy.number}",
    ]


def _first_word(text: bytes) -> str | None:
    """The VG's name at the beginning of a text; None if there is none that a group may have, by
    which it would be locked and asked for."""
    words = text[:256].decode("ascii", errors="replace").split(None, 2)
    named = len(words) > 1 and words[1] == "{" and name_problem(words[0]) is None
    return words[0] if named else None
