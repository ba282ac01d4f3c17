"""`dmsetup info`: a paragraph or a row for each device (dmsetup(8))."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ulvm.dm_ioctl import DeviceInfo
from ulvm.errors import UsageError

__all__ = ["column_lines", "info_lines"]

_DEFAULT_COLUMNS = "name,major,minor,attr,open,segments,events,uuid"


def _attributes(info: DeviceInfo) -> str:
    live = "L" if info.live_table else "-"
    inactive = "I" if info.inactive_table else "-"
    state = "s" if info.suspended else "-"
    return f"{live}{inactive}{state}{'r' if info.read_only else 'w'}"


_COLUMNS: dict[str, tuple[str, bool, Callable[[DeviceInfo], str]]] = {
    "name": ("Name", False, lambda i: i.name),
    "major": ("Maj", True, lambda i: str(i.major)),
    "minor": ("Min", True, lambda i: str(i.minor)),
    "attr": ("Stat", False, _attributes),
    "open": ("Open", True, lambda i: str(i.open_count)),
    "segments": ("Targ", True, lambda i: str(i.target_count)),
    "events": ("Event", True, lambda i: str(i.event_nr)),
    "uuid": ("UUID", False, lambda i: i.uuid),
    "suspended": ("Suspended", False, lambda i: "Suspended" if i.suspended else "Active"),
    "readonly": ("Read-only", False, lambda i: "Read-only" if i.read_only else "Writeable"),
    "devno": ("DevNo", False, lambda i: f"{i.major}:{i.minor}"),
    "size": ("Size", True, lambda i: str(i.size)),
}


def info_lines(info: DeviceInfo) -> Iterator[str]:
    """The paragraph, an empty line at its end."""
    slots = (("LIVE", info.live_table), ("INACTIVE", info.inactive_table))
    tables = [word for word, there in slots if there]
    read_only = " (READ-ONLY)" if info.read_only else ""
    yield f"Name:              {info.name}"
    yield f"State:             {'SUSPENDED' if info.suspended else 'ACTIVE'}{read_only}"
    yield "Read Ahead:        256"
    yield f"Tables present:    {' & '.join(tables) or 'None'}"
    yield f"Open count:        {info.open_count}"
    yield f"Event number:      {info.event_nr}"
    yield f"Major, minor:      {info.major}, {info.minor}"
    yield f"Number of targets: {info.target_count}"
    if info.uuid:
        yield f"UUID: {info.uuid}"
    yield ""


def column_lines(
    devices: Sequence[DeviceInfo], wanted: str | None, *, headings: bool, separator: str | None
) -> Iterator[str]:
    """`info -c -o WANTED`: aligned, or with a separator. UsageError for an unknown column."""
    names = (wanted or _DEFAULT_COLUMNS).split(",")
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown:
        raise UsageError(f"Unrecognised field: {unknown[0]}")
    columns = [_COLUMNS[name] for name in names]
    table = [[of(info) for _, _, of in columns] for info in devices]
    heads = [heading if headings else "" for heading, _, _ in columns]
    if separator is not None:
        yield from map(separator.join, ([heads] if headings else []) + table)
        return
    widths = [max(len(row[i]) for row in [heads, *table]) for i in range(len(columns))]
    if headings:
        yield " ".join(h.ljust(w) for h, w in zip(heads, widths, strict=True))
    for row in table:
        cells = zip(row, widths, columns, strict=True)
        yield " ".join(t.rjust(w) if right else t.ljust(w) for t, w, (_, right, _) in cells)
