"""Which columns a report has: its defaults, `-o` with `+` and `-`, `-v`, and the sort keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ulvm.errors import RefusedError
from ulvm.report.fields import FIELDS, PREFIXES, Field

__all__ = ["DEFAULTS", "ReportKind", "choose", "find_field", "sort_keys"]


@dataclass(frozen=True, slots=True)
class ReportKind:
    """`prefix` of its own fields, which may be left out; `groups` whose fields mean something."""

    name: str
    prefix: str
    columns: str
    verbose: str
    sort: str
    groups: tuple[str, ...]


DEFAULTS = {
    "lv": ReportKind(
        "lv",
        "lv_",
        "lv_name,vg_name,lv_attr,lv_size,pool_lv,origin,data_percent,metadata_percent,move_pv,"
        "mirror_log,copy_percent,convert_lv",
        "lv_name,vg_name,seg_count,lv_attr,lv_size,lv_major,lv_minor,lv_kernel_major,"
        "lv_kernel_minor,pool_lv,origin,data_percent,metadata_percent,move_pv,copy_percent,"
        "mirror_log,convert_lv,lv_uuid",
        "vg_name,lv_name",
        ("lv", "seg", "vg"),
    ),
    "seg": ReportKind(
        "seg",
        "lv_",
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
        ("pv", "pvseg", "vg", "lv", "seg"),
    ),
}


_BY_NAME = {name.replace("_", ""): field for name, field in FIELDS.items()}


def find_field(name: str, prefix: str = "") -> Field | None:
    """A field by its full name or without its prefix, the report's own kind first; underscores
    do not count (`seg_type` is `segtype`)."""
    name = name.strip().lower()
    for candidate in (name, prefix + name, *(p + name for p in PREFIXES)):
        found = _BY_NAME.get(candidate.replace("_", ""))
        if found is not None:
            return found
    return None


def _parse(text: str, kind: ReportKind) -> list[Field]:
    found: list[Field] = []
    for word in text.split(","):
        if not word.strip():
            continue
        if word.strip().lower() in ("all", f"{kind.prefix}all"):
            groups = kind.groups if word.strip().lower() == "all" else kind.groups[:1]
            found += [f for f in FIELDS.values() if f.group in groups]
            continue
        field = find_field(word, kind.prefix)
        if field is None or field.group not in kind.groups:
            raise RefusedError(f"{_help(kind)}\nUnrecognised field: {word.strip()}")
        found.append(field)
    return found


def _help(kind: ReportKind) -> str:
    lines = []
    for group in kind.groups:
        names = [f.name for f in FIELDS.values() if f.group == group]
        lines += [f"Fields of {group}: " + " ".join(names)]
    return "\n".join(lines)


def choose(kind: ReportKind, options: Sequence[str], *, verbose: bool) -> list[Field]:
    """The columns for the values of -o, in their order; a column stands once. RefusedError (exit
    code 5) for an unknown field, as LVM."""
    fields = _parse(kind.verbose if verbose else kind.columns, kind)
    replaced = False
    for option in options:
        sign = option[:1] if option[:1] in "+-#" else ""
        chosen = _parse(option[len(sign) :], kind)
        if sign == "-":
            fields = [f for f in fields if f not in chosen]
        elif sign == "+" or replaced:
            fields += chosen
        else:
            fields, replaced = chosen, True
    return list(dict.fromkeys(fields))


def sort_keys(kind: ReportKind, option: str | None) -> list[tuple[Field, bool]]:
    """(field, descending) of -O; the report's own order without it."""
    text = kind.sort if option is None else option
    keys = []
    if text[:1] == "+":
        text = f"{kind.sort},{text[1:]}"
    for word in text.split(","):
        descending = word.strip().startswith("-")
        field = find_field(word.strip().lstrip("+-"), kind.prefix)
        if field is None:
            raise RefusedError(f"{_help(kind)}\nUnrecognised field: {word.strip()}")
        keys.append((field, descending))
    return keys
