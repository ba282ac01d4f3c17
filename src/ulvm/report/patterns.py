"""Regular expressions as libdevmapper has them, made into Python's.

    . any character   * + ?   |   ( )   [abc] [^a-z]   ^ $   \\x the character x, \\n \\r \\t

Braces mean themselves, there are no classes such as \\d, and a bracket that nothing opened ends
the expression. Before the text and behind it stands one character each, which `^` and `$` mean, and
which `.` and `[^a]` match like any other: `.snap` finds `snap` too, `^.snap` does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["compile_pattern"]

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_MISSING = "missing ')' in regular expression\nParse error in regex\nCouldn't parse regex"
_MAX_DEPTH = 64
_BEGIN, _END = "\x02", "\x03"
_ANY = r"[^\n\r]"


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> str:
        return self._either()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        found = self._peek()
        if not found:
            raise ValueError(_MISSING)
        self._at += 1
        return found

    def _either(self) -> str:
        terms = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            terms.append(self._sequence())
        return "|".join(terms)

    def _sequence(self) -> str:
        found = []
        while self._peek() not in ("", "|", ")"):
            atom = self._atom()
            repeats = ""
            while self._peek() in ("*", "+", "?") and self._peek():
                sign = self._next()
                # Twice the same is once; of two the one that allows more.
                repeats = sign if repeats in ("", sign) else "*"
            found.append(f"(?:{atom}){repeats}" if repeats else atom)
        if not found:
            raise ValueError(_MISSING)
        return "".join(found)

    def _atom(self) -> str:
        sign = self._next()
        if sign == "(":
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise ValueError(_MISSING)
            inner = self._either()
            self._depth -= 1
            if self._next() != ")":
                raise ValueError(_MISSING)
            return f"(?:{inner})"
        if sign == "[":
            return self._set()
        if sign in "*+?":
            raise ValueError(_MISSING)
        if sign == "\\":
            escaped = self._next()
            return re.escape(_ESCAPES.get(escaped, escaped))
        return {".": _ANY, "^": _BEGIN, "$": _END}.get(sign, re.escape(sign))

    def _set(self) -> str:
        negated = self._peek() == "^"
        self._at += negated
        members: list[str] = []
        while (sign := self._next()) != "]":
            if sign == "\\":
                escaped = self._next()
                sign = _ESCAPES.get(escaped, escaped)
            elif sign == "-" and members and self._peek() != "]":
                last, first = ord(self._next()), ord(members[-1])
                members += map(chr, range(first, min(last, first + 256) + 1))
                continue
            members.append(sign)
        listed = "".join(
            f"\\u{ord(member):04x}" if ord(member) < 0x10000 else member
            for member in dict.fromkeys(members)
        )
        if not listed:
            return r"(?s:.)" if negated else r"(?!)"
        return f"[{'^' if negated else ''}{listed}]"


def compile_pattern(text: str) -> Callable[[str], bool]:
    """Whether it is found in a text; ValueError with libdevmapper's words."""
    search = re.compile(_Reader(text).whole()).search
    return lambda found: search(f"{_BEGIN}{found}{_END}") is not None
