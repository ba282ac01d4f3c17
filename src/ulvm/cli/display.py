"""pvdisplay."""

from __future__ import annotations

import os

import click

from ulvm.cli.columns_form import OrColumns
from ulvm.cli.context import Context, common_options, read_only_option
from ulvm.cli.processed import Processed
from ulvm.errors import UsageError
from ulvm.lvm.names import given_device
from ulvm.report import describe
from ulvm.report.rows import pv_rows
from ulvm.units import SECTOR, display_size

__all__ = ["pvdisplay"]


def _not_together(option: str, other: str) -> UsageError:
    return UsageError(f"Option {option} is not allowed with option {other}")


@click.command(cls=OrColumns)
@click.argument("names", nargs=-1, metavar="[PATH...]")
@click.option("-c", "--colon", is_flag=True, help="One line a PV, for programs.")
@click.option("-m", "--maps", is_flag=True, help="Also which volumes have the extents.")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="With -C: also devices that are none."
)
@click.option("-s", "--short", is_flag=True, help="Only the free space.")
@read_only_option
@common_options
@click.pass_obj
def pvdisplay(
    context: Context, names: tuple[str, ...], colon: bool, maps: bool, short: bool, everything: bool
) -> int:
    """Show physical volumes at length."""
    if everything:
        raise UsageError("Incompatible options selected")
    if colon and (short or maps):
        raise _not_together("-c", "-s" if short else "-m")
    session = context.session()
    show = context.console.display
    paths = [given_device(name, session.host.run_dir) for name in names]
    scan = session.scan(paths, unowned=True)
    segments = list(pv_rows(scan, by_segment=True))
    shown = set()
    processed = Processed(session)
    for row in pv_rows(scan):
        path = row.device.path if row.device else "[unknown]"
        if names and path not in paths:
            continue
        shown.add(path)
        with processed.device(path):
            if colon:
                show(describe.pv_colon(row))
            elif short:
                free = row.device.size // SECTOR if row.device else 0
                if row.vg is not None and row.pv is not None:
                    used = row.vg.allocated(row.pv.uuid)
                    free = (row.pv.pe_count - used) * row.vg.extent_size
                show([f'Device "{path}" has a capacity of {display_size(free)}'])
            else:
                show(describe.pv_lines(row))
                if maps and row.pv is not None:
                    own = [s for s in segments if s.device is row.device and s.pv_segment]
                    show(describe.pv_map(own))
    missing = [name for name, path in zip(names, paths, strict=True) if path not in shown]
    for name in missing:
        if os.path.exists(name):
            session.warn(f'Failed to find physical volume "{name}".')
        else:
            session.warn(f"Cannot use {name}: device not found")
    return 5 if missing else 0
