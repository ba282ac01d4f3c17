"""Configuration in LVM's grammar: `<system_dir>/ulvm.conf` and `--config` on top (lvm.conf(5)).

Keys are LVM's own, plus a section `ulvm/`. A key that is not set has the default that its reader
gives. A value of the wrong type is an error where it is read, never a silent default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ulvm.errors import FormatError, UsageError
from ulvm.metadata.tree import Scalar, Section, Value, parse

__all__ = ["Config"]


_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Config:
    """An immutable tree of settings; paths are `section/key`."""

    tree: Section = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Config:
        """The file's settings; none if there is no such file. FormatError names the file."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"Failed to read {path}: {error}") from error
        try:
            return cls(parse(text, merge=True))
        except FormatError as error:
            raise FormatError(f"{path}: {error.message}") from error

    def with_overrides(self, text: str) -> Config:
        """These settings with those of a `--config` string on top; else UsageError."""
        try:
            over = parse(text, merge=True)
        except FormatError as error:
            raise UsageError(
                f"{error.message}\nFailed to set overridden configuration entries."
            ) from error
        return Config(_overlay(self.tree, over))

    def get(self, path: str) -> Value | None:
        """The value at `section/key`, None if it is not set."""
        node: Value | Section | None = self.tree
        for part in path.split("/"):
            if not isinstance(node, dict):
                return None
            node = node.get(part)
        return None if isinstance(node, dict) else node

    def get_int(self, path: str, default: int) -> int:
        value = self.get(path)
        if value is None:
            return default
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            return int(value)
        if not isinstance(value, int):
            raise _wrong(path, value, "an integer")
        return value

    def get_str(self, path: str, default: str) -> str:
        value = self.get(path)
        if value is None:
            return default
        if isinstance(value, list):
            raise _wrong(path, value, "a string")
        return str(value)

    def get_bool(self, path: str, default: bool) -> bool:
        """0 and 1, and the words that LVM takes for them."""
        value = self.get(path)
        if value is None:
            return default
        word = str(value).lower()
        if word in {"1", "y", "yes", "on", "true"}:
            return True
        if word in {"0", "n", "no", "off", "false"}:
            return False
        raise _wrong(path, value, "0 or 1")

    def get_list(self, path: str, default: list[str]) -> list[str]:
        """Strings of a list; a single value counts as a list of one."""
        value = self.get(path)
        if value is None:
            return default
        items: list[Scalar] = value if isinstance(value, list) else [value]
        return [str(v) for v in items]


def _overlay(base: Section, over: Section) -> Section:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = _overlay(old, value)
        else:
            merged[key] = value
    return merged


def _wrong(path: str, value: Value, wanted: str) -> UsageError:
    return UsageError(f"Configuration setting {path} is {value!r}, which is not {wanted}.")
