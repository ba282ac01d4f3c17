"""lvs, vgs and pvs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from ulvm.cli.arguments import OneOf
from ulvm.cli.context import Context, common_options, read_only_option
from ulvm.errors import NotFoundError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import split_volume, vg_name
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_tag
from ulvm.report.columns import DEFAULTS, ReportKind, choose, compacted, rows_of, sort_keys
from ulvm.report.display import Layout, render, render_json, sort_rows
from ulvm.report.fields import Field
from ulvm.report.rows import Row, lv_rows, pv_rows, vg_lv_rows, vg_rows
from ulvm.report.select import Selection, parse_selection
from ulvm.report.units import parse_units
from ulvm.vgstore.scan import Scan

__all__ = ["lvs", "pvs", "vgs"]

_F = TypeVar("_F", bound=Callable[..., Any])


def _report_options(function: _F) -> _F:
    options = [
        click.option("-o", "--options", multiple=True, help="Columns; +col adds, -col removes."),
        click.option("-O", "--sort", help="Sort by these columns; -col descending."),
        click.option("-S", "--select", help="Only rows for which this is true."),
        click.option("--noheadings", is_flag=True, help="No line of headings."),
        click.option("--units", help="r (default), h, or one of bskmgtpe; capitals for 1000."),
        click.option("--nosuffix", is_flag=True, help="No unit behind sizes."),
        click.option("--separator", help="Between columns, instead of padding."),
        click.option("--aligned", is_flag=True, help="Pad columns with --separator, too."),
        click.option("--rows", is_flag=True, help="A line for each column."),
        click.option("--binary", is_flag=True, help="Yes and no as 1 and 0, unknown as -1."),
        click.option("--unbuffered", is_flag=True, hidden=True),
        click.option("--nameprefixes", is_flag=True, help="LVM2_NAME='value' for scripts."),
        click.option("--unquoted", is_flag=True, help="With --nameprefixes: no quotes."),
        click.option("--reportformat", type=OneOf("basic", "json"), help="basic or json."),
        click.option("-P", "--partial", is_flag=True, hidden=True),
        read_only_option,
        click.option("--ignorelockingfailure", is_flag=True, hidden=True),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class _Request:
    """What a report is asked for: its options, over the settings of the section `report`."""

    kind: ReportKind
    fields: list[Field]
    selected: Selection
    keys: list[tuple[Field, bool]]
    layout: Layout
    json: bool

    @property
    def rows(self) -> str:
        """lv, seg, vg, pv or pvseg."""
        used = (*self.fields, *self.selected.fields, *(field for field, _ in self.keys))
        return rows_of(self.kind, used)

    def show(self, rows: Iterable[Row]) -> None:
        found = sort_rows(filter(self.selected, rows), self.keys)
        if self.json:
            lines = render_json(self.kind.name, self.fields, found, self.layout.sizes)
        else:
            lines = render(self.fields, found, self.layout)
        for line in lines:
            click.echo(line)


def _request(context: Context, name: str, values: dict[str, Any]) -> _Request:
    config = context.host.config
    kind = DEFAULTS[name].with_settings(config.get_str)
    fields = choose(kind, values["options"], verbose=context.verbose > 0)
    compact = compacted(kind, values["options"])
    if config.get_bool("report/compact_output", False):
        compact = fields
    units = values["units"]
    sizes = parse_units(
        config.get_str("global/units", "r") if units is None else units,
        suffix=not values["nosuffix"] and config.get_bool("global/suffix", True),
        binary=values["binary"] or config.get_bool("report/binary_values_as_numeric", False),
    )
    separator = values["separator"]
    if separator is None:
        separator = config.get_str("report/separator", " ")
        separator = None if separator == " " else separator
    layout = Layout(
        sizes,
        headings=not values["noheadings"] and config.get_bool("report/headings", True),
        separator=separator,
        aligned=values["aligned"],
        name_prefixes=values["nameprefixes"] or config.get_bool("report/prefixes", False),
        unquoted=values["unquoted"] or not config.get_bool("report/quoted", True),
        rows=values["rows"] or config.get_bool("report/columns_as_rows", False),
        compact=compact,
    )
    form = values["reportformat"] or config.get_str("report/output_format", "basic")
    selected = parse_selection(values["select"], kind.prefix)
    return _Request(kind, fields, selected, sort_keys(kind, values["sort"]), layout, form == "json")


def _groups(
    session: Session, scan: Scan, names: Sequence[str]
) -> tuple[list[VolumeGroup], list[str]]:
    """The VGs that are named, or all; and what cannot be shown."""
    groups: list[VolumeGroup] = []
    failures: list[str] = []
    for name in names or [*(vg.name for vg in scan.vgs), *scan.broken]:
        try:
            groups.append(scan.vg(vg_name(name, session.host.run_dir)))
        except NotFoundError as error:
            failures.append(f"{error.message}\nCannot process volume group {name}")
        except UlvmError as error:
            failures.append(error.message)
    return groups, failures


def _warned(session: Session, failures: Sequence[str]) -> int:
    for sentence in failures:
        session.warn(sentence)
    return 5 if failures else 0


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|LV|@TAG...]")
@click.option("-a", "--all", "hidden", is_flag=True, help="Also hidden volumes, in brackets.")
@click.option("--segments", is_flag=True, help="A row for each segment.")
@_report_options
@common_options
@click.pass_obj
def lvs(
    context: Context, /, names: tuple[str, ...], hidden: bool, segments: bool, **values: Any
) -> int:
    """List logical volumes."""
    request = _request(context, "seg" if segments else "lv", values)
    by_segment = request.rows == "seg"
    session = context.session()
    scan = session.scan()
    wanted, only, failures = _named_volumes(session, scan, names)
    groups, broken = _groups(session, scan, wanted) if wanted or not names else ([], [])
    exported = [vg.name for vg in groups if "EXPORTED" in vg.status]
    groups = [vg for vg in groups if vg.name not in exported]
    if names:
        failures += [f"Volume group {name} is exported" for name in exported]
    states = {vg.name: lvm_lv.states(session, vg) for vg in groups}
    status = _warned(session, [*broken, *failures])
    request.show(
        lv_rows(
            scan,
            groups,
            states,
            hidden=hidden or only is not None,
            by_segment=by_segment,
            only=only,
        )
    )
    return status


def _named_volumes(
    session: Session, scan: Scan, names: Sequence[str]
) -> tuple[list[str], frozenset[tuple[str, str]] | None, list[str]]:
    """(VGs to look at, the volumes of them to show or None for all, sentences)."""
    wanted: list[str] = []
    only: set[tuple[str, str]] = set()
    whole: set[str] = set()
    failures: list[str] = []
    for name in names:
        if name.startswith("@"):
            tag = check_tag(name[1:])
            whole |= {vg.name for vg in scan.vgs if tag in vg.tags}
            tagged = {(g.name, lv.name) for g in scan.vgs for lv in g.lvs if tag in lv.tags}
            only |= tagged
            wanted += sorted(whole | {group for group, _ in tagged})
            continue
        group, volume = split_volume(name, session.host.run_dir)
        if volume is None:
            whole.add(group)
        else:
            found = next((vg for vg in scan.vgs if vg.name == group), None)
            if found is not None:
                lv = found.lv(volume)
                if lv is None or lv.snapshot_segment is not None:
                    failures.append(f'Failed to find logical volume "{group}/{volume}"')
                    continue
                only.add((group, volume))
        wanted.append(group)
    wanted = list(dict.fromkeys(wanted))
    if not only:
        return wanted, None, failures
    for vg in scan.vgs:
        if vg.name in whole:
            only |= {(vg.name, lv.name) for lv in vg.visible_lvs()}
    return wanted, frozenset(only), failures


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|@TAG...]")
@click.option("-a", "--all", "hidden", is_flag=True, hidden=True)
@_report_options
@common_options
@click.pass_obj
def vgs(context: Context, /, names: tuple[str, ...], hidden: bool, **values: Any) -> int:
    """List volume groups."""
    request = _request(context, "vg", values)
    session = context.session()
    scan = session.scan()
    tags = {check_tag(name[1:]) for name in names if name.startswith("@")}
    named = [name for name in names if not name.startswith("@")]
    named += [vg.name for vg in scan.vgs if tags & set(vg.tags) and vg.name not in named]
    groups, failures = _groups(session, scan, named) if named or not names else ([], [])
    status = _warned(session, failures)
    request.show(_rows_of_groups(session, scan, groups, request.rows))
    return status


def _rows_of_groups(
    session: Session, scan: Scan, groups: Sequence[VolumeGroup], rows: str
) -> Iterable[Row]:
    if rows in ("lv", "seg"):
        states = {vg.name: lvm_lv.states(session, vg) for vg in groups}
        return vg_lv_rows(scan, groups, states, by_segment=rows == "seg")
    if rows in ("pv", "pvseg"):
        shown = {vg.name for vg in groups}
        return (r for r in pv_rows(scan, by_segment=rows == "pvseg") if r.vg and r.vg.name in shown)
    return vg_rows(scan, groups)


@click.command()
@click.argument("names", nargs=-1, metavar="[PATH|@TAG...]")
@click.option("-a", "--all", "hidden", is_flag=True, hidden=True)
@click.option("--segments", is_flag=True, help="A row for each run of extents.")
@_report_options
@common_options
@click.pass_obj
def pvs(
    context: Context, /, names: tuple[str, ...], hidden: bool, segments: bool, **values: Any
) -> int:
    """List physical volumes."""
    if segments and not values["options"]:
        values["options"] = ("+pvseg_start,pvseg_size",)
    request = _request(context, "pv", values)
    session = context.session()
    tags = {check_tag(name[1:]) for name in names if name.startswith("@")}
    paths = {os.path.abspath(name): name for name in names if not name.startswith("@")}
    scan = session.scan(paths)
    rows = list(pv_rows(scan, by_segment=segments or request.rows == "pvseg"))
    known = {row.device.path for row in rows if row.device}
    failures = [
        f'Failed to find physical volume "{name}".'
        if os.path.exists(path)
        else f"Cannot use {name}: device not found"
        for path, name in paths.items()
        if path not in known
    ]
    if names:
        rows = [
            row
            for row in rows
            if (row.device is not None and row.device.path in paths)
            or (row.pv is not None and tags & set(row.pv.tags))
        ]
    status = _warned(session, failures)
    request.show(rows)
    return status
