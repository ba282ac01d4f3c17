"""vgdisplay."""

from __future__ import annotations

from typing import Any

import click

from ulvm.cli.arguments import select_option
from ulvm.cli.choose import each_vg
from ulvm.cli.common_options import foreign_option, read_only_option, reading_options, shared_option
from ulvm.cli.context import Context
from ulvm.cli.words import REPORT_FORMAT
from ulvm.errors import UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.report import describe
from ulvm.report.units import SizeFormat, parse_units

__all__ = ["vgdisplay"]

_COLUMN_OPTIONS = (
    "options", "sort", "aligned", "noheadings", "separator", "unbuffered", "binary",
    "configreport", "logonly",
)  # fmt: skip
"""Of a report, which is asked for by -C."""


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|@TAG...]")
@click.option("-A", "--activevolumegroups", is_flag=True, help="Those with active volumes.")
@click.option("-c", "--colon", is_flag=True, help="One line a VG, for programs.")
@click.option("-s", "--short", is_flag=True, help="One line a VG, for people.")
@click.option("-C", "--columns", is_flag=True, help="As vgs does, with its options.")
@click.option("-o", "--options", multiple=True, help="With -C: columns.")
@click.option("-O", "--sort", help="With -C: sort by these columns.")
@click.option("--aligned", is_flag=True, hidden=True)
@click.option("--noheadings", is_flag=True, help="With -C: no line of headings.")
@click.option("--separator", help="With -C: between columns.")
@click.option("--unbuffered", is_flag=True, hidden=True)
@click.option("--binary", is_flag=True, hidden=True)
@click.option("--configreport", hidden=True)
@click.option("--logonly", is_flag=True, hidden=True)
@click.option("--units", help="r (default), h, or one of bskmgtpe; capitals for 1000.")
@click.option("--nosuffix", is_flag=True, help="No unit behind sizes.")
@click.option("--ignorelockingfailure", is_flag=True, expose_value=False, hidden=True)
@shared_option
@select_option
@click.option("--reportformat", type=REPORT_FORMAT, expose_value=False, hidden=True)
@read_only_option
@foreign_option
@reading_options
@click.pass_context
def vgdisplay(caller: click.Context, /, names: tuple[str, ...], **asked: Any) -> int:
    """Show volume groups at length; with -v their volumes and devices, too."""
    context = caller.obj
    assert isinstance(context, Context)
    _check(names, asked)
    if asked["columns"]:
        return _as_report(caller, context, names, asked)
    session = context.session()
    config = context.host.config
    sizes = parse_units(
        config.get_str("global/units", "r") if asked["units"] is None else asked["units"],
        suffix=not asked["nosuffix"] and config.get_bool("global/suffix", True),
    )

    def show(name: str) -> None:
        scan = session.last_scan
        vg = scan.vg(name)
        states = lvm_lv.states(session, vg)
        if asked["activevolumegroups"] and not states:
            return
        if asked["colon"]:
            session.say(describe.vg_colon(vg, states))
        elif asked["short"]:
            session.say(describe.vg_short(vg, sizes.long_text))
        else:
            _show_long(context, name, sizes)

    return each_vg(session, names, show, select=asked["select"])


def _check(names: tuple[str, ...], asked: dict[str, Any]) -> None:
    if asked["columns"]:
        if asked["colon"] or asked["short"] or asked["activevolumegroups"]:
            raise UsageError("Incompatible options selected")
        return
    if asked["colon"] and asked["short"]:
        raise UsageError("Option -c is not allowed with option -s")
    if any(asked[name] not in (None, False, ()) for name in _COLUMN_OPTIONS):
        raise UsageError("Incompatible options selected.")
    if asked["activevolumegroups"] and names:
        raise UsageError("Option -A is not allowed with volume group names")


def _show_long(context: Context, name: str, sizes: SizeFormat) -> None:
    session = context.session()
    scan = session.last_scan
    vg = scan.vg(name)
    states = lvm_lv.states(session, vg)
    lines = list(describe.vg_lines(scan, vg, states, sizes.long_text))
    if context.verbose:
        full_path = context.host.config.get_bool("global/lvdisplay_shows_full_device_path", False)
        for lv in vg.visible_lvs():
            known = context.host.activation
            lines += describe.lv_lines(vg, lv, states, full_path=full_path, known=known)
        lines += describe.vg_pv_lines(scan, vg)
    context.console.display(lines)


def _as_report(
    caller: click.Context, context: Context, names: tuple[str, ...], asked: dict[str, Any]
) -> int:
    from ulvm.cli.reports import vgs

    words = [word for option in asked["options"] for word in ("-o", option)]
    for name in ("configreport", "sort", "select", "separator", "units"):
        if asked[name] is not None:
            words += [f"--{name}", asked[name]]
    flags = ("aligned", "noheadings", "binary", "nosuffix", "unbuffered", "logonly")
    words += [f"--{n}" for n in flags if asked[n]]
    made = vgs.make_context("vgs", [*words, "--", *names], parent=caller, obj=context)
    with made:
        status = vgs.invoke(made)
    return status if isinstance(status, int) else 0
