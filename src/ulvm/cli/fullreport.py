"""fullreport: all reports, volume group by volume group, of one look at the disks."""

from __future__ import annotations

from typing import Any

import click

from ulvm.cli.common_options import reading_options
from ulvm.cli.context import Context
from ulvm.cli.report_options import Output, ReportCommand, report_options
from ulvm.cli.reports import groups_of, vg_object, warned
from ulvm.cli.row_states import states_of
from ulvm.report.columns import FULL_REPORT
from ulvm.report.rows import lv_rows, pv_rows, vg_rows

__all__ = ["fullreport"]

_ORPHANS = ("pv", "pvseg")


@click.command(cls=ReportCommand)
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-a", "--all", "hidden", is_flag=True, help="Also hidden volumes, in brackets.")
@report_options
@reading_options
@click.pass_obj
def fullreport(context: Context, /, names: tuple[str, ...], hidden: bool, **values: Any) -> int:
    """Report on volume groups, with their devices, volumes and segments."""
    output = Output(context, values, "full")
    parts = {name: output.part(name, full=True) for name in FULL_REPORT}
    session = context.session()
    scan = session.scan()
    groups, failures = groups_of(session, scan, names)
    for vg in groups:
        states = states_of(session, [vg], "seg")
        rows = {
            "vg": list(vg_rows(scan, [vg])),
            "pv": [row for row in pv_rows(scan) if row.vg is vg],
            "lv": list(lv_rows(scan, [vg], states, hidden=hidden, by_segment=False)),
            "pvseg": [r for r in pv_rows(scan, by_segment=True, states=states) if r.vg is vg],
            "seg": list(lv_rows(scan, [vg], states, hidden=hidden, by_segment=True)),
        }
        output.log.state(vg_object(vg))
        output.add(*((part, rows[name]) for name, part in parts.items()))
    if not names:
        orphans = {
            "pv": [row for row in pv_rows(scan) if row.vg is None],
            "pvseg": [row for row in pv_rows(scan, by_segment=True) if row.vg is None],
        }
        if orphans["pv"]:
            output.add(*((parts[name], orphans[name]) for name in _ORPHANS))
    status = warned(session, output.log, failures)
    output.finish()
    return status
