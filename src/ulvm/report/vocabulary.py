"""The fields that one kind of report knows, and how they are found by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ulvm.report.catalogue import Section
from ulvm.report.table import Field

__all__ = ["SELECTED", "Vocabulary"]

SELECTED = Field("selected", "Selected", "num", 8, lambda _: 1, "", "num")
"""Whether a row is chosen; a report that shows it shows all rows."""


class Vocabulary:
    """`prefixes` of names may be left out, and underscores do not count (`seg_type` is
    `segtype`)."""

    def __init__(
        self,
        sections: Sequence[Section],
        fields: Mapping[str, Field],
        *,
        prefixes: Sequence[str] = (),
        groups: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.sections = sections
        self.fields = fields
        self._prefixes = tuple(prefixes)
        self._groups = dict(groups or {})
        self._by_name = {name.replace("_", ""): field for name, field in fields.items()}
        self._by_name["selected"] = SELECTED

    def find(self, name: str, prefix: str = "") -> Field | None:
        """A field by its full name or without its prefix, the report's own kind first."""
        name = name.strip().lower()
        for candidate in (name, prefix + name, *(p + name for p in self._prefixes)):
            found = self._by_name.get(candidate.replace("_", ""))
            if found is not None:
                return found
        return None

    def group(self, name: str) -> list[Field] | None:
        """The fields that `lv_all` stands for; None if it is not such a name."""
        groups = self._groups.get(name)
        if groups is None:
            return None
        return [field for field in self.fields.values() if field.group in groups]
