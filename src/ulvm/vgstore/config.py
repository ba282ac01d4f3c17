"""Configuration in LVM's grammar (lvm.conf(5)): files, a profile, and `--config`, each on top.

`<system_dir>/ulvm.conf`, or `lvm.conf` where there is none; then `lvmlocal.conf`; then the
`lvm_<tag>.conf` of each tag of the host; then the profiles; then `--config`.

Keys are LVM's own, plus a section `ulvm/`; `settings.py` knows them all. A key that is not set has
the default that its reader gives. A value of the wrong type is an error where it is read, never a
silent default.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from ulvm.errors import FormatError, RefusedError, SettingsError, UsageError
from ulvm.metadata.tree import Scalar, Section, Value, parse

__all__ = ["CONFIG_FILES", "Config", "Layer"]

_CONFIG_FILE, _LVM_FILE, _LOCAL_FILE = CONFIG_FILES = ("ulvm.conf", "lvm.conf", "lvmlocal.conf")
"""In a system directory; of the first two the first that there is counts."""

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


class Layer(NamedTuple):
    """One source of settings: `file`, `command profile`, `metadata profile` or `string`."""

    source: str
    tree: Section


class Config(NamedTuple):
    """An immutable tree of settings; paths are `section/key`. `layers`: what it was made of, the
    last one counting most."""

    tree: Section = {}  # noqa: RUF012  (never changed)
    layers: tuple[Layer, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Config:
        """The file's settings; none if there is no such file. SettingsError names the file."""
        tree = _read(path)
        return cls() if tree is None else cls(tree, (Layer("file", tree),))

    @classmethod
    def load_directory(cls, system_dir: Path) -> Config:
        """The settings of all files of a system directory."""
        found = _read(system_dir / _CONFIG_FILE)
        if found is None:
            found = _read(system_dir / _LVM_FILE)
        local = _read(system_dir / _LOCAL_FILE)
        if found is None and local is None:
            return cls()
        tree = _overlay(found or {}, local or {})
        if "tags" in tree:
            from ulvm.vgstore.settings import host_tags

            # The file of a tag may give the host further ones, which have files of their own.
            read: set[str] = set()
            while tags := [t for t in host_tags(tree, os.uname().nodename) if t not in read]:
                read.add(tags[0])
                if not {"/", "\0"} & set(tags[0]):
                    tree = _overlay(tree, _read(system_dir / f"lvm_{tags[0]}.conf") or {})
        return cls(tree, (Layer("file", tree),))

    def with_profile(self, system_dir: Path, name: str, kind: str = "command") -> Config:
        """These settings with those of a profile of a kind (`command`, `metadata`) on top;
        RefusedError in LVM's words if there is no such profile, or one that sets more."""
        if not name:
            raise RefusedError(f"Undefined profile name.\nFailed to add {kind} profile {name}.")
        if "/" in name:
            raise RefusedError(
                f"{name}: bad profile name, it contains '/'.\nFailed to add {kind} profile {name}."
            )
        from ulvm.vgstore.settings import check_profile

        directory = self.get_str("config/profile_dir", str(system_dir / "profile"))
        path = Path(directory) / f"{name}.profile"
        failed = f"Failed to apply {kind} profile {name}."
        try:
            tree = _read(path)
        except FormatError as error:
            raise RefusedError(f"{error.message}\n{failed}") from error
        if tree is None:
            raise RefusedError(f"{path}: stat failed: No such file or directory\n{failed}")
        problem = check_profile(tree, kind)
        if problem is not None:
            raise RefusedError(f"{problem}\nIgnoring invalid {kind} profile {name}.\n{failed}")
        return self._with(f"{kind} profile", tree)

    def with_overrides(self, text: str) -> Config:
        """These settings with those of a `--config` string on top; else UsageError."""
        failed = "Failed to set overridden configuration entries."
        if not text.strip():
            raise UsageError(failed)
        try:
            over = parse(text, merge=True)
        except FormatError as error:
            raise UsageError(f"{error.message}\n{failed}") from error
        return self._with("string", over)

    def _with(self, source: str, tree: Section) -> Config:
        return Config(_overlay(self.tree, tree), (*self.layers, Layer(source, tree)))

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
        """The default also for an empty text, where such has no meaning."""
        value = self.get(path)
        if value is None:
            return default
        if isinstance(value, list):
            raise _wrong(path, value, "a string")
        if value == "":
            from ulvm.vgstore.settings import may_be_empty

            return "" if may_be_empty(path) else default
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


def _read(path: Path) -> Section | None:
    """A file's tree, None if there is no such file; SettingsError names the file."""
    failed = f"Failed to load config file {path}"
    try:
        # What is no UTF-8 may be a comment's.
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise SettingsError(f"{path} is not a regular file\n{failed}") from None
    except OSError as error:
        raise SettingsError(f"{path}: open failed: {error.strerror}\n{failed}") from error
    try:
        return parse(text, merge=True)
    except FormatError as error:
        fault = SettingsError(f"{error.message}\n{failed}")
        fault.main_file = path.name in (_CONFIG_FILE, _LVM_FILE)
        raise fault from error


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
