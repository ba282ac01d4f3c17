"""lvs, vgs and pvs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from ulvm.cli.context import Context, common_options
from ulvm.errors import NotFoundError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import split_volume, vg_name
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.report.columns import DEFAULTS, choose, sort_keys
from ulvm.report.display import Layout, render, render_json, sort_rows
from ulvm.report.rows import Row, lv_rows, pv_rows, vg_rows
from ulvm.report.select import parse_selection
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
        click.option("--unbuffered", is_flag=True, hidden=True),
        click.option("--nameprefixes", is_flag=True, help="LVM2_NAME='value' for scripts."),
        click.option("--unquoted", is_flag=True, help="With --nameprefixes: no quotes."),
        click.option("--reportformat", type=click.Choice(["basic", "json"]), default="basic",
                     help="basic or json."),
        click.option("-P", "--partial", is_flag=True, hidden=True),
        click.option("--readonly", is_flag=True, hidden=True),
        click.option("--ignorelockingfailure", is_flag=True, hidden=True),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _show(context: Context, name: str, values: dict[str, Any], rows: Iterable[Row]) -> None:
    session = context.session()
    kind = DEFAULTS[name]
    fields = choose(kind, values["options"], verbose=context.verbose > 0)
    selected = parse_selection(values["select"], kind.prefix)
    units = values["units"] or session.host.config.get_str("global/units", "r")
    sizes = parse_units(units, suffix=not values["nosuffix"])
    found = sort_rows((r for r in rows if selected(r)), sort_keys(kind, values["sort"]))
    if values["reportformat"] == "json":
        lines = render_json(name, fields, found, sizes)
    else:
        layout = Layout(
            sizes,
            headings=not values["noheadings"],
            separator=values["separator"],
            aligned=values["aligned"],
            name_prefixes=values["nameprefixes"],
            unquoted=values["unquoted"],
        )
        lines = render(fields, found, layout)
    for line in lines:
        click.echo(line)


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


def _end(session: Session, failures: Sequence[str]) -> int:
    for sentence in failures:
        session.warn(sentence)
    return 5 if failures else 0


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|LV...]")
@click.option("-a", "--all", "hidden", is_flag=True, help="Also hidden volumes, in brackets.")
@click.option("--segments", is_flag=True, help="A row for each segment.")
@_report_options
@common_options
@click.pass_obj
def lvs(
    context: Context, /, names: tuple[str, ...], hidden: bool, segments: bool, **values: Any
) -> int:
    """List logical volumes."""
    session = context.session()
    scan = session.scan()
    name = "seg" if segments else "lv"
    kind = DEFAULTS[name]
    fields = choose(kind, values["options"], verbose=context.verbose > 0)
    by_segment = segments or any(f.group == "seg" for f in fields)
    wanted, only, failures = _named_volumes(session, scan, names)
    groups, broken = _groups(session, scan, wanted) if wanted or not names else ([], [])
    states = {vg.name: lvm_lv.states(session, vg) for vg in groups}
    rows = lv_rows(
        scan, groups, states, hidden=hidden or only is not None, by_segment=by_segment, only=only
    )
    _show(context, name, values, rows)
    return _end(session, [*broken, *failures])


def _named_volumes(
    session: Session, scan: Scan, names: Sequence[str]
) -> tuple[list[str], frozenset[tuple[str, str]] | None, list[str]]:
    """(VGs to look at, the volumes of them to show or None for all, sentences)."""
    wanted: list[str] = []
    only: set[tuple[str, str]] = set()
    whole: set[str] = set()
    failures: list[str] = []
    for name in names:
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
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-a", "--all", "hidden", is_flag=True, hidden=True)
@_report_options
@common_options
@click.pass_obj
def vgs(context: Context, /, names: tuple[str, ...], hidden: bool, **values: Any) -> int:
    """List volume groups."""
    session = context.session()
    scan = session.scan()
    groups, failures = _groups(session, scan, names)
    _show(context, "vg", values, vg_rows(scan, groups))
    return _end(session, failures)


@click.command()
@click.argument("names", nargs=-1, metavar="[PATH...]")
@click.option("-a", "--all", "hidden", is_flag=True, hidden=True)
@click.option("--segments", is_flag=True, help="A row for each run of extents.")
@_report_options
@common_options
@click.pass_obj
def pvs(
    context: Context, /, names: tuple[str, ...], hidden: bool, segments: bool, **values: Any
) -> int:
    """List physical volumes."""
    session = context.session()
    scan = session.scan([os.path.abspath(name) for name in names])
    fields = choose(DEFAULTS["pv"], values["options"], verbose=context.verbose > 0)
    by_segment = segments or any(f.group in ("seg", "pvseg", "lv") for f in fields)
    if segments and not values["options"]:
        values["options"] = ("+pvseg_start,pvseg_size",)
    rows = list(pv_rows(scan, by_segment=by_segment))
    failures = []
    if names:
        paths = {os.path.abspath(name): name for name in names}
        known = {row.device.path for row in rows if row.device}
        failures = [
            f'Failed to find physical volume "{name}".'
            if os.path.exists(path)
            else f"Cannot use {name}: device not found"
            for path, name in paths.items()
            if path not in known
        ]
        rows = [row for row in rows if row.device is not None and row.device.path in paths]
    _show(context, "pv", values, rows)
    return _end(session, failures)
