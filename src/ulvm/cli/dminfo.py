"""`dmsetup info`: a paragraph for each device, or a report of columns (dmsetup(8))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ulvm.cli.dmrequest import Request
from ulvm.dm_ioctl import DM_MAJOR, DeviceInfo, DeviceMapper
from ulvm.report.columns import choose, sort_keys
from ulvm.report.display import Layout, Report, render, sort_rows
from ulvm.report.dm_fields import DM_REPORT, DmRow
from ulvm.report.select import parse_selection
from ulvm.report.units import SizeFormat

__all__ = ["column_lines", "info_lines"]


def info_lines(info: DeviceInfo) -> Iterator[str]:
    """The paragraph, an empty line at its end."""
    slots = (("LIVE", info.live_table), ("INACTIVE", info.inactive_table))
    tables = [word for word, there in slots if there]
    read_only = " (READ-ONLY)" if info.read_only else ""
    yield f"Name:              {info.name}"
    yield f"State:             {'SUSPENDED' if info.suspended else 'ACTIVE'}{read_only}"
    if info.live_table or info.inactive_table:
        yield "Read Ahead:        256"
    yield f"Tables present:    {' & '.join(tables) or 'None'}"
    yield f"Open count:        {info.open_count}"
    yield f"Event number:      {info.event_nr}"
    yield f"Major, minor:      {info.major}, {info.minor}"
    yield f"Number of targets: {info.target_count}"
    if info.uuid:
        yield f"UUID: {info.uuid}"
    yield ""


def column_lines(request: Request, dm: DeviceMapper, devices: Sequence[DeviceInfo]) -> list[str]:
    """`info -c`. RefusedError in dmsetup's words, HelpAsked."""
    wanted = [] if request.options is None else [request.options]
    fields = choose(DM_REPORT, wanted, verbose=False)
    selection = parse_selection(request.select, "", DM_REPORT.vocabulary)
    keys = sort_keys(DM_REPORT, request.sort) if request.sort else []
    used = {field.name for field in (*fields, *selection.fields, *(of for of, _ in keys))}
    rows = _rows(dm, devices, related=bool(used & _RELATED))
    layout = Layout(
        SizeFormat(),
        headings=not request.noheadings,
        separator=request.separator or (":" if request.noheadings else " "),
        aligned=not (request.separator or request.noheadings or request.nameprefixes),
        name_prefixes=request.nameprefixes,
        prefix="DM_",
        unquoted=request.unquoted,
        rows=request.rows,
        indent="",
    )
    found = sort_rows(filter(selection, rows), keys)
    return render(Report("dm", "", fields, found), layout)


_RELATED = {
    entry.name
    for section in DM_REPORT.vocabulary.sections
    for entry in section.entries
    if section.all_name == "deps_all"
}


def _rows(dm: DeviceMapper, devices: Sequence[DeviceInfo], *, related: bool) -> list[DmRow]:
    """`related`: with what they stand on, and what stands on them."""
    if not related:
        return [DmRow(info) for info in devices]
    everything = sorted(dm.devices(), key=lambda info: info.name)
    deps = {info.name: dm.deps(info.name) for info in everything}
    names = {info.minor: info.name for info in everything}
    rows = []
    for info in devices:
        lower = [
            (major, minor, names.get(minor) if major == DM_MAJOR else dm.device_name(major, minor))
            for major, minor in deps.get(info.name, ())
        ]
        upper = [top for top in everything if (info.major, info.minor) in deps[top.name]]
        rows.append(DmRow(info, lower, upper))
    return rows
