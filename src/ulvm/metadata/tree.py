"""LVM's text grammar, of metadata and of configuration files (libdm's dm_config, lvm.conf(5)).

    file    = { node }
    node    = key "=" value | key "{" { node } "}"
    value   = scalar | "[" [ scalar { "," scalar } [ "," ] ] "]"
    scalar  = integer | float | "string" | 'raw string' | bare-word
    key     = bare identifier or quoted string; `a/b` is b in section a

`#` begins a comment outside strings. In a double-quoted string a backslash escapes `"` and `\\`;
before anything else it is kept. An integer that begins with 0 is octal (strtoll base 0).

A tree is a plain dict: key -> scalar, list of scalars, or dict, in the order of the file. With
`merge` a section that comes twice is one section and the later value wins, as LVM reads
configuration; without, a key that comes twice is an error, so that nothing in metadata can hide.
`parse_apart` alone lets a value and a section of the file have one name: a VG may be called
`description`, and stands beside the value of that name.

Time and memory are linear in the text; the nesting depth is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import TypeAlias

from ulvm.errors import FormatError

__all__ = [
    "MAX_DEPTH",
    "Scalar",
    "Section",
    "Value",
    "escape",
    "parse",
    "parse_apart",
    "render_value",
]

Scalar: TypeAlias = int | float | str
Value: TypeAlias = "Scalar | list[Scalar]"
Section: TypeAlias = "dict[str, Value | Section]"

MAX_DEPTH = 32
"""Sections inside one another; real metadata use 4."""

# Possessive: a way back for each character of a string would take a hundred times its length.
_TOKEN = re.compile(
    r"""
      (?P<space>[\s\0]+|\#[^\n]*)
    | (?P<string>"[^"\\]*+(?:\\.[^"\\]*+)*+")
    | (?P<raw>'[^']*')
    | (?P<punct>[={}\[\],])
    | (?P<word>[^\s\0"'={}\[\],#]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)")
_ESCAPED = re.compile(r'\\(["\\])')
_INT64 = range(-(1 << 63), 1 << 64)


class _Parser:
    """One pass over the tokens with one token of look-ahead."""

    def __init__(self, text: str, merge: bool) -> None:
        self._text = text
        self._merge = merge
        self._tokens = self._scan()
        self._kind, self._token = next(self._tokens)
        self._at = 0

    def _scan(self) -> Generator[tuple[str, str], None, None]:
        text, at = self._text, 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            self._at = at
            if match is None:
                raise self._error("a string that does not end")
            at = match.end()
            kind = match.lastgroup or ""
            if kind != "space":
                yield kind, match.group()
        self._at = len(text)
        yield "end", ""

    def _error(self, what: str) -> FormatError:
        line = self._text.count("\n", 0, self._at) + 1
        if self._merge:
            # LVM2's words, and its way of counting.
            known = what if what == "expected a value" else "unexpected token"
            return FormatError(f"Parse error at byte {self._at + 1} (line {line}): {known}")
        return FormatError(f"Parse error at byte {self._at} (line {line}): {what}")

    def _advance(self) -> None:
        self._kind, self._token = next(self._tokens)

    def _is(self, punct: str) -> bool:
        return self._kind == "punct" and self._token == punct

    def _unexpected(self, wanted: str) -> FormatError:
        if self._merge and wanted == "a value":
            return self._error("expected a value")
        got = repr(self._token[:40]) if self._kind != "end" else "the end"
        return self._error(f"expected {wanted}, got {got}")

    def file(self) -> Section:
        root: Section = {}
        for _ in self._nodes(root):
            pass
        return root

    def apart(self) -> tuple[Section, dict[str, Section]]:
        values: Section = {}
        sections: dict[str, Section] = {}
        node: Section = {}
        for _ in self._nodes(node):
            name, found = node.popitem()
            if name in (sections if isinstance(found, dict) else values):
                raise self._error(f"{name!r} is there twice")
            if isinstance(found, dict):
                sections[name] = found
            else:
                values[name] = found
        return values, sections

    def _nodes(self, root: Section) -> Iterator[None]:
        """After each of the nodes of the file, which is put into `root`."""
        while self._kind != "end":
            self._node(root, 1)
            yield
        # It refers to this, and this to it: the text would stay until the next look for cycles,
        # which a command that reads a group again for each of its volumes has seldom (cli.start).
        self._tokens.close()

    def _node(self, parent: Section, depth: int) -> None:
        if self._kind in {"punct", "end"}:
            raise self._unexpected("a name")
        if self._kind == "word":
            path = [p for p in self._token.split("/") if p]
            if not path:
                raise self._unexpected("a name")
        else:
            path = [_unquote(self._kind, self._token)]
        if depth + len(path) > MAX_DEPTH:
            raise self._error(f"sections nested more than {MAX_DEPTH} deep")
        self._advance()
        for name in path[:-1]:
            parent = self._section(parent, name)
        if self._is("{"):
            self._advance()
            section = self._section(parent, path[-1])
            while not self._is("}"):
                self._node(section, depth + len(path))
            self._advance()
        elif self._is("="):
            self._advance()
            if path[-1] in parent and not self._merge:
                raise self._error(f"{path[-1]!r} is there twice")
            parent[path[-1]] = self._value()
        else:
            raise self._unexpected('"=" or "{"')

    def _section(self, parent: Section, name: str) -> Section:
        found = parent.get(name)
        if found is not None and not self._merge:
            raise self._error(f"{name!r} is there twice")
        if isinstance(found, dict):
            return found
        section: Section = {}
        parent[name] = section
        return section

    def _value(self) -> Value:
        if not self._is("["):
            return self._scalar()
        self._advance()
        items: list[Scalar] = []
        while not self._is("]"):
            items.append(self._scalar())
            if self._is(","):
                self._advance()
            elif not self._is("]"):
                raise self._unexpected('"," or "]"')
        self._advance()
        return items

    def _scalar(self) -> Scalar:
        kind, token = self._kind, self._token
        if kind in {"string", "raw"}:
            self._advance()
            return _unquote(kind, token)
        if kind != "word":
            raise self._unexpected("a value")
        if _INTEGER.fullmatch(token):
            digits = token.lstrip("+-")
            octal = len(digits) > 1 and digits[0] == "0"
            if len(digits) > 22 or (octal and not set(digits) <= set("01234567")):
                raise self._error(f"{token[:40]!r} is not a number")
            number = int(token, 8 if octal else 10)
            if number not in _INT64:
                raise self._error(f"{token} does not fit in 64 bits")
            self._advance()
            return number
        if _FLOAT.fullmatch(token):
            self._advance()
            return float(token)
        self._advance()
        return token


def _unquote(kind: str, token: str) -> str:
    body = token[1:-1]
    return body if kind == "raw" else _ESCAPED.sub(r"\1", body)


def parse(text: str, *, merge: bool = False) -> Section:
    """The tree of a text; FormatError with byte and line where it is malformed."""
    return _Parser(text, merge).file()


def parse_apart(text: str) -> tuple[Section, dict[str, Section]]:
    """The values and the sections of a text of metadata; FormatError as of `parse`."""
    return _Parser(text, merge=False).apart()


def escape(text: str) -> str:
    """The inside of a double-quoted string."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def render_value(value: Value) -> str:
    """A value as LVM writes it: `"a"`, `7`, `["a", "b"]`, `[]`."""
    if isinstance(value, list):
        return "[" + ", ".join(render_value(v) for v in value) + "]"
    if isinstance(value, str):
        return f'"{escape(value)}"'
    return str(value)
