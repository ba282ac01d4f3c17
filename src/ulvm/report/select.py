"""`-S`: which rows of a report are shown (lvmreport(7), section Selection).

    expression  term (|| term)*           term  factor (&& factor)*       , is && too
    factor      [!] ( expression )  |  field operator value
    operator    = != > < >= <=   =~ !~ with a regular expression   since after until before of times

A value is a bare word or a quoted string. Of a list field it may be [a && b], which the list must
equal, or {a && b}, which the list must contain; with || one that it has is enough. Words that mean
nothing here, and values that no field could have, are errors, as in LVM2: exit code 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ulvm.errors import RefusedError
from ulvm.report.columns import find_field
from ulvm.report.conditions import compare
from ulvm.report.fields import Field
from ulvm.report.rows import Row

__all__ = ["Selection", "parse_selection"]

Test = Callable[[Row], bool]

_MAX_DEPTH = 64
"""Of parentheses: a test of a row calls those within it."""

_FIELD = re.compile(r"[A-Za-z0-9_]+")
_OPERATOR = re.compile(r"=~|!~|!=|>=|<=|=|>|<|(?:since|after|until|before)(?=[\s\"'@0-9])")
_AND = re.compile(r"&&|,")
_OR = re.compile(r"\|\|")
_WORD = re.compile(r"(?:(?!&&|\|\|)[^\s,)])+")
_REGEX = re.compile(r"[^\s)]+")
_ITEM = re.compile(r"(?:(?!&&|\|\|)[^\s,\]}])+")


@dataclass(frozen=True, slots=True)
class Selection:
    """A test of rows, and the fields that it looks at."""

    chooses: Test
    fields: tuple[Field, ...] = ()

    def __call__(self, row: Row) -> bool:
        return self.chooses(row)


class _Parser:
    def __init__(self, text: str, default: str) -> None:
        self._text = text
        self._default = default
        self._at = 0
        self._depth = 0
        self.fields: list[Field] = []

    # -- characters ---------------------------------------------------------------------------

    def _skip_space(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        self._skip_space()
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[0]

    def _takes(self, character: str) -> bool:
        self._skip_space()
        if not self._text.startswith(character, self._at):
            return False
        self._at += 1
        return True

    def _error(self, reason: str, at: int) -> RefusedError:
        return RefusedError(f"{reason}\nSelection syntax error at '{self._text[at:]}'.")

    def _quoted(self) -> str | None:
        self._skip_space()
        quote = self._text[self._at : self._at + 1]
        if quote not in ("'", '"'):
            return None
        end = self._text.find(quote, self._at + 1)
        if end < 0:
            raise self._error("Missing end quote.", self._at)
        value = self._text[self._at + 1 : end]
        self._at = end + 1
        return value

    # -- grammar ------------------------------------------------------------------------------

    def whole(self) -> Test:
        found = self._either()
        self._skip_space()
        if self._at < len(self._text):
            raise self._error("Expecting logical operator", self._at)
        return found

    def _either(self) -> Test:
        terms = [self._both()]
        while self._take(_OR):
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else lambda row: any(term(row) for term in terms)

    def _both(self) -> Test:
        factors = [self._factor()]
        while self._take(_AND):
            factors.append(self._factor())
        return factors[0] if len(factors) == 1 else lambda row: all(f(row) for f in factors)

    def _factor(self) -> Test:
        negated = self._takes("!")
        if not self._takes("("):
            if negated:
                raise RefusedError(
                    f"Syntax error: left parenthesis expected at '{self._text[self._at :]}'"
                )
            return self._condition()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error("Too many parentheses within each other.", self._at)
        inner = self._either()
        self._depth -= 1
        if not self._takes(")"):
            raise RefusedError(
                f"Syntax error: right parenthesis expected at '{self._text[self._at :]}'"
            )
        return (lambda row: not inner(row)) if negated else inner

    def _condition(self) -> Test:
        self._skip_space()
        start = self._at
        name = self._take(_FIELD)
        if name is None:
            raise self._error("Expecting field name", start)
        field = find_field(name, self._default)
        if field is None:
            raise self._error(f"Unrecognised selection field: {name}", start)
        operator = self._take(_OPERATOR)
        if operator is None:
            rest = self._text[self._at :]
            raise self._error(f"Unrecognised comparison operator: {rest}", start)
        value = self._value(field, operator, start)
        self.fields.append(field)
        try:
            return compare(field, operator, value)
        except ValueError as error:
            raise self._error(str(error), start) from None

    def _value(self, field: Field, operator: str, start: int) -> str | tuple[str, str, list[str]]:
        if field.kind == "list" and operator in ("=", "!="):
            for begin, end in ("[]", "{}"):
                if self._takes(begin):
                    joint, items = self._items(field, end, start)
                    return begin, joint, items
        quoted = self._quoted()
        if quoted is not None:
            return quoted
        return self._take(_REGEX if operator in ("=~", "!~") else _WORD) or ""

    def _items(self, field: Field, end: str, start: int) -> tuple[str, list[str]]:
        """("&&" or "||", the words) up to the bracket."""
        items: list[str] = []
        joints: set[str] = set()
        while not self._takes(end):
            if items:
                joint = "&&" if self._take(_AND) else "||" if self._take(_OR) else None
                if joint is None:
                    raise self._error("Invalid operator in selection list.", start)
                joints.add(joint)
            item = self._quoted()
            if item is None:
                item = self._take(_ITEM)
            if item is None:
                raise self._error(
                    f"Failed to parse string list value for selection field {field.name}.", start
                )
            items.append(item)
        if len(joints) > 1:
            raise self._error(
                "Only one type of logical operator allowed in selection list at a time.", start
            )
        return joints.pop() if joints else "&&", items


def parse_selection(text: str | None, default: str) -> Selection:
    """RefusedError (exit code 5) with LVM2's words. `default`: the prefix of field names that may
    be left out."""
    if not text:
        return Selection(lambda row: True)
    parser = _Parser(text, default)
    chooses = parser.whole()
    return Selection(chooses, tuple(parser.fields))
