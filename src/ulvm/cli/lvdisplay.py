"""lvdisplay."""

from __future__ import annotations

from typing import Any

import click

from ulvm.cli.arguments import select_option
from ulvm.cli.choose import choose_lvs, selected_lvs
from ulvm.cli.columns_form import OrColumns
from ulvm.cli.common_options import common_options, foreign_option, read_only_option, shared_option
from ulvm.cli.context import Context
from ulvm.cli.processed import Processed
from ulvm.errors import UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.report import describe
from ulvm.report.units import parse_units

__all__ = ["lvdisplay"]


@click.command(cls=OrColumns)
@click.argument("names", nargs=-1, metavar="[VG|LV|@TAG...]")
@click.option("-c", "--colon", is_flag=True, help="One line a volume, for programs.")
@click.option("-m", "--maps", is_flag=True, help="Also where the extents are.")
@click.option("-a", "--all", "hidden", is_flag=True, help="Also volumes that are parts of others.")
@click.option("--units", help="r (default), h, or one of bskmgtpe; capitals for 1000.")
@click.option("--nosuffix", is_flag=True, help="No unit behind sizes.")
@click.option("-C", "--columns", is_flag=True, help="As lvs, with all its options.")
@click.option("-o", "--options", multiple=True, help="With -C.")
@click.option("-O", "--sort", help="With -C.")
@click.option("--noheadings", is_flag=True, hidden=True)
@click.option("--separator", hidden=True)
@click.option("--aligned", is_flag=True, hidden=True)
@click.option("--segments", is_flag=True, hidden=True)
@click.option("--binary", is_flag=True, hidden=True)
@click.option("--unbuffered", is_flag=True, hidden=True)
@click.option("--configreport", hidden=True)
@click.option("--logonly", is_flag=True, hidden=True)
@click.option("--ignorelockingfailure", is_flag=True, expose_value=False, hidden=True)
@click.option("-H", "--history", is_flag=True, expose_value=False, hidden=True)
@shared_option
@select_option
@read_only_option
@foreign_option
@common_options
@click.pass_obj
def lvdisplay(
    context: Context,
    /,
    names: tuple[str, ...],
    colon: bool,
    maps: bool,
    hidden: bool,
    units: str | None,
    nosuffix: bool,
    select: str | None,
    **columns: Any,
) -> int:
    """Show logical volumes at length."""
    if any(columns.values()):
        raise UsageError("Incompatible options selected.")
    if colon and maps:
        raise UsageError("Options -c and -m are incompatible.")
    config = context.host.config
    size = parse_units(
        config.get_str("global/units", "r") if units is None else units,
        suffix=not nosuffix and config.get_bool("global/suffix", True),
    ).long_text
    session = context.session()
    show = context.console.display
    scan = session.scan()
    volumes, failures = choose_lvs(session, names, select)
    wanted = {(lv.vg_uuid, lv.uuid) for lv in volumes}
    if hidden:
        within = [vg for vg in scan.vgs if not names or vg.name in names]
        selected = None if select is None else selected_lvs(session, scan, within, select)
        wanted |= {
            (vg.uuid, lv.uuid)
            for vg in within
            for lv in vg.lvs
            if lv.snapshot_segment is None and (selected is None or (vg.uuid, lv.name) in selected)
        }
    processed = Processed(session)
    full_path = session.host.config.get_bool("global/lvdisplay_shows_full_device_path", False)
    chosen = list(dict.fromkeys(lv.vg_uuid for lv in volumes))
    # As they were named; what has no volume is not shown.
    named = [vg for uuid in chosen for vg in scan.vgs if vg.uuid == uuid]
    for vg in [*named, *(vg for vg in scan.vgs if vg not in named)]:
        if "EXPORTED" in vg.status:
            if names and any((vg.uuid, lv.uuid) in wanted for lv in vg.lvs):
                failures.append(f"Volume group {vg.name} is exported")
            continue
        states = lvm_lv.states(session, vg)
        for lv in vg.lvs:
            if (vg.uuid, lv.uuid) not in wanted or not (hidden or vg.is_visible(lv)):
                continue
            with processed.volume(f"{vg.name}/{lv.name}"):
                if colon:
                    show([describe.lv_colon(vg, lv, states.get(lv.name))])
                    continue
                known = context.host.activation
                show(describe.lv_lines(vg, lv, states, size, known=known, full_path=full_path))
                if maps:
                    show(describe.lv_map(scan, lv))
    for sentence in failures:
        with processed.missing(sentence):
            session.warn(sentence)
    processed.end()
    return 5 if failures else 0
