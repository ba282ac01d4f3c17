"""`dmsetup info`: a paragraph for each device, or a report of columns (dmsetup(8))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ulvm.cli.dmrequest import Request
from ulvm.dm_ioctl import DM_MAJOR, DeviceInfo, DeviceMapper
from ulvm.report.columns import ReportKind, choose, sort_keys
from ulvm.report.display import Layout, Report, render, sort_rows
from ulvm.report.dm_fields import DM_REPORT, DmRow
from ulvm.report.select import Selection, parse_selection
from ulvm.report.table import Field
from ulvm.report.units import SizeFormat
from ulvm.report.vocabulary import SELECTED

__all__ = ["chosen", "column_lines", "info_lines", "report_lines"]


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
    used = {field.name for field in _fields(request, DM_REPORT)}
    return report_lines(request, DM_REPORT, _rows(dm, devices, related=bool(used & _RELATED)))


def _fields(request: Request, kind: ReportKind) -> set[Field]:
    """All that the report looks at."""
    return {
        *choose(kind, _options(request), verbose=False),
        *_selection(request).fields,
        *(field for field, _ in _keys(request, kind)),
    }


def _options(request: Request) -> list[str]:
    return [request.options] if request.options else []


def _keys(request: Request, kind: ReportKind) -> list[tuple[Field, bool]]:
    return sort_keys(kind, request.sort) if request.sort else []


def report_lines(request: Request, kind: ReportKind, rows: Sequence[DmRow]) -> list[str]:
    """A report of `rows`, as `column_lines`."""
    fields = choose(kind, _options(request), verbose=False)
    selection, keys = _selection(request), _keys(request, kind)
    layout = Layout(
        SizeFormat(),
        headings=not request.noheadings,
        separator=request.between,
        aligned=not (request.separator is not None or request.noheadings or request.nameprefixes),
        name_prefixes=request.nameprefixes,
        prefix="DM_",
        unquoted=request.unquoted,
        rows=request.rows,
        indent="",
    )
    if SELECTED in fields:  # all are shown, with whether they are
        shown = sort_rows(rows, keys)
        numbers = {number for number, row in enumerate(shown) if selection(row)}
        return render(Report("dm", "", fields, shown, numbers), layout)
    return render(Report("dm", "", fields, sort_rows(filter(selection, rows), keys)), layout)


def chosen(request: Request, dm: DeviceMapper, devices: Sequence[DeviceInfo]) -> list[DeviceInfo]:
    """Those for which -S is true; all without it. RefusedError in dmsetup's words, HelpAsked."""
    if request.select is None:
        return list(devices)
    selection = _selection(request)
    related = any(field.name in _RELATED for field in selection.fields)
    return [row.info for row in _rows(dm, devices, related=related) if selection(row)]


def _selection(request: Request) -> Selection:
    return parse_selection(request.select, "", DM_REPORT.vocabulary)


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
