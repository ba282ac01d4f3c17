"""pvck(8): what the headers and metadata areas of a device hold, also where they are damaged.

It works on any device, in the devices file or not, and reads nothing but the device; sectors that
cannot be read are told of and taken for zeroes, so that the texts around them are found.
`--settings` stand in for what the headers should say. `lvm.pv_repair` writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import DeviceError, FormatError, NotFoundError, RefusedError
from ulvm.lvm.session import Session
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.dump import (
    Headers,
    MdaDump,
    Read,
    dump_label,
    dump_mda,
    ring_text,
    summary_of,
)
from ulvm.metadata.label import LABEL_SCAN_SECTORS, DiskLocn, Label
from ulvm.metadata.mda import MAX_TEXT, MDA_HEADER_SIZE
from ulvm.metadata.text import parse_apart
from ulvm.metadata.uuid import parse_uuid
from ulvm.units import SECTOR

__all__ = [
    "DUMPS",
    "Device",
    "check",
    "dump",
    "opened",
    "parse_settings",
    "second_area",
]

DUMPS = ("headers", "metadata", "metadata_all", "metadata_search", "metadata_area")
_BAD = "Found bad header or metadata values."
_FIRST_AREA = DiskLocn(4096, 1044480)
_MIB = 1 << 20
_NUMBERS = frozenset({
    "metadata_offset", "mda_offset", "mda_size", "mda2_offset", "mda2_size", "device_size",
    "data_offset", "mda_num",
})  # fmt: skip


def parse_settings(text: str | None) -> dict[str, int | str]:
    """`key=value` words; RefusedError for a key or a value that pvck(8) does not have."""
    found: dict[str, int | str] = {}
    for word in (text or "").split():
        key, equals, value = word.partition("=")
        if not equals:
            raise RefusedError(f"Invalid setting at: {word}")
        if key == "pv_uuid":
            try:
                found[key] = parse_uuid(value)
            except FormatError:
                raise RefusedError(
                    "Failed to parse UUID from pv_uuid setting.\nInvalid setting: pv_uuid"
                ) from None
        elif key in _NUMBERS and value.isascii() and value.isdigit() and len(value) < 20:
            found[key] = int(value)
        else:
            raise RefusedError(f"Invalid setting: {key}")
    return found


@dataclass
class Device:
    """An open device under the name it was given. `sector`: where its label is or should be."""

    path: str
    device: BlockDevice
    sector: int = 1
    unreadable: dict[int, int] = field(default_factory=dict)
    """Bytes, by offset."""

    @property
    def read(self) -> Read:
        size = self.device.size

        def read(offset: int, length: int) -> bytes:
            length = max(0, min(length, size - offset))
            return self._readable(offset, length) if length else b""

        return read

    def _readable(self, offset: int, length: int) -> bytes:
        """What can be read of it, and zeroes for the sectors that cannot."""
        try:
            return self.device.read(offset, length)
        except DeviceError:
            if length <= SECTOR:
                self.unreadable[offset] = length
                return bytes(length)
        half = max(SECTOR, length // 2 // SECTOR * SECTOR)
        return self._readable(offset, half) + self._readable(offset + half, length - half)

    def tell_unreadable(self, session: Session) -> None:
        """Of what was taken for zeroes."""
        runs: list[list[int]] = []
        for offset, length in sorted(self.unreadable.items()):
            if runs and offset == sum(runs[-1]):
                runs[-1][1] += length
            else:
                runs.append([offset, length])
        for offset, length in runs:
            session.warn(f"WARNING: {self.path} cannot be read at {offset} length {length}.")


def opened(session: Session, path: str, label_sector: int | None = None) -> Device:
    """For reading; NotFoundError if it cannot be. The caller closes `device`."""
    try:
        device = session.host.opener(os.path.realpath(path), False)
    except (DeviceError, NotFoundError):
        raise NotFoundError(f"Cannot access device {path}.") from None
    found = Device(path, device, 1 if label_sector is None else label_sector)
    if label_sector is None:
        for sector in range(LABEL_SCAN_SECTORS):
            data = found.read(sector * SECTOR, SECTOR)
            try:
                if Label.unpack(data, sector) is None:
                    continue
            except FormatError:
                pass  # a label with something wrong in it, which is what is looked for
            found.sector = sector
            break
    return found


def check(session: Session, path: str, label_sector: int | None = None) -> None:
    """Headers and the committed text of every area; RefusedError if something is wrong."""
    target = opened(session, path, label_sector)
    try:
        found = dump_label(target.read, target.sector)
        areas = [_area(target, found, n) for n in range(1, len(found.mdas) + 1)]
    finally:
        target.tell_unreadable(session)
        target.device.close()
    for line in found.checks:
        session.say(line)
    if not found.has_label:
        raise RefusedError(f"Could not find LVM label on {path}")
    session.say(f"Found label on {path}, sector {target.sector}, type=LVM2 001")
    for mda in areas:
        if mda.good:
            session.say(f"Found text metadata area: offset={mda.start}, size={mda.size}")
    if found.checks:
        raise RefusedError(found.parse_error or "Command failed with status code 5.")


def _area(target: Device, found: Headers, number: int) -> MdaDump:
    """The area's header and its text's CRC; lines and complaints go to `found`."""
    mda = dump_mda(found, target.read, number, found.mdas[number - 1])
    _committed(target, found, mda)
    return mda


def _committed(target: Device, found: Headers, mda: MdaDump) -> bytes | None:
    """The committed text, without the NUL, if there is one that is in use."""
    locn = mda.current
    if locn.empty or locn.ignored:
        return None
    try:
        text = ring_text(target.read, mda, locn)
    except FormatError as error:
        found.check(error.message)
        return None
    at = mda.start + locn.offset
    right = lvm_crc(text) == locn.checksum
    if not right:
        found.check(
            f"metadata text at {at} crc does not match mda_header_{mda.number}.raw_locn[0].checksum"
        )
    try:
        parse_apart(text.rstrip(b"\0").decode("utf-8", errors="surrogateescape"))
    except FormatError as error:
        found.check(f"failed to parse metadata text at {at} size {locn.size}")
        found.parse_error = error.message
        return None
    summary = summary_of(text)
    if summary is None:
        if right:
            found.check(f"metadata text at {at} does not begin with a VG")
        return None
    found.show(
        f"metadata text at {at} crc 0x{lvm_crc(text):x} # vgname {summary[0]} seqno {summary[1]}"
    )
    return text.rstrip(b"\0")


def dump(
    session: Session,
    path: str,
    what: str,
    *,
    settings: Mapping[str, int | str],
    file: Path | None = None,
    copies: int | None = None,
    label_sector: int | None = None,
    verbose: bool = False,
) -> None:
    """Show one of `DUMPS`; texts go to `file` if one is given. RefusedError if something that is
    shown is damaged."""
    target = opened(session, path, label_sector)
    try:
        if what == "headers":
            _dump_headers(session, target)
        elif what == "metadata":
            _dump_metadata(session, target, settings, file)
        else:
            _dump_many(session, target, what, settings, file, copies=copies, verbose=verbose)
    finally:
        target.tell_unreadable(session)
        target.device.close()


def _dump_headers(session: Session, target: Device) -> None:
    found = dump_label(target.read, target.sector)
    damaged = False
    for number in range(1, len(found.mdas) + 1):
        before = len(found.checks)
        _area(target, found, number)
        damaged = damaged or len(found.checks) > before
    for line in found.lines:
        session.say(line)
    if not found.mdas:
        session.say("zero metadata copies")
    if damaged or (found.has_label and not found.label_good):
        raise RefusedError(_BAD)


def _number(settings: Mapping[str, int | str]) -> int:
    """0 is the first area too, as for LVM2."""
    return int(settings.get("mda_num", 1)) or 1


def _dump_metadata(
    session: Session, target: Device, settings: Mapping[str, int | str], file: Path | None
) -> None:
    found = dump_label(target.read, target.sector)
    number = _number(settings)
    if len(found.mdas) < number:
        _complain(session, found)
        session.say("zero metadata copies")
        return
    mda = dump_mda(found, target.read, number, found.mdas[number - 1])
    shown = len(found.lines)
    text = _committed(target, found, mda)
    _complain(session, found)
    if text is not None:
        for line in found.lines[shown:]:
            if not line.startswith("CHECK: "):
                session.say(line)
        if file is not None:
            _save(file, text)
        else:
            session.say("---")
            print(text.decode("utf-8", errors="surrogateescape"))
            session.say("---")
    if found.checks:
        raise RefusedError(_BAD)


def _complain(session: Session, found: Headers) -> None:
    for line in found.checks:
        session.say(line)


def _dump_many(
    session: Session,
    target: Device,
    what: str,
    settings: Mapping[str, int | str],
    file: Path | None,
    *,
    copies: int | None,
    verbose: bool,
) -> None:
    found = dump_label(target.read, target.sector)
    number = 2 if copies == 2 else _number(settings)
    searching = what == "metadata_search"
    if not searching and len(found.mdas) >= number:
        dump_mda(found, target.read, number, found.mdas[number - 1])
    _complain(session, found)
    if not searching and found.checks:
        raise RefusedError(_BAD)
    area = _area_to_search(session, target, found, settings, number)
    if area is None:
        return
    if what == "metadata_area":
        if file is None:
            raise RefusedError("Use --file to say where the metadata area is to be written.")
        _save(file, target.read(area.offset + MDA_HEADER_SIZE, area.size - MDA_HEADER_SIZE))
        return
    if searching:
        session.say(f"Searching for metadata at offset {area.offset} size {area.size}")
    texts = []
    for at, text in _search(target, area):
        summary = summary_of(text)
        assert summary is not None
        name, seqno, identity = summary
        session.say(
            f"metadata at {at} length {len(text)} crc {lvm_crc(text):08x} vg {name} "
            f"seqno {seqno} id {identity}"
        )
        if verbose:
            for line in text.decode("utf-8", errors="replace").splitlines():
                if line.startswith(("description = ", "creation_time = ")) and line[-1:] != "{":
                    session.say(line)
            print()
        texts.append(text.rstrip(b"\0"))
    if file is not None:
        _save(file, b"\n--\n".join(texts))


def _area_to_search(
    session: Session,
    target: Device,
    found: Headers,
    settings: Mapping[str, int | str],
    number: int,
) -> DiskLocn | None:
    if "mda_offset" in settings and "mda_size" in settings:
        area = DiskLocn(int(settings["mda_offset"]), int(settings["mda_size"]))
    elif len(found.mdas) >= number:
        area = found.mdas[number - 1]
    elif found.has_label:
        session.say("zero metadata copies")
        return None
    elif number == 1:
        area = _FIRST_AREA
        session.say(
            f"Using common defaults for first mda: offset {area.offset} size {area.size}.\n"
            'Override defaults with --settings "mda_offset=<bytes> mda_size=<bytes>"'
        )
    else:
        area = second_area(target.device.size)
        session.say(
            f"Using defaults for second mda: offset {area.offset} size {area.size}.\n"
            'Override defaults with --settings "mda_offset=<bytes> mda_size=<bytes>"'
        )
    size = min(area.size, target.device.size - area.offset)
    if size < MDA_HEADER_SIZE:
        raise RefusedError(f"Metadata area at offset {area.offset} is beyond the device.")
    return DiskLocn(area.offset, size)


def second_area(device_size: int) -> DiskLocn:
    """Where pvcreate puts the second metadata area without other wishes: the last whole MiB."""
    start = max(0, (device_size - _FIRST_AREA.size) // _MIB * _MIB)
    return DiskLocn(start, device_size - start)


def _search(target: Device, area: DiskLocn) -> Iterator[tuple[int, bytes]]:
    """(where on the device, text with its NUL) of every text in the ring, in the ring's order."""
    start, end = area.offset + MDA_HEADER_SIZE, area.offset + area.size
    at = start
    while at < end:
        chunk = target.read(at, min(_MIB, end - at))
        skip = len(chunk)
        for offset in range(0, len(chunk), SECTOR):
            head = chunk[offset : offset + 8 * SECTOR]
            if len(head) < 8 * SECTOR:
                head = target.read(at + offset, 8 * SECTOR)
            if summary_of(head) is None:
                continue
            text = _whole(target, at + offset, start, end)
            if text is not None:
                yield at + offset, text
                skip = offset + -(-len(text) // SECTOR) * SECTOR
                break
        if not skip:
            return
        at += skip


def _whole(target: Device, at: int, start: int, end: int) -> bytes | None:
    """The text from there to its NUL, around the ring's end if it goes on there."""
    text = bytearray()
    position = at
    while len(text) < min(MAX_TEXT, end - start):
        part = target.read(position, min(64 << 10, end - position))
        stop = part.find(b"\0")
        if stop >= 0:
            return bytes(text + part[: stop + 1])
        text += part
        position += len(part)
        if position >= end or not part:
            position = start
    return None


def _save(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise DeviceError(
            f"Cannot open file: {file}: {error.strerror}", errno=error.errno
        ) from None
