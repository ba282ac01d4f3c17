"""vgdisplay and pvdisplay."""

from __future__ import annotations

import os
from collections.abc import Iterable

import click

from ulvm.cli.columns_form import OrColumns
from ulvm.cli.context import Context, common_options, read_only_option
from ulvm.errors import NotFoundError, UlvmError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import vg_name
from ulvm.report import describe
from ulvm.report.rows import pv_rows
from ulvm.units import SECTOR, display_size

__all__ = ["pvdisplay", "vgdisplay"]


def _not_together(option: str, other: str) -> UsageError:
    return UsageError(f"Option {option} is not allowed with option {other}")


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"  {line}")


@click.command(cls=OrColumns)
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-c", "--colon", is_flag=True, help="One line a VG, for programs.")
@click.option("-s", "--short", is_flag=True, help="One line a VG, for people.")
@read_only_option
@common_options
@click.pass_obj
def vgdisplay(context: Context, names: tuple[str, ...], colon: bool, short: bool) -> int:
    """Show volume groups at length; with -v their volumes and devices, too."""
    if colon and short:
        raise _not_together("-c", "-s")
    session = context.session()
    scan = session.scan()
    status = 0
    for name in names or [*(vg.name for vg in scan.vgs), *scan.broken]:
        try:
            vg = scan.vg(vg_name(name, session.host.run_dir))
        except UlvmError as error:
            session.warn(error.message)
            if isinstance(error, NotFoundError):
                session.warn(f"Cannot process volume group {name}")
            status = error.exit_code
            continue
        states = lvm_lv.states(session, vg)
        if colon:
            _show([describe.vg_colon(vg, states)])
        elif short:
            _show([describe.vg_short(vg)])
        else:
            _show(describe.vg_lines(scan, vg, states))
            if context.verbose:
                for lv in vg.lvs:
                    if vg.is_visible(lv):
                        _show(describe.lv_lines(vg, lv, states))
                _show(describe.vg_pv_lines(scan, vg))
    return status


@click.command(cls=OrColumns)
@click.argument("names", nargs=-1, metavar="[PATH...]")
@click.option("-c", "--colon", is_flag=True, help="One line a PV, for programs.")
@click.option("-m", "--maps", is_flag=True, help="Also which volumes have the extents.")
@click.option("-s", "--short", is_flag=True, help="Only the free space.")
@read_only_option
@common_options
@click.pass_obj
def pvdisplay(
    context: Context, names: tuple[str, ...], colon: bool, maps: bool, short: bool
) -> int:
    """Show physical volumes at length."""
    if colon and (short or maps):
        raise _not_together("-c", "-s" if short else "-m")
    session = context.session()
    paths = [os.path.abspath(name) for name in names]
    scan = session.scan(paths)
    segments = list(pv_rows(scan, by_segment=True))
    shown = set()
    for row in pv_rows(scan):
        path = row.device.path if row.device else "[unknown]"
        if names and path not in paths:
            continue
        shown.add(path)
        if colon:
            _show(describe.pv_colon(row))
        elif short:
            free = row.device.size // SECTOR if row.device else 0
            if row.vg is not None and row.pv is not None:
                used = row.vg.allocated(row.pv.uuid)
                free = (row.pv.pe_count - used) * row.vg.extent_size
            _show([f'Device "{path}" has a capacity of {display_size(free)}'])
        else:
            _show(describe.pv_lines(row))
            if maps and row.pv is not None:
                own = [s for s in segments if s.device is row.device and s.pv_segment]
                _show(describe.pv_map(own))
    missing = [name for name, path in zip(names, paths, strict=True) if path not in shown]
    for name in missing:
        if os.path.exists(name):
            session.warn(f'Failed to find physical volume "{name}".')
        else:
            session.warn(f"Cannot use {name}: device not found")
    return 5 if missing else 0
