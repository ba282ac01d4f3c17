"""pvck --repair and --repairtype: headers and metadata written from a file that holds metadata.

Order: the label first, with its mark of use, then the text and after a flush the header that names
it. A cut in between leaves a PV that is in use and has no metadata, which is refused to others, or
old metadata; the same command once more finishes. Nothing is written while another program holds
the device, and only what the user has said yes to.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ulvm.blockdev.file import FileDevice
from ulvm.errors import FormatError, RefusedError
from ulvm.lvm.pvck import Device, opened, second_area
from ulvm.lvm.session import Session
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.dump import dump_label
from ulvm.metadata.label import DiskLocn, Label, PvHeader
from ulvm.metadata.mda import MAGIC, MDA_HEADER_SIZE, MdaHeader, RawLocn, max_text, ring_write
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.text import vg_from_text
from ulvm.metadata.uuid import format_uuid
from ulvm.units import SECTOR

__all__ = ["REPAIRS", "repair"]

REPAIRS = ("pv_header", "metadata", "label_header")
_MDA_START = 4096
_LABEL_HEADER = 32


@dataclass(frozen=True)
class _Input:
    """The file: its bytes with the NUL that ends a text, and the VG in it."""

    data: bytes
    vg: VolumeGroup


def repair(
    session: Session,
    path: str,
    what: str | None,
    *,
    settings: Mapping[str, int | str],
    file: Path | None,
    label_sector: int | None = None,
) -> None:
    """One of `REPAIRS`, or None: headers and metadata. RefusedError if that cannot be done, or the
    user says no."""
    given = None if file is None else _read(file)
    if what == "metadata" and given is None:
        raise RefusedError("Metadata input file is required.")
    # No command that changes the PV's group may come upon a half of it.
    group = nullcontext() if given is None else session.lock(given.vg.name)
    with session.lock_global(), group:
        target = opened(session, path, label_sector)
        try:
            if not session.host.trial:
                FileDevice(path, writable=True, claim=True).close()
            if what == "label_header":
                _write_label_header(session, target)
            if what in ("pv_header", None):
                _write_pv_header(session, target, given, settings)
            if what in ("metadata", None):
                assert given is not None
                _write_metadata(session, target, given)
        finally:
            target.device.close()


def _read(file: Path) -> _Input:
    try:
        data = file.read_bytes()
    except OSError:
        raise RefusedError(f"Cannot open file: {file}") from None
    try:
        vg = vg_from_text(data.rstrip(b"\0"))
    except FormatError as error:
        raise RefusedError(f"{error.message}\nInvalid raw text metadata in file.") from None
    return _Input(data.rstrip(b"\0") + b"\0", vg)


def _write(session: Session, target: Device, offset: int, data: bytes) -> None:
    if session.host.trial:
        session.warn("Skip writing in test mode.")
    device = session.host.opener(target.path, True)
    try:
        device.write(offset, data)
        device.flush()
    finally:
        device.close()


def _confirm(session: Session, target: Device, what: str) -> None:
    if not session.ask(f"Write new LVM {what} to {target.path}? "):
        raise RefusedError("Command failed with status code 5.")


# -- headers --------------------------------------------------------------------------------------


def _write_label_header(session: Session, target: Device) -> None:
    """What the label header says of itself is put right; the PV header behind it stays."""
    for line in dump_label(target.read, target.sector).checks:
        session.say(line)
    data = target.device.read(target.sector * SECTOR, SECTOR)
    tail = _LABEL_HEADER.to_bytes(4, "little") + b"LVM2 001" + data[_LABEL_HEADER:]
    crc = lvm_crc(tail)
    label = b"LABELONE" + target.sector.to_bytes(8, "little") + crc.to_bytes(4, "little") + tail
    session.say(f"Writing label_header.crc 0x{crc:08x}")
    _confirm(session, target, "header")
    _write(session, target, target.sector * SECTOR, label)


def _write_pv_header(
    session: Session, target: Device, given: _Input | None, settings: Mapping[str, int | str]
) -> None:
    found = dump_label(target.read, target.sector)
    for line in found.checks:
        session.say(line)
    if not found.has_label:
        session.warn(f"WARNING: No LVM label found on {target.path}.  It may not be an LVM device.")
    header = _wanted_header(session, target, given, settings)
    label = Label(target.sector, header).pack()
    first, second = [*header.metadata_areas, DiskLocn(0, 0), DiskLocn(0, 0)][:2]
    raw_uuid = header.uuid.replace("-", "")
    session.say(
        f"Writing label_header.crc 0x{int.from_bytes(label[16:20], 'little'):08x} pv_header uuid "
        f"{raw_uuid} device_size {header.device_size}"
    )
    session.say(
        f"Writing data_offset {header.pe_start} mda1_offset {first.offset} mda1_size {first.size} "
        f"mda2_offset {second.offset} mda2_size {second.size}"
    )
    _confirm(session, target, "header")
    _write(session, target, target.sector * SECTOR, label)


def _wanted_header(
    session: Session, target: Device, given: _Input | None, settings: Mapping[str, int | str]
) -> PvHeader:
    second = _second_area(session, target, settings)
    by_hand = {"pv_uuid", "device_size", "data_offset", "mda_offset", "mda_size"}
    if given is None and not by_hand <= settings.keys():
        raise RefusedError(
            "Metadata input file is needed for pv_header info.\n"
            "See pvck --dump to locate and create a metadata file."
        )
    pv = None if given is None else _entry(session, target, given.vg, settings)
    uuid = pv.uuid if pv is not None else format_uuid(str(settings["pv_uuid"]))
    device_size = int(settings.get("device_size", pv.dev_size * SECTOR if pv else 0))
    pe_start = int(settings.get("data_offset", pv.pe_start * SECTOR if pv else 0))
    areas = _wanted_areas(target, settings, pe_start, second)
    if pe_start <= 0 or pe_start > target.device.size:
        raise RefusedError(f"data_offset {pe_start} is beyond the device.")
    boot = (DiskLocn(pv.ba_start * SECTOR, pv.ba_size * SECTOR),) if pv and pv.ba_size else ()
    return PvHeader(
        uuid,
        device_size,
        data_areas=(DiskLocn(pe_start, 0),),
        metadata_areas=areas,
        bootloader_areas=boot,
        in_use=True,
    )


def _entry(
    session: Session, target: Device, vg: VolumeGroup, settings: Mapping[str, int | str]
) -> PhysicalVolume:
    """Which of the VG's PVs the device is: by the settings, its own label, or the path."""
    wanted = settings.get("pv_uuid")
    if wanted is None:
        raw = target.read(target.sector * SECTOR + _LABEL_HEADER, 32)
        try:
            wanted = format_uuid(raw.decode("ascii", errors="replace"))
        except FormatError:
            wanted = None
        if wanted is None or vg.pv(wanted) is None:
            named = [pv for pv in vg.pvs if pv.device == target.path]
            if not named:
                if not any(_has_magic(target, at) for at in _usual_areas(target)):
                    session.warn("WARNING: no previous metadata areas found on device.")
                raise RefusedError(
                    f"PV name {target.path} not found in metadata file.\n"
                    "No valid PV UUID, specify a PV UUID from metadata in --settings."
                )
            return named[0]
    else:
        wanted = format_uuid(str(wanted))
    pv = vg.pv(wanted)
    if pv is None:
        raise RefusedError(f"PV UUID {wanted} not found in metadata file.")
    return pv


def _usual_areas(target: Device) -> list[int]:
    return [_MDA_START, second_area(target.device.size).offset]


def _has_magic(target: Device, at: int) -> bool:
    return target.read(at + 4, 16) == MAGIC


def _second_area(
    session: Session, target: Device, settings: Mapping[str, int | str]
) -> DiskLocn | None:
    """That of the settings; else where one usually is, if there is one."""
    if "mda2_offset" in settings and "mda2_size" in settings:
        return DiskLocn(int(settings["mda2_offset"]), int(settings["mda2_size"]))
    usual = second_area(target.device.size)
    if "mda_offset" in settings or not _has_magic(target, usual.offset):
        return None
    session.say(f"Found mda2 header at offset {usual.offset} size {usual.size}")
    return usual


def _wanted_areas(
    target: Device,
    settings: Mapping[str, int | str],
    pe_start: int,
    second: DiskLocn | None,
) -> tuple[DiskLocn, ...]:
    offset = int(settings.get("mda_offset", _MDA_START))
    size = int(settings.get("mda_size", pe_start - offset))
    areas = [DiskLocn(offset, size)]
    if second is not None and second.offset > pe_start:
        areas.append(second)
    for area in areas:
        if not 0 < area.offset <= target.device.size - area.size or area.size < MDA_HEADER_SIZE:
            raise RefusedError(f"Metadata area at offset {area.offset} is beyond the device.")
    return tuple(areas)


# -- metadata -------------------------------------------------------------------------------------


def _write_metadata(session: Session, target: Device, given: _Input) -> None:
    """The file's text at the start of each ring, with a header that names it."""
    found = dump_label(target.read, target.sector)
    if not found.has_label or not found.mdas:
        for line in found.checks:
            session.say(line)
        raise RefusedError(
            "No lvm label found on device.\nSee --repairtype pv_header to repair headers."
        )
    for area in found.mdas:
        if not 0 < area.offset <= target.device.size - area.size:
            raise RefusedError(f"Metadata area at offset {area.offset} is beyond the device.")
        if len(given.data) > max_text(area.size):
            raise RefusedError(
                f"Metadata of {len(given.data)} bytes do not fit in an area of {area.size}."
            )
    locn = RawLocn.of_text(MDA_HEADER_SIZE, given.data)
    for number, area in enumerate(found.mdas, 1):
        session.say(
            f"Writing metadata at {area.offset + MDA_HEADER_SIZE} length {len(given.data)} "
            f"crc 0x{locn.checksum:08x} mda{number}"
        )
        session.say(f"Writing mda_header at {area.offset} mda{number}")
    _confirm(session, target, "metadata")
    for area in found.mdas:
        for start, part in ring_write(area.size, MDA_HEADER_SIZE, given.data):
            _write(session, target, area.offset + start, part)
        header = MdaHeader(area.offset, area.size, locn)
        _write(session, target, area.offset, header.pack())
