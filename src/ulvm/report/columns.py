"""Which columns a report has: its defaults, `-o` with `+` and `-`, `-v`, and the sort keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ulvm.errors import RefusedError
from ulvm.report.fields import VOLUME_FIELDS
from ulvm.report.helptext import HelpAsked, field_lines
from ulvm.report.log import LOG_FIELDS
from ulvm.report.table import Field
from ulvm.report.vocabulary import Vocabulary

__all__ = [
    "DEFAULTS",
    "FULL_REPORT",
    "ReportKind",
    "choose",
    "compacted",
    "rows_of",
    "sort_keys",
]


class ReportKind(NamedTuple):
    """`prefix` of its own fields, which may be left out; `groups` that `all` stands for."""

    name: str
    prefix: str
    columns: str
    verbose: str
    sort: str
    groups: tuple[str, ...]
    vocabulary: Vocabulary = VOLUME_FIELDS

    def with_settings(self, setting: Callable[[str, str], str]) -> ReportKind:
        """With the columns and the order that a configuration file gives (`report/lvs_cols`);
        `setting` gets a path and a default."""
        section = "log/command_log" if self.name == "log" else f"report/{self.name}s"
        return self._replace(
            columns=setting(f"{section}_cols", self.columns),
            verbose=setting(f"{section}_cols_verbose", self.verbose),
            sort=setting(f"{section}_sort", self.sort),
        )

    def in_full_report(self, setting: Callable[[str, str], str]) -> ReportKind:
        """As a part of fullreport, which has settings of its own (`report/lvs_cols_full`)."""
        columns, sort = FULL_REPORT[self.name]
        columns = setting(f"report/{self.name}s_cols_full", columns)
        sort = setting(f"report/{self.name}s_sort_full", sort)
        return self._replace(columns=columns, verbose=columns, sort=sort)


DEFAULTS = {
    "lv": ReportKind(
        "lv",
        "lv_",
        "lv_name,vg_name,lv_attr,lv_size,pool_lv,origin,data_percent,metadata_percent,move_pv,"
        "mirror_log,copy_percent,convert_lv",
        "lv_name,vg_name,seg_count,lv_attr,lv_size,lv_major,lv_minor,lv_kernel_major,"
        "lv_kernel_minor,pool_lv,origin,data_percent,metadata_percent,move_pv,copy_percent,"
        "mirror_log,convert_lv,lv_uuid,lv_profile",
        "vg_name,lv_name",
        ("lv", "vg"),
    ),
    "seg": ReportKind(
        "seg",
        "seg_",
        "lv_name,vg_name,lv_attr,stripes,segtype,seg_size",
        "lv_name,vg_name,lv_attr,seg_start,seg_size,stripes,segtype,stripe_size,chunk_size",
        "vg_name,lv_name,seg_start",
        ("lv", "seg", "vg"),
    ),
    "vg": ReportKind(
        "vg",
        "vg_",
        "vg_name,pv_count,lv_count,snap_count,vg_attr,vg_size,vg_free",
        "vg_name,vg_attr,vg_extent_size,pv_count,lv_count,snap_count,vg_size,vg_free,vg_uuid,"
        "vg_profile",
        "vg_name",
        ("vg",),
    ),
    "pv": ReportKind(
        "pv",
        "pv_",
        "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free",
        "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free,dev_size,pv_uuid",
        "pv_name",
        ("pv",),
    ),
    "pvseg": ReportKind(
        "pvseg",
        "pvseg_",
        "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free,pvseg_start,pvseg_size",
        "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free,pvseg_start,pvseg_size,lv_name,"
        "seg_start_pe,segtype,seg_pe_ranges",
        "pv_name,pvseg_start",
        ("pv", "pvseg"),
    ),
    "log": ReportKind(
        "log",
        "log_",
        ",".join(LOG_FIELDS.fields),
        ",".join(LOG_FIELDS.fields),
        "log_seq_num",
        ("log",),
        LOG_FIELDS,
    ),
}

FULL_REPORT = {
    "vg": ("vg_all", "vg_name"),
    "pv": ("pv_all", "pv_name"),
    "lv": ("lv_all", "vg_name,lv_name"),
    "pvseg": ("pvseg_all,pv_uuid,lv_uuid", "pv_uuid,pvseg_start"),
    "seg": ("seg_all,lv_uuid", "lv_uuid,seg_start"),
}
"""Columns and order of the parts of fullreport, as they come."""

_DEVICES = {"pv", "pvseg"}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _resolved(words: Sequence[str], kind: ReportKind, groups: set[str]) -> list[Field]:
    """The fields that words stand for; `all` for those of the groups and of all fields named."""
    vocabulary = kind.vocabulary
    named: list[list[Field] | None] = []
    for word in words:
        name = word.lower()
        if name in ("help", "?"):
            raise HelpAsked("\n".join(field_lines(vocabulary.sections)))
        if name == "all":
            named.append(None)
        else:
            named.append(vocabulary.group(name) or [_find(word, kind)])
    groups = groups | {field.group for fields in named for field in fields or ()}
    every = [field for field in vocabulary.fields.values() if field.group in groups]
    return [field for fields in named for field in (every if fields is None else fields)]


def _find(name: str, kind: ReportKind, who: str = "") -> Field:
    field = kind.vocabulary.find(name, kind.prefix)
    if field is None:
        lines = field_lines(kind.vocabulary.sections)
        raise RefusedError("\n".join([*lines, f"{who}Unrecognised field: {name}"]))
    return field


def choose(
    kind: ReportKind, options: Sequence[str], *, verbose: bool, sort: str | None = None
) -> list[Field]:
    """The columns for the values of -o, in their order; one named twice stands twice, and `-` takes
    the last away. A word that stands for many is taken away by the same word alone. `sort`: the
    fields of -O, whose kinds `all` stands for too. RefusedError (exit code 5) for an unknown field,
    as LVM."""
    for option in options:
        if not option:
            raise RefusedError(f"Invalid options string: {option}")
    words = _words(kind.verbose if verbose else kind.columns)
    for option in options:
        if option[:1] == "+":
            words += _words(option[1:])
        elif option[:1] == "-":
            for word in _words(option[1:]):
                _take_away(words, word, kind)
        elif option[:1] != "#":
            words = _words(option)
    keys = [kind.vocabulary.find(word.lstrip("+-"), kind.prefix) for word in _words(sort or "")]
    groups = {*kind.groups, *(field.group for field in keys if field is not None)}
    return _resolved(words, kind, groups)


def _take_away(words: list[str], word: str, kind: ReportKind) -> None:
    def meaning(name: str) -> object:
        return kind.vocabulary.find(name, kind.prefix) or name.lower()

    for at in reversed(range(len(words))):
        if meaning(words[at]) == meaning(word):
            del words[at]
            return


def compacted(kind: ReportKind, options: Sequence[str]) -> list[Field]:
    """Columns of the last `-o#`, left out when they are blank in all rows. RefusedError for one
    that is unknown, which LVM2 only warns of."""
    words = next((_words(option[1:]) for option in reversed(options) if option[:1] == "#"), [])
    found = []
    for word in words:
        field = kind.vocabulary.find(word, kind.prefix)
        if field is None:
            raise RefusedError(
                f"dm_report: Unrecognized field: {word}\n"
                "Failed to compact given columns in report output."
            )
        found.append(field)
    return found


def rows_of(kind: ReportKind, fields: Iterable[Field]) -> str:
    """What the report has a row for: lv, seg, vg, pv or pvseg. RefusedError if that would be
    volumes and devices at once."""
    groups = {field.group for field in fields}
    of_volumes = kind.name in ("lv", "seg") or bool(groups & {"lv", "seg"})
    if kind.name not in ("pv", "pvseg") and of_volumes and groups & _DEVICES:
        raise RefusedError(
            "Can't report LV and PV fields at the same time in report type "
            f'"{kind.prefix.rstrip("_")}".'
        )
    if kind.name == "pvseg":
        return "pvseg"
    if kind.name == "pv":
        return "pvseg" if groups & {"pvseg", "lv", "seg"} else "pv"
    if kind.name == "vg":
        order = ("pvseg", "pv", "seg", "lv")
        return next((group for group in order if group in groups), "vg")
    return "seg" if "seg" in groups or kind.name == "seg" else "lv"


def sort_keys(kind: ReportKind, option: str | None) -> list[tuple[Field, bool]]:
    """(field, descending) of -O; the report's own order without it."""
    text = kind.sort if option is None else option
    keys = []
    for word in filter(None, text.split(",")):
        descending = word.strip().startswith("-")
        name = word.strip().lstrip("+-")
        if name in ("help", "?"):
            raise HelpAsked("\n".join(field_lines(kind.vocabulary.sections)))
        keys.append((_find(name, kind, "dm_report: "), descending))
    return keys
