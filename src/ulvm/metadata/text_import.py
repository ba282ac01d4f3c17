"""Text to volume group: the reader of LVM2's metadata text.

What a reader must not accept silently: an unknown `status` word, a name that is no name, extents
that do not add up. Each is a FormatError that names the VG, the LV and the trouble. A segment of
an unknown type becomes an `UnknownSegment`, with which the VG can be read and never be written.
Unknown `flags` words and unknown keys are dropped, as LVM drops them at its next write; so is the
history of thin volumes that were removed, once no thin volume is left that came from them. What LVM
would keep and this model cannot (lock arguments) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from ulvm.errors import FormatError
from ulvm.metadata.check import check_vg
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    MirrorSegment,
    PhysicalVolume,
    Segment,
    SimpleSegment,
    SnapshotSegment,
    StripedSegment,
    UnknownSegment,
    VolumeGroup,
)
from ulvm.metadata.names import check_stored_name
from ulvm.metadata.text_words import (
    CONTENTS,
    FORMAT_VERSION,
    INT64,
    LV_FLAGS,
    LV_STATUS,
    POLICIES,
    PV_FLAGS,
    PV_STATUS,
    UINT32,
    VG_FLAGS,
    VG_STATUS,
    TextHeader,
)
from ulvm.metadata.tree import Section, Value, parse_apart
from ulvm.metadata.uuid import format_uuid, parse_uuid

__all__ = ["vg_and_header", "vg_from_text"]

_TYPE_NAME = re.compile(r"[A-Za-z0-9_+.-]{1,64}")
_FORMAT = "lvm2"
_T = TypeVar("_T", int, str)


def vg_from_text(text: str | bytes) -> VolumeGroup:
    """The volume group of a text in either form; FormatError with one sentence."""
    return vg_and_header(text)[0]


def vg_and_header(text: str | bytes) -> tuple[VolumeGroup, TextHeader]:
    """The volume group of a text in either form, and who wrote it. The first section is the VG,
    its key the name, which may be that of a value of the header. FormatError with one sentence."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="surrogateescape")
    values, sections = parse_apart(text)
    header = _header(values)
    found = next(iter(sections.items()), None)
    if found is None:
        raise FormatError("Couldn't find volume group in metadata.")
    return _group(*found), header


def _header(values: Section) -> TextHeader:
    """FormatError if the text is not a volume group of a version we know."""
    where = "metadata"
    if _get(values, "contents", str, where, "") != CONTENTS:
        raise FormatError("This is not a volume group: its contents field is missing or different.")
    version = _get(values, "version", int, where, 0)
    if version != FORMAT_VERSION:
        raise FormatError(f"Metadata version {version} is not supported.")
    return TextHeader(
        description=_get(values, "description", str, where, ""),
        creation_host=_get(values, "creation_host", str, where, ""),
        creation_time=_get(values, "creation_time", int, where, 0),
        system="",
        generator="",
        system_id=_get(values, "creation_host_system_id", str, where, ""),
    )


def _group(name: str, section: Section) -> VolumeGroup:
    check_stored_name("volume group", name)
    where = f"volume group {name}"
    if "lock_args" in section:
        raise FormatError(f"VG {name} has lock_args, which is not supported.")
    lock_type = _get(section, "lock_type", str, where, "none")
    if lock_type != "none":
        raise FormatError(f"VG {name} has lock_type {lock_type}, which is not supported.")
    form = _get(section, "format", str, where, _FORMAT)
    if form != _FORMAT:
        raise FormatError(f"Unrecognised format {form[:64]} for volume group {name}.")
    pvs: list[PhysicalVolume] = []
    keys: dict[str, str] = {}
    for key, value in _section(section, "physical_volumes", where).items():
        if not isinstance(value, dict):
            continue
        pv = _read_pv(value, f"physical volume {key} of VG {name}")
        keys[key] = pv.uuid
        pvs.append(pv)
    lvs: list[LogicalVolume] = []
    if "logical_volumes" in section:
        volumes = {
            key: value
            for key, value in _section(section, "logical_volumes", where).items()
            if isinstance(value, dict)
        }
        for key in volumes:
            check_stored_name("logical volume", key)
        holders = _Holders(keys, frozenset(volumes))
        for key, value in volumes.items():
            lvs.append(_read_lv(key, value, name, holders))
    vg = VolumeGroup(
        name=name,
        uuid=_uuid(section, where),
        extent_size=_number(section, "extent_size", where, most=UINT32, least=1),
        seqno=_number(section, "seqno", where, most=UINT32),
        status=_unlocked(_status(section, VG_STATUS, where), section, where),
        flags=_flags(section, VG_FLAGS, where),
        tags=_tags(section, where),
        system_id=_get(section, "system_id", str, where, "") or None,
        max_lv=_number(section, "max_lv", where, 0, most=UINT32),
        max_pv=_number(section, "max_pv", where, 0, most=UINT32),
        allocation_policy=_policy(section, "normal", where),
        metadata_copies=_number(section, "metadata_copies", where, 0, most=UINT32),
        profile=_get(section, "profile", str, where, "") or None,
        pvs=tuple(pvs),
        lvs=tuple(lvs),
    )
    check_vg(vg)
    return vg


def _read_pv(section: Section, where: str) -> PhysicalVolume:
    flags = _flags(section, PV_FLAGS, where)
    status = _words(section, "status", where)
    if "MISSING" in status:  # old releases wrote it here
        flags |= {"MISSING"}
        section = {**section, "status": sorted(status - {"MISSING"})}
    return PhysicalVolume(
        uuid=_uuid(section, where),
        device=_get(section, "device", str, where, ""),
        dev_size=_number(section, "dev_size", where, 0),
        pe_start=_number(section, "pe_start", where),
        pe_count=_number(section, "pe_count", where, most=UINT32),
        status=_status(section, PV_STATUS, where),
        flags=flags,
        tags=_tags(section, where),
        device_id_type=_get(section, "device_id_type", str, where, "") or None,
        device_id=_get(section, "device_id", str, where, "") or None,
        ba_start=_number(section, "ba_start", where, 0),
        ba_size=_number(section, "ba_size", where, 0),
    )


class _Holders(NamedTuple):
    """What an area can lie on: PVs by their key in the text, volumes by name."""

    pvs: dict[str, str]
    lvs: frozenset[str]


def _read_lv(name: str, section: Section, vg_name: str, holders: _Holders) -> LogicalVolume:
    where = f"logical volume {vg_name}/{name}"
    if "lock_args" in section:
        raise FormatError(f"LV {vg_name}/{name} has lock_args, which is not supported.")
    count = _number(section, "segment_count", where, most=UINT32)
    children = [v for v in section.values() if isinstance(v, dict)]
    if count != len(children):
        raise FormatError(
            f"segment_count of {where} is {count}, but there are {len(children)} segments."
        )
    status = _unlocked(_status(section, LV_STATUS, where), section, where)
    segments: list[Segment] = []
    for number in range(1, count + 1):
        child = _section(section, f"segment{number}", where)
        moving = "PVMOVE" in status
        segments.append(_read_segment(child, f"segment{number} of {where}", holders, moving))
    segments.sort(key=lambda s: s.start_extent)
    # 0 is an old spelling of "auto".
    read_ahead = _number(section, "read_ahead", where, 0, most=UINT32, least=-1) or None
    fixed = "FIXED_MINOR" in status
    return LogicalVolume(
        name=name,
        uuid=_uuid(section, where),
        segments=tuple(segments),
        status=status,
        flags=_flags(section, LV_FLAGS, where),
        tags=_tags(section, where),
        creation_time=_number(section, "creation_time", where, 0),
        creation_host=_get(section, "creation_host", str, where, ""),
        allocation_policy=_policy(section, "inherit", where),
        read_ahead=read_ahead,
        major=_number(section, "major", where, 0, most=UINT32) if fixed else None,
        minor=_number(section, "minor", where, 0, most=UINT32) if fixed else None,
        profile=_get(section, "profile", str, where, "") or None,
    )


def _read_segment(section: Section, where: str, holders: _Holders, moving: bool) -> Segment:
    start = _number(section, "start_extent", where, most=UINT32)
    count = _number(section, "extent_count", where, most=UINT32, least=1)
    tags = _tags(section, where)
    kind = _get(section, "type", str, where, "striped")
    if kind in {"striped", "linear"}:
        areas = _read_areas(section, where, holders, "stripe")
        if count % len(areas):
            raise FormatError(f"{where} has {count} extents for {len(areas)} stripes.")
        size = 0
        if len(areas) > 1:
            size = _number(section, "stripe_size", where, most=UINT32, least=1)
        return StripedSegment(start, count, areas, size, tags)
    if kind == "snapshot":
        stores = [k for k in ("cow_store", "merging_store") if k in section]
        if len(stores) != 1:
            raise FormatError(f"{where} needs one of cow_store and merging_store.")
        return SnapshotSegment(
            start,
            count,
            chunk_size=_number(section, "chunk_size", where, most=UINT32, least=1),
            origin=_get(section, "origin", str, where),
            cow=_get(section, stores[0], str, where),
            merging=stores[0] == "merging_store",
            tags=tags,
        )
    if kind in {"zero", "error"}:
        return SimpleSegment(start, count, kind, tags)
    if kind == "mirror" and moving and "mirror_log" not in section:
        return MirrorSegment(
            start,
            count,
            _read_areas(section, where, holders, "mirror"),
            region_size=_number(section, "region_size", where, most=UINT32, least=1),
            extents_moved=_number(section, "extents_moved", where, 0, most=count),
            tags=tags,
        )
    if not _TYPE_NAME.fullmatch(kind):
        raise FormatError(f"{where} has the malformed segment type {kind[:64]!r}.")
    return UnknownSegment(start, count, kind, tags)


def _read_areas(section: Section, where: str, holders: _Holders, kind: str) -> tuple[Area, ...]:
    """`kind`: stripe or mirror, as the keys have it."""
    count = _number(section, f"{kind}_count", where, most=UINT32, least=1)
    value = section.get(f"{kind}s")
    if not isinstance(value, list) or len(value) != 2 * count:
        raise FormatError(f"{where} needs {count} pairs in its {kind}s list.")
    areas = []
    for key, pe in zip(value[::2], value[1::2], strict=True):
        if not isinstance(key, str) or not isinstance(pe, int) or not 0 <= pe <= UINT32:
            raise FormatError(f"{where} has a malformed entry in its {kind}s list.")
        if key in holders.pvs:
            areas.append(Area(holders.pvs[key], pe))
        elif key in holders.lvs:
            areas.append(Area("", pe, key))
        else:
            raise FormatError(f"{where} refers to {key!r}, which is not a physical volume.")
    return tuple(areas)


def _section(parent: Section, key: str, where: str) -> Section:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise FormatError(f"Couldn't find section '{key}' of {where}.")
    return value


def _get(section: Section, key: str, kind: type[_T], where: str, default: _T | None = None) -> _T:
    value = section.get(key, default)
    if value is None:
        raise FormatError(f"Couldn't read '{key}' for {where}.")
    if not isinstance(value, kind):
        raise FormatError(f"'{key}' of {where} is not {'a number' if kind is int else 'a string'}.")
    return value


def _number(
    section: Section,
    key: str,
    where: str,
    default: int | None = None,
    *,
    most: int = INT64,
    least: int = 0,
) -> int:
    value = _get(section, key, int, where, default)
    if not least <= value <= most:
        raise FormatError(f"'{key}' of {where} is {value}, which is out of range.")
    return value


def _uuid(section: Section, where: str) -> str:
    text = _get(section, "id", str, where)
    try:
        return format_uuid(parse_uuid(text))
    except FormatError as error:
        raise FormatError(f"Couldn't read uuid for {where}: {error.message}") from error


def _words(section: Section, key: str, where: str, default: Value | None = None) -> set[str]:
    value = section.get(key, default)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise FormatError(f"Couldn't read '{key}' for {where}: it is not a list of strings.")
    return {str(v) for v in value}


def _status(section: Section, known: Iterable[str], where: str) -> frozenset[str]:
    words = _words(section, "status", where)
    unknown = sorted(words.difference(known))
    if unknown:
        raise FormatError(f"Unknown status flag '{unknown[0][:64]}' in {where}.")
    return frozenset(words)


def _flags(section: Section, known: Iterable[str], where: str) -> frozenset[str]:
    return frozenset(_words(section, "flags", where, []).intersection(known) - {"WRITE_LOCKED"})


def _unlocked(status: frozenset[str], section: Section, where: str) -> frozenset[str]:
    """WRITE_LOCKED is what WRITE is called in a VG with a system ID: releases of LVM2 that do not
    know of these see a VG that may not be written."""
    locked = "WRITE_LOCKED" in _words(section, "flags", where, [])
    return status | {"WRITE"} if locked else status


def _tags(section: Section, where: str) -> tuple[str, ...]:
    value = section.get("tags", [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise FormatError(f"Couldn't read tags for {where}.")
    return tuple(str(v) for v in value)


def _policy(section: Section, default: str, where: str) -> str:
    policy = _get(section, "allocation_policy", str, where, default)
    if policy not in POLICIES:
        raise FormatError(f"Unknown allocation policy {policy[:64]!r} in {where}.")
    return policy
