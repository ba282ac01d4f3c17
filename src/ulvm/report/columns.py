"""Which columns a report has: its defaults, `-o` with `+` and `-`, `-v`, and the sort keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ulvm.errors import RefusedError
from ulvm.report.fields import FIELDS, PREFIXES, Field

__all__ = [
    "DEFAULTS",
    "ReportKind",
    "choose",
    "compacted",
    "find_field",
    "rows_of",
    "sort_keys",
]


@dataclass(frozen=True, slots=True)
class ReportKind:
    """`prefix` of its own fields, which may be left out; `groups` that `all` stands for."""

    name: str
    prefix: str
    columns: str
    verbose: str
    sort: str
    groups: tuple[str, ...]

    def with_settings(self, setting: Callable[[str, str], str]) -> ReportKind:
        """With the columns and the order that a configuration file gives (`report/lvs_cols`);
        `setting` gets a path and a default."""
        section = f"report/{self.name}s"
        return replace(
            self,
            columns=setting(f"{section}_cols", self.columns),
            verbose=setting(f"{section}_cols_verbose", self.verbose),
            sort=setting(f"{section}_sort", self.sort),
        )


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
        ("pv",),
    ),
}


_ALL = {
    "lv_all": ("lv",),
    "seg_all": ("seg",),
    "vg_all": ("vg",),
    "pv_all": ("pv",),
    "pvseg_all": ("pvseg",),
}
_DEVICES = {"pv", "pvseg"}

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
        name = word.strip().lower()
        if not name:
            continue
        if name == "all" or name.endswith("_all"):
            groups = kind.groups if name == "all" else _ALL.get(name, ())
            found += [f for f in FIELDS.values() if f.group in groups]
            if groups:
                continue
        field = find_field(name, kind.prefix)
        if field is None:
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
    """The columns for the values of -o, in their order; one named twice stands twice. RefusedError
    (exit code 5) for an unknown field, as LVM."""
    fields = _parse(kind.verbose if verbose else kind.columns, kind)
    replaced = False
    for option in options:
        sign = option[:1] if option[:1] in ("+", "-", "#") else ""
        chosen = _parse(option[len(sign) :], kind)
        if sign == "-":
            fields = [f for f in fields if f not in chosen]
        elif sign == "+" or replaced:
            fields += chosen
        elif sign == "":
            fields, replaced = chosen, True
    return fields


def compacted(kind: ReportKind, options: Sequence[str]) -> list[Field]:
    """Columns of `-o#`, left out when they are blank in all rows."""
    return _parse(",".join(option[1:] for option in options if option[:1] == "#"), kind)


def rows_of(kind: ReportKind, fields: Iterable[Field]) -> str:
    """What the report has a row for: lv, seg, vg, pv or pvseg. RefusedError if that would be
    volumes and devices at once."""
    groups = {field.group for field in fields}
    of_volumes = kind.name in ("lv", "seg") or bool(groups & {"lv", "seg"})
    if kind.name != "pv" and of_volumes and groups & _DEVICES:
        raise RefusedError(
            "Can't report LV and PV fields at the same time in report type "
            f'"{kind.prefix.rstrip("_")}".'
        )
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
    if text[:1] == "+":
        text = f"{kind.sort},{text[1:]}"
    for word in text.split(","):
        descending = word.strip().startswith("-")
        field = find_field(word.strip().lstrip("+-"), kind.prefix)
        if field is None:
            raise RefusedError(f"{_help(kind)}\nUnrecognised field: {word.strip()}")
        keys.append((field, descending))
    return keys
