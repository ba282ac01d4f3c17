"""What lvs, vgs, pvs and fullreport have in common: their options, and what these ask for.

`--configreport` says which report the -o, -O and -S behind it belong to, so that the order of the
options counts. Before it they belong to the report that the command is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import click

from ulvm.cli.common_options import foreign_option, read_only_option
from ulvm.cli.context import Context
from ulvm.cli.words import OneOf
from ulvm.errors import RefusedError
from ulvm.report.columns import DEFAULTS, ReportKind, choose, compacted, rows_of, sort_keys
from ulvm.report.display import (
    FORMATS,
    TIME_FORMAT,
    Layout,
    Report,
    render,
    render_json,
    render_titled,
    sort_rows,
)
from ulvm.report.log import CommandLog
from ulvm.report.select import Selection, parse_selection
from ulvm.report.table import Field
from ulvm.report.units import parse_units
from ulvm.report.vocabulary import SELECTED

__all__ = ["TITLES", "Output", "Part", "ReportCommand", "report_options"]

_F = TypeVar("_F", bound=Callable[..., Any])

_ORDERED = ("configreport", "options", "sort", "select")
_KEY = "ulvm.report_order"

TITLES = {
    "lv": "Logical Volume",
    "seg": "Logical Volume Segment",
    "vg": "Volume Group",
    "pv": "Physical Volume Label",
    "pvseg": "Physical Volume Segment",
    "log": "Command Log",
}
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType(
    dict.fromkeys(("options", "sort", "select", "configreport"), ())
    | dict.fromkeys(("logonly", "noheadings", "nosuffix", "aligned", "rows", "binary"), False)
    | dict.fromkeys(("unbuffered", "nameprefixes", "unquoted"), False)
    | dict.fromkeys(("units", "separator", "reportformat"))
)
"""What `report_options` come to when none is given."""
_INDENT = "  "
_SUCCESS_ONLY = "!(log_type=status && message=success)"


class ReportCommand(click.Command):
    """Remembers in which order its options came."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_KEY] = [param.name for param in order]
        return super().parse_args(ctx, args)


def report_options(function: _F) -> _F:
    """The options of every report."""
    options = [
        click.option("-o", "--options", multiple=True, metavar="FIELD,...",
                     help="Columns; +col adds, -col removes; help lists them."),
        click.option("-O", "--sort", multiple=True, metavar="FIELD,...",
                     help="Sort by these columns; -col descending."),
        click.option("-S", "--select", multiple=True, metavar="SELECTION",
                     help="Only rows for which this is true; help explains."),
        click.option("--configreport", multiple=True,
                     type=OneOf("log", "vg", "lv", "pv", "pvseg", "seg"),
                     help="Which report -o, -O and -S behind it are for."),
        click.option("--logonly", is_flag=True, help="Show the log of the command alone."),
        click.option("--noheadings", is_flag=True, help="No line of headings."),
        click.option("--units", help="r (default), h, or one of bskmgtpe; capitals for 1000."),
        click.option("--nosuffix", is_flag=True, help="No unit behind sizes."),
        click.option("--separator", help="Between columns, instead of padding."),
        click.option("--aligned", is_flag=True, help="Pad columns with --separator, too."),
        click.option("--rows", is_flag=True, help="A line for each column."),
        click.option("--binary", is_flag=True, help="Yes and no as 1 and 0, unknown as -1."),
        click.option("--unbuffered", is_flag=True, help="Rows as they come, not sorted."),
        click.option("--nameprefixes", is_flag=True, help="LVM2_NAME='value' for scripts."),
        click.option("--unquoted", is_flag=True, help="With --nameprefixes: no quotes."),
        click.option("--reportformat", type=OneOf(*FORMATS), help="basic, json or json_std."),
        click.option("-P", "--partial", is_flag=True, hidden=True),
        read_only_option,
        foreign_option,
        click.option("--ignorelockingfailure", is_flag=True, hidden=True),
        click.option("--ignoreskippedcluster", is_flag=True, hidden=True),
        click.option("--shared", is_flag=True, hidden=True),
        click.option("--trustcache", is_flag=True, hidden=True),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


class _Words(NamedTuple):
    """What -o, -O and -S say of one report; of the latter two the last counts."""

    options: tuple[str, ...] = ()
    sort: str | None = None
    select: str | None = None


def _by_report(values: Mapping[str, Any], main: str) -> dict[str, _Words]:
    left = {name: list(values[name] or ()) for name in _ORDERED}
    found: dict[str, _Words] = {}
    current = main
    for name in click.get_current_context().meta.get(_KEY, ()):
        if name not in _ORDERED:
            continue
        value = left[name].pop(0)
        words = found.setdefault(current, _Words())
        if name == "configreport":
            current = value
        elif name == "options":
            found[current] = words._replace(options=(*words.options, value))
        elif name == "sort":
            found[current] = words._replace(sort=value)
        else:
            found[current] = words._replace(select=value)
    return found


class Part(NamedTuple):
    """One report that is asked for."""

    kind: ReportKind
    fields: list[Field]
    selected: Selection
    keys: list[tuple[Field, bool]]
    title: str
    layout: Layout
    compact: Sequence[Field]
    """Columns that are left out where they are blank in all rows."""

    @property
    def rows(self) -> str:
        """lv, seg, vg, pv or pvseg."""
        used = (*self.fields, *self.selected.fields, *(of for of, _ in self.keys))
        return rows_of(self.kind, [of for of in used if of is not SELECTED])

    def report(self, rows: Iterable[Any]) -> Report:
        """The rows that it shows."""
        if SELECTED in self.fields:
            found = sort_rows(rows, self.keys)
            chosen = {number for number, row in enumerate(found) if self.selected(row)}
            return Report(self.kind.name, self.title, self.fields, found, chosen, self.compact)
        found = sort_rows(filter(self.selected, rows), self.keys)
        return Report(self.kind.name, self.title, self.fields, found, compact=self.compact)


class Output:
    """Reports on their way out: a command makes `part`s of it, gives back what they hold, and
    ends with `finish`."""

    def __init__(self, context: Context, values: Mapping[str, Any], main: str) -> None:
        self._config = context.host.config
        self._console = context.console
        self._verbose = context.verbose > 0
        self._values = values
        self._words = _by_report(values, main)
        self.form = values["reportformat"] or self._config.get_str("report/output_format", "basic")
        if self.form not in FORMATS:
            known = ", ".join(FORMATS)
            raise RefusedError(
                f"{self.form}: unknown report format.\nSupported report formats: {known}."
            )
        self.log_only = bool(values["logonly"])
        self._groups: list[list[Report]] = []
        self._layout = self._made_layout()
        self.with_log = with_log = self.log_only or self._config.get_bool(
            "log/report_command_log", False
        )
        self.log = CommandLog()
        self._log_part = self._made_log_part() if with_log else None
        self._asked = self._finished = False
        if with_log:
            context.console.log = self.log
        context.output = self

    @classmethod
    def of_log(cls, context: Context, *, select: str | None = None) -> Output:
        """Of a command that is no report: its log, if that is wanted, or that of another one, by
        `select`."""
        words = _Words(select=select)
        values = {**_NO_OPTIONS, "reportformat": context.settings.report_format}
        output = cls(context, values, "log")
        if select is not None:
            output._words["log"] = words
            output._log_part = output._made_log_part()
        return output

    def _made_layout(self) -> Layout:
        values, config = self._values, self._config
        units = values["units"]
        sizes = parse_units(
            config.get_str("global/units", "r") if units is None else units,
            suffix=not values["nosuffix"] and config.get_bool("global/suffix", True),
            binary=values["binary"] or config.get_bool("report/binary_values_as_numeric", False),
        )
        separator = values["separator"]
        aligned = config.get_bool("report/aligned", True)
        if separator is not None or values["nameprefixes"]:
            aligned = values["aligned"] and not values["nameprefixes"]
        headings = _headings(config.get_int("report/headings", 1))
        return Layout(
            sizes,
            headings=headings != "none" and not values["noheadings"],
            abbreviated=headings != "full",
            separator=config.get_str("report/separator", " ") if separator is None else separator,
            aligned=aligned,
            name_prefixes=values["nameprefixes"] or config.get_bool("report/prefixes", False),
            unquoted=values["unquoted"] or not config.get_bool("report/quoted", True),
            rows=values["rows"] or config.get_bool("report/columns_as_rows", False),
            time_format=config.get_str("report/time_format", TIME_FORMAT),
            list_separator=config.get_str("report/list_item_separator", ","),
            mark_hidden=config.get_bool("report/mark_hidden_devices", True),
            two_word_unknown=config.get_bool("report/two_word_unknown_device", False),
        )

    def _made_log_part(self) -> Part:
        default = self._config.get_str("log/command_log_selection", _SUCCESS_ONLY)
        words = self._words.get("log", _Words())
        select = words.select if words.select is not None else default
        try:
            return self._part(DEFAULTS["log"], words._replace(select=select))
        except RefusedError as error:
            raise RefusedError(f"{error.message}\nFailed to create log report.") from None

    def part(self, name: str, *, full: bool = False) -> Part:
        """The report of this name as it is asked for; `full`: as part of fullreport."""
        self._asked = True
        kind, words = DEFAULTS[name], self._words.get(name, _Words())
        if full:
            kind = kind.in_full_report(self._config.get_str)
            return self._part(kind, words, title="Physical Volume")
        return self._part(kind, words)

    def _part(self, kind: ReportKind, words: _Words, title: str = "") -> Part:
        if not title:
            kind = kind.with_settings(self._config.get_str)
        fields = choose(kind, words.options, verbose=self._verbose, sort=words.sort)
        compact = self._compacted(kind, fields, words.options)
        selected = parse_selection(words.select, kind.prefix, kind.vocabulary)
        unbuffered = self._values["unbuffered"] or not self._config.get_bool(
            "report/buffered", True
        )
        # What is asked for in an order has to wait for the last row.
        buffered = not unbuffered or words.sort is not None
        keys = sort_keys(kind, words.sort)
        return Part(
            kind,
            fields,
            selected,
            keys if buffered else [],
            title if title and kind.name == "pv" else TITLES[kind.name],
            self._layout._replace(buffered=buffered),
            compact,
        )

    def _compacted(
        self, kind: ReportKind, fields: list[Field], options: Sequence[str]
    ) -> Sequence[Field]:
        if self._config.get_bool("report/compact_output", False):
            return fields
        columns = self._config.get_str("report/compact_output_cols", "")
        options = [f"#{columns}", *options]
        try:
            return compacted(kind, options)
        except RefusedError as error:
            self._console.warn(error.message)
            return ()

    def add(self, *parts: tuple[Part, Iterable[Any]]) -> None:
        """Reports that belong together."""
        self._groups.append([part.report(rows) for part, rows in parts])
        if not self._log_part and self.form == "basic":
            for (part, _), report in zip(parts, self._groups[-1], strict=True):
                self._print(render(report, part.layout))

    def finish(self) -> None:
        """Print what has to wait for all, JSON and the log, once."""
        if self._finished:
            return
        self._finished = True
        if self._log_part is None:
            if self.form != "basic":
                self._print_json(None)
            return
        log = self._log_part.report(self.log.entries)
        if self.form != "basic":
            self._print_json(log)
        elif self.log_only:
            self._print(render(log, self._layout, always=True))
        else:
            reports = [report for group in self._groups for report in group]
            self._print(render_titled([*reports, log], self._layout))

    def _print_json(self, log: Report | None) -> None:
        # A report that could not be made leaves its frame empty.
        groups = self._groups if self._asked and not self.log_only else None
        standard = self.form == "json_std"
        self._print(render_json(groups, log, self._layout, standard=standard))

    def _print(self, lines: Iterable[str]) -> None:
        self._console.show_lines([line.removeprefix(_INDENT) for line in lines])


def _headings(number: int) -> str:
    """What `report/headings` stands for: 0, 1 or 2."""
    return {0: "none", 2: "full"}.get(number, "abbrev")
