"""`-S`: which rows of a report are shown (lvmreport(7), section Selection).

    expression  or-term (|| or-term)*        or-term  factor (&& factor)*       , is && too
    factor      ! factor | ( expression ) | field operator value
    operator    =  !=  >  <  >=  <=  =~  !~

Values are bare words or quoted strings; sizes may have units. Strings compare as strings, with
=~ as a regular expression that may match anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ulvm.errors import UsageError
from ulvm.lvm.sizes import parse_size
from ulvm.report.columns import find_field
from ulvm.report.fields import Field
from ulvm.report.rows import Row

__all__ = ["Selection", "parse_selection"]

Selection = Callable[[Row], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<op>&&|\|\||=~|!~|!=|>=|<=|=|>|<|!|\(|\)|,)"""
    r"""|"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<word>[^\s&|=!<>(),"']+))"""
)
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}


class _Parser:
    def __init__(self, text: str, default: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        self._text = text
        self._default = default
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._error(at)
            kind = match.lastgroup or ""
            self._tokens.append((kind, match.group(kind), match.start(kind)))
            at = match.end()
        self._at = 0

    def _error(self, at: int) -> UsageError:
        rest = self._text[at:]
        return UsageError(f"Selection syntax error at '{rest}'.")

    def _peek(self) -> str:
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "op":
            return self._tokens[self._at][1]
        return ""

    def _take(self) -> tuple[str, str, int]:
        if self._at >= len(self._tokens):
            raise self._error(len(self._text))
        self._at += 1
        return self._tokens[self._at - 1]

    def whole(self) -> Selection:
        found = self._either()
        if self._at < len(self._tokens):
            raise self._error(self._tokens[self._at][2])
        return found

    def _either(self) -> Selection:
        terms = [self._both()]
        while self._peek() == "||":
            self._take()
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else lambda row: any(term(row) for term in terms)

    def _both(self) -> Selection:
        factors = [self._factor()]
        while self._peek() in ("&&", ","):
            self._take()
            factors.append(self._factor())
        return factors[0] if len(factors) == 1 else lambda row: all(f(row) for f in factors)

    def _factor(self) -> Selection:
        if self._peek() == "!":
            self._take()
            inner = self._factor()
            return lambda row: not inner(row)
        if self._peek() == "(":
            self._take()
            inner = self._either()
            kind, text, at = self._take()
            if (kind, text) != ("op", ")"):
                raise self._error(at)
            return inner
        return self._condition()

    def _condition(self) -> Selection:
        kind, name, at = self._take()
        if kind == "op":
            raise self._error(at)
        field = find_field(name, self._default)
        if field is None:
            raise UsageError(f"Unrecognised selection field: {name}")
        kind, operator, at = self._take()
        if kind != "op" or operator not in (*_COMPARE, "=~", "!~"):
            raise self._error(at)
        kind, value, at = self._take()
        if kind == "op":
            raise self._error(at)
        return _condition(field, operator, value)


def _condition(field: Field, operator: str, value: str) -> Selection:
    if operator in ("=~", "!~"):
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise UsageError(f"Invalid regular expression {value!r}: {error}.") from None
        wanted = operator == "=~"
        return lambda row: (pattern.search(str(field.value(row) or "")) is not None) == wanted
    if field.kind in ("num", "size", "pct"):
        compare = _COMPARE[operator]
        number = _number(field, value)
        return lambda row: _compares(field.value(row), compare, number)
    if operator not in ("=", "!="):
        raise UsageError(f"Operator {operator} cannot be used with the string field {field.name}.")
    return lambda row: (str(field.value(row) or "") == value) == (operator == "=")


def _number(field: Field, value: str) -> int:
    """In the field's unit; per cents in hundredths."""
    if field.kind == "size":
        try:
            return parse_size(value).sectors or 0
        except UsageError:
            if value.rstrip("bskmgtpeBSKMGTPE") in ("0", "0.00"):
                return 0
            raise
    try:
        return round(float(value) * 100) if field.kind == "pct" else int(value)
    except ValueError:
        raise UsageError(f"Field {field.name} cannot be compared with {value!r}.") from None


def _compares(found: str | int | None, compare: Callable[[int, int], bool], number: int) -> bool:
    if found is None or found == "":
        return False
    return compare(round(float(found) * 100) if isinstance(found, str) else found, number)


def parse_selection(text: str | None, default: str) -> Selection:
    """A predicate over rows; UsageError. `default` is the kind of report: lv, vg or pv."""
    if text is None or not text.strip():
        return lambda row: True
    return _Parser(text, default).whole()
