"""The fields of `dmsetup info -c` (dmsetup(8)): of one mapped device, and of those beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ulvm.activation.names import LVM_UUID_PREFIX
from ulvm.dm_ioctl import DM_MAJOR, READ_AHEAD, DeviceInfo
from ulvm.report.catalogue import DEVICES
from ulvm.report.columns import ReportKind
from ulvm.report.table import Field, Value
from ulvm.report.vocabulary import Vocabulary

__all__ = ["DM_REPORT", "NAME_REPORT", "DmRow", "block_name", "by_name", "mangled"]

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789#+-.:=@_")


def mangled(name: str) -> str:
    """As udev would have it: what is not plain as `\\\\x20` (libdevmapper, mangle_string)."""
    raw = name.encode(errors="surrogateescape")
    return "".join(chr(byte) if byte in _PLAIN else f"\\x{byte:02x}" for byte in raw)


def by_name(devices: Iterable[DeviceInfo]) -> list[DeviceInfo]:
    """In the order in which the kernel lists them, which knows mangled names."""
    return sorted(devices, key=lambda info: mangled(info.name))


def block_name(major: int, minor: int, path: str | None) -> str:
    """What the kernel calls a block device: `dm-0`, `vda`; a plain file is called by its path."""
    if major == DM_MAJOR:
        return f"dm-{minor}"
    return f"{major}:{minor}" if path is None else path.removeprefix("/dev/")


@dataclass(frozen=True, slots=True)
class DmRow:
    """`lower`: what its table uses, with the names of mapped devices and the paths of others;
    `upper`: the mapped devices whose tables use it, by name."""

    info: DeviceInfo
    lower: Sequence[tuple[int, int, str | None]] = ()
    upper: Sequence[DeviceInfo] = ()


_SEPARATOR = re.compile(r"--|-\Z|(-)")


def _part(number: int) -> Callable[[DmRow], Value]:
    """Of VG, LV and layer of a name that LVM gave; of any name as LVM2 reads it: two dashes are
    one of the part's own, and so is the last one."""

    def value(row: DmRow) -> Value:
        if not row.info.uuid.startswith(LVM_UUID_PREFIX):
            return ""
        marked = _SEPARATOR.sub(lambda m: "\0" if m[1] else "-", row.info.name)
        parts = marked.split("\0")
        return parts[number] if number < len(parts) else ""

    return value


def _attributes(row: DmRow) -> str:
    info = row.info
    live = "L" if info.live_table else "-"
    inactive = "I" if info.inactive_table else "-"
    return f"{live}{inactive}{'s' if info.suspended else '-'}{'r' if info.read_only else 'w'}"


def _tables(row: DmRow) -> str:
    if row.info.live_table:
        return "Both" if row.info.inactive_table else "Live"
    return "Inactive" if row.info.inactive_table else "None"


def _names(row: DmRow) -> str:
    return ",".join(name or "" for major, _, name in row.lower if major == DM_MAJOR)


_VALUES: tuple[tuple[str, str, int, Callable[[DmRow], Value]], ...] = (
    ("name", "Name", 16, lambda r: r.info.name),
    ("mangled_name", "MangledName", 16, lambda r: mangled(r.info.name)),
    ("unmangled_name", "UnmangledName", 16, lambda r: r.info.name),
    ("uuid", "UUID", 32, lambda r: r.info.uuid),
    ("mangled_uuid", "MangledUUID", 32, lambda r: mangled(r.info.uuid)),
    ("unmangled_uuid", "UnmangledUUID", 32, lambda r: r.info.uuid),
    ("read_ahead", "RAhead", 6, lambda r: READ_AHEAD),
    ("blkdevname", "BlkDevName", 16, lambda r: f"dm-{r.info.minor}"),
    ("attr", "Stat", 4, _attributes),
    ("tables_loaded", "Tables", 6, _tables),
    ("suspended", "Suspended", 0, lambda r: "Suspended" if r.info.suspended else "Active"),
    ("readonly", "Read-only", 0, lambda r: "Read-only" if r.info.read_only else "Writeable"),
    ("devno", "DevNo", 5, lambda r: f"{r.info.major}:{r.info.minor}"),
    ("major", "Maj", 3, lambda r: r.info.major),
    ("minor", "Min", 3, lambda r: r.info.minor),
    ("open", "Open", 4, lambda r: r.info.open_count),
    ("segments", "Targ", 4, lambda r: r.info.target_count),
    ("events", "Event", 6, lambda r: r.info.event_nr),
    ("device_count", "#Devs", 5, lambda r: len(r.lower)),
    ("devs_used", "DevNamesUsed", 16, _names),
    ("devnos_used", "DevNosUsed", 16, lambda r: ",".join(f"{a}:{b}" for a, b, _ in r.lower)),
    ("blkdevs_used", "BlkDevNamesUsed", 16,
     lambda r: ",".join(block_name(a, b, name) for a, b, name in r.lower)),
    ("device_ref_count", "#Refs", 5, lambda r: len(r.upper)),
    ("names_using_dev", "RefNames", 5, lambda r: ",".join(u.name for u in r.upper)),
    ("devnos_using_dev", "RefDevNos", 9,
     lambda r: ",".join(f"{u.major}:{u.minor}" for u in r.upper)),
    ("subsystem", "Subsys", 6,
     lambda r: "LVM" if r.info.uuid.startswith(LVM_UUID_PREFIX) else ""),
    ("vg_name", "VG", 4, _part(0)),
    ("lv_name", "LV", 4, _part(1)),
    ("lv_layer", "LVLayer", 7, _part(2)),
)  # fmt: skip

_TYPES = {entry.name: entry.type for section in DEVICES for entry in section.entries}

_SECTION = {entry.name: section.all_name for section in DEVICES for entry in section.entries}

_FIELDS = Vocabulary(
    DEVICES,
    {
        name: Field(
            name,
            heading,
            _TYPES[name],
            max(width, len(heading)),
            value,
            _SECTION[name],
            _TYPES[name],
        )
        for name, heading, width, value in _VALUES
    },
    groups={section.all_name: (section.all_name,) for section in DEVICES},
)

_DEFAULT = "name,major,minor,attr,open,segments,events,uuid"

DM_REPORT = ReportKind("dm", "", _DEFAULT, _DEFAULT, "", tuple(_SECTION.values()), _FIELDS)
"""`dmsetup info -c`; its fields are of `DmRow`s."""

NAME_REPORT = DM_REPORT._replace(
    columns="vg_name,lv_name,lv_layer",
    verbose="vg_name,lv_name,lv_layer",
    groups=("splitname_all",),
)
"""`dmsetup splitname`."""
