"""`-S`: which rows of a report are shown (lvmreport(7), section Selection).

    expression  term (|| term)*           # is || too
    term        factor (&& factor)*       , is && too
    factor      [!] ( expression )  |  field operator value
    operator    = != > < >= <=   =~ !~ with a regular expression   since after until before of times

A value is a bare word or a quoted string. Of a list field it may be [a && b], which the list must
equal, or {a && b}, which the list must contain; with || one that it has is enough. Words that mean
nothing here, and values that no field could have, are errors, as in LVM2: exit code 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ulvm.errors import RefusedError
from ulvm.report.conditions import TIME_OPERATORS, Bracketed, compare, reserved_words
from ulvm.report.fields import VOLUME_FIELDS
from ulvm.report.helptext import HelpAsked, operand_lines, selectable_lines, selection_lines
from ulvm.report.table import Field
from ulvm.report.vocabulary import Vocabulary

__all__ = ["Selection", "parse_selection"]

Test = Callable[[Any], bool]

_MAX_DEPTH = 64
"""Of parentheses: a test of a row calls those within it."""

_FIELD = re.compile(r"[A-Za-z0-9_-]+")
_OPERATOR = re.compile(r"=~|!~|!=|>=|<=|=|>|<|since|after|until|before")
_AND = re.compile(r"&&|,")
_OR = re.compile(r"\|\||#")
_WORD = re.compile(r"(?:(?!&&|\|\|)[^\s,#)])+")
_NUMBER = re.compile(r"[0-9.]+")
_SIZE = re.compile(r"[0-9.]+[bBsSkKmMgGtTpPeE]?")
_UNIT = re.compile(r"[bBsSkKmMgGtTpPeE]")
_PERCENT = re.compile(r"[0-9.]+%?")
_ITEM = re.compile(r"(?:(?!&&|\|\|)[^\s,#\]}])+")
_NUMERIC = {"num": "numeric", "size": "size", "pct": "percent"}
_VALUES = {"num": _NUMBER, "size": _SIZE, "pct": _PERCENT}
_PATTERN_ENDS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'"}

_SEE_HELP = "Use 'help' for selection to get more help."


class Selection:
    """A test of rows, and the fields that it looks at."""

    def __init__(self, chooses: Test, fields: tuple[Field, ...] = ()) -> None:
        self._chooses = chooses
        self.fields = fields

    def __call__(self, row: Any) -> bool:
        return self._chooses(row)


class _Parser:
    def __init__(self, text: str, default: str, vocabulary: Vocabulary) -> None:
        self._text = text
        self._default = default
        self._vocabulary = vocabulary
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
        lines = f"{reason}\nSelection syntax error at '{self._text[at:]}'.\n{_SEE_HELP}"
        return RefusedError(lines)

    def _quoted(self, ends: dict[str, str] | None = None) -> str | None:
        """ValueError without the end of what has begun."""
        self._skip_space()
        quote = self._text[self._at : self._at + 1]
        ends = {'"': '"', "'": "'"} if ends is None else ends
        if quote not in ends:
            return None
        end = self._text.find(ends[quote], self._at + 1)
        if end < 0:
            raise ValueError("Missing end quote.")
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
                raise self._parenthesis("left")
            return self._condition()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error("Too many parentheses within each other.", self._at)
        inner = self._either()
        self._depth -= 1
        if not self._takes(")"):
            raise self._parenthesis("right")
        return (lambda row: not inner(row)) if negated else inner

    def _parenthesis(self, side: str) -> RefusedError:
        rest = self._text[self._at :]
        return RefusedError(f"Syntax error: {side} parenthesis expected at '{rest}'")

    def _condition(self) -> Test:
        self._skip_space()
        start = self._at
        name = self._take(_FIELD)
        if name is None:
            raise self._error("Expecting field name", start)
        if name.lower() == "help":
            lines = selectable_lines(self._vocabulary.sections)
            words = f"Selection field is uncomparable: {name}."
            raise self._error(self._with(lines, words), start)
        field = self._vocabulary.find(name, self._default)
        if field is None:
            lines = selectable_lines(self._vocabulary.sections)
            raise self._error(self._with(lines, f"Unrecognised selection field: {name}"), start)
        operator = self._operator(field, start)
        value = self._value(field, operator, start)
        self.fields.append(field)
        try:
            return compare(field, operator, value)
        except ValueError as error:
            if operator in ("=~", "!~"):
                reason = (
                    f"dm_report: failed to create regex matcher for selection field {field.name}"
                )
                raise RefusedError(f"{error}\n{reason}") from None
            if "out of supported range" in str(error):
                raise RefusedError(str(error)) from None
            raise self._error(str(error), start) from None

    @staticmethod
    def _with(lines: list[str], words: str) -> str:
        return "\n".join([*lines, words])

    def _operator(self, field: Field, start: int) -> str:
        behind = self._at
        operator = self._take(_OPERATOR)
        operands = operand_lines(self._vocabulary.sections)
        if operator is None:
            rest = self._text[behind:]
            words = f"Unrecognised comparison operator: {rest}"
            raise self._error(self._with(operands, words), start)
        of_time = operator in TIME_OPERATORS
        if operator in ("=~", "!~"):
            if field.type != "str":
                reason = "incompatible comparison type for selection field"
                raise RefusedError(f"dm_report: {reason} {field.name}")
        elif of_time and field.type != "time":
            words = "Operator can be used only with time fields"
            raise self._error(self._with(operands, f"{words}: {self._text[start:]}"), start)
        elif operator not in ("=", "!=") and field.type in ("str", "list"):
            words = "Operator can be used only with number, size, time or percent fields"
            raise self._error(self._with(operands, f"{words}: {self._text[start:]}"), start)
        return operator

    def _value(self, field: Field, operator: str, start: int) -> str | Bracketed:
        try:
            if operator in ("=~", "!~"):
                return self._pattern(field)
            if field.type == "list":
                return self._list(field)
            if field.type in _VALUES:
                return self._numeric(field)
            kind = "time" if field.type == "time" else "string"
            try:
                found = self._quoted()
            except ValueError as error:
                # LVM2 looks twice: for a word that stands for a value, and for the value.
                failed = f"Failed to parse {kind} value for selection field {field.name}."
                raise ValueError(f"{error}\n{error}\n{failed}") from None
            return found if found is not None else self._take(_WORD) or ""
        except ValueError as error:
            raise self._error(str(error), start) from None

    def _pattern(self, field: Field) -> str:
        found = self._quoted(_PATTERN_ENDS)
        if found is None:
            found = self._take(_WORD)
        if found is None:
            raise ValueError(f"Regular expression expected for selection field {field.name}")
        return found

    def _numeric(self, field: Field) -> str:
        """A word that stands for a number, or a number; what is left over comes next."""
        before = self._at
        quoted = self._quoted()
        word = quoted if quoted is not None else self._take(_WORD)
        if word is not None and word in reserved_words(field):
            return word
        self._at = before
        number = self._take(_VALUES[field.type])
        if number is None:
            raise ValueError(f"Failed to parse numeric value for selection field {field.name}.")
        found = None
        if field.type != "pct" and self._text.startswith("%", self._at):
            found = "percent value"
        elif field.type != "size" and number[-1] != "%" and _UNIT.match(self._text, self._at):
            found = "size unit specifier"
        if found is not None:
            wanted = f"{_NUMERIC[field.type]} value expected for selection field {field.name}."
            raise ValueError(f"Found {found} but {wanted}")
        return number

    def _list(self, field: Field) -> str | Bracketed:
        failed = f"Failed to parse string list value for selection field {field.name}."
        for begin, end in ("[]", "{}"):
            if self._takes(begin):
                try:
                    return (begin, *self._items(end, failed))
                except ValueError as error:
                    raise ValueError(f"{error}\n{failed}".lstrip("\n")) from None
        try:
            quoted = self._quoted()
        except ValueError as error:
            raise ValueError(f"{error}\n{failed}") from None
        return quoted if quoted is not None else self._take(_WORD) or ""

    def _items(self, end: str, failed: str) -> tuple[str, list[str]]:
        """("&&" or "||", the words) up to the bracket; an item that is left out is blank. `failed`
        is what an item without its end is told by, and the list once more."""
        items: list[str] = []
        joints: set[str] = set()
        expected = False
        while not self._takes(end):
            if expected:
                joint = "&&" if self._take(_AND) else "||" if self._take(_OR) else None
                if joint is None:
                    if self._text[self._at : self._at + 1] in ("]", "}"):
                        raise ValueError(f"List ended with incorrect character, expecting '{end}'.")
                    raise ValueError("Invalid operator in selection list.")
                joints.add(joint)
                if len(joints) > 1:
                    raise ValueError(
                        "Only one type of logical operator allowed in selection list at a time."
                    )
                expected = False
                continue
            try:
                item = self._quoted()
            except ValueError as error:
                raise ValueError(f"{error}\n{failed}") from None
            if item is None:
                item = self._take(_ITEM)
            if item is None and self._at >= len(self._text):
                raise ValueError("")
            items.append(item or "")
            expected = True
        if not expected:
            items.append("")
        return joints.pop() if joints else "&&", items


def parse_selection(
    text: str | None, default: str, vocabulary: Vocabulary = VOLUME_FIELDS
) -> Selection:
    """RefusedError (exit code 5) with LVM2's words; HelpAsked for `help`. `default`: the prefix of
    field names that may be left out."""
    if not text or text.strip().lower() == "all":
        return Selection(lambda row: True)
    if text.strip().lower() in ("help", "?"):
        raise HelpAsked("\n".join(selection_lines(vocabulary.sections)))
    parser = _Parser(text, default, vocabulary)
    chooses = parser.whole()
    return Selection(chooses, tuple(parser.fields))
