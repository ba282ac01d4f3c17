"""pvdisplay."""

from __future__ import annotations

import os
from typing import Any

import click

from ulvm.cli.arguments import select_option
from ulvm.cli.choose import no_such_pv, selected_pvs
from ulvm.cli.columns_form import OrColumns
from ulvm.cli.common_options import common_options, foreign_option, read_only_option, shared_option
from ulvm.cli.context import Context
from ulvm.cli.processed import Processed
from ulvm.errors import UsageError
from ulvm.lvm.names import given_device
from ulvm.report import describe
from ulvm.report.rows import pv_rows
from ulvm.report.units import parse_units
from ulvm.units import SECTOR

__all__ = ["pvdisplay"]


def _not_together(option: str, other: str) -> UsageError:
    return UsageError(f"Option {option} is not allowed with option {other}")


@click.command(cls=OrColumns)
@click.argument("names", nargs=-1, metavar="[PATH|@TAG...]")
@click.option("-c", "--colon", is_flag=True, help="One line a PV, for programs.")
@click.option("-m", "--maps", is_flag=True, help="Also which volumes have the extents.")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="With -C: also devices that are none."
)
@click.option("-s", "--short", is_flag=True, help="Only the free space.")
@click.option("-C", "--columns", is_flag=True, expose_value=False, help="As pvs, with its options.")
@click.option("--units", help="r (default), h, or one of bskmgtpe; capitals for 1000.")
@click.option("--nosuffix", is_flag=True, help="No unit behind sizes.")
@click.option("-o", "--options", multiple=True, help="With -C: columns.")
@click.option("-O", "--sort", help="With -C: sort by these columns.")
@click.option("--noheadings", is_flag=True, help="With -C: no line of headings.")
@click.option("--separator", help="With -C: between columns.")
@click.option("--aligned", is_flag=True, hidden=True)
@click.option("--binary", is_flag=True, hidden=True)
@click.option("--unbuffered", is_flag=True, hidden=True)
@click.option("--configreport", hidden=True)
@click.option("--logonly", is_flag=True, hidden=True)
@click.option("--ignorelockingfailure", is_flag=True, expose_value=False, hidden=True)
@shared_option
@select_option
@foreign_option
@read_only_option
@common_options
@click.pass_obj
def pvdisplay(
    context: Context,
    /,
    names: tuple[str, ...],
    colon: bool,
    maps: bool,
    short: bool,
    everything: bool,
    units: str | None,
    nosuffix: bool,
    select: str | None,
    **columns: Any,
) -> int:
    """Show physical volumes at length."""
    if everything or any(columns.values()):
        raise UsageError("Incompatible options selected")
    if colon and (short or maps):
        raise _not_together("-c", "-s" if short else "-m")
    config = context.host.config
    sizes = parse_units(
        config.get_str("global/units", "r") if units is None else units,
        suffix=not nosuffix and config.get_bool("global/suffix", True),
    )
    session = context.session()
    show = context.console.display
    devices = [name for name in names if not name.startswith("@")]
    paths = [given_device(name, session.host.run_dir) for name in devices]
    scan = session.scan(paths, unowned=True)
    segments = list(pv_rows(scan, by_segment=True))
    selected = None if select is None else selected_pvs(session, scan, select)
    tags = {name[1:] for name in names if name.startswith("@")}
    shown = set()
    processed = Processed(session)
    for row in pv_rows(scan, named=paths):
        path = row.device.path if row.device else "[unknown]"
        tagged = row.pv is not None and tags & {*row.pv.tags}
        if names and path not in paths and not tagged:
            continue
        shown.add(path)
        if selected is not None and row.pv_uuid not in selected:
            continue
        with processed.device(path):
            if row.vg is not None and "EXPORTED" in row.vg.status and not short:
                session.say(f'Physical volume "{path}" of volume group "{row.vg.name}" is exported')
            if colon:
                show(describe.pv_colon(row))
            elif short:
                free = row.device.size // SECTOR if row.device and not row.copy else 0
                if row.vg is not None and row.pv is not None:
                    used = row.vg.allocated(row.pv.uuid)
                    free = (row.pv.pe_count - used) * row.vg.extent_size
                show([f'Device "{path}" has a capacity of {sizes.long_text(free)}'])
            else:
                show(describe.pv_lines(row, sizes.long_text))
                if maps and row.copy:
                    show(["--- Physical Segments ---", " "])
                elif maps and row.pv is not None:
                    show(describe.pv_map([s for s in segments if s.pv is row.pv]))
                elif maps:
                    show([" "])
    missing = [name for name, path in zip(devices, paths, strict=True) if path not in shown]
    for name in missing:
        if os.path.exists(name):
            session.warn(no_such_pv(session, name))
        else:
            session.warn(f"Cannot use {name}: device not found")
    return 5 if missing else 0
