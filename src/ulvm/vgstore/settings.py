"""What settings there are, and what is wrong with a tree of them (lvmconfig(8), lvm.conf(5)).

A setting that is unknown or of the wrong type is told of and left alone, as LVM does, so that one
file serves several versions; `Config` refuses a wrong type where a command reads it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ulvm.metadata.tree import Scalar, Section, Value, parse
from ulvm.vgstore.settings_table import REASONS, TABLE

__all__ = [
    "SectionInfo",
    "Setting",
    "Version",
    "check_profile",
    "check_settings",
    "find_setting",
    "host_tags",
    "known_sections",
    "known_settings",
    "may_be_empty",
    "parse_version",
]

Version: TypeAlias = tuple[int, int, int]

_UNUSED = "No effect: "
"""How the summary of a setting begins that changes nothing here."""

_TYPES = {
    "b": "boolean",
    "i": "integer",
    "s": "string",
    "S": "string",
    "a": "array with values of type: string",
    "A": "array with values of type: string",
    "x": "array with values of type: integer string",
}
_BOOLEAN_WORDS = frozenset(["0", "1", "y", "n", "yes", "no", "on", "off", "true", "false"])
_OPEN = ("allocation/cache_settings", "tags/")
"""Sections whose members have names of the user's choice."""


@dataclass(frozen=True, slots=True)
class SectionInfo:
    """A section; `commented`: LVM2 shows it as a comment among the defaults."""

    name: str
    commented: bool
    summary: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; `kind` is a letter of `settings_table`, `default` its text there or None."""

    path: str
    kind: str
    since: Version
    deprecated: Version | None
    flags: frozenset[str]
    default: str | None
    summary: str

    @property
    def has_effect(self) -> bool:
        return not self.summary.startswith(_UNUSED)

    @property
    def section(self) -> str:
        return self.path.partition("/")[0]

    def default_text(self, directories: Mapping[str, Path]) -> str | None:
        """The default with this host's directories (`SYS`, `RUN`) in it."""
        text = self.default
        if text is not None and "@" in text:
            for name, path in directories.items():
                text = text.replace(f"@{name}@", str(path))
        return text

    def default_value(self, directories: Mapping[str, Path]) -> Value | None:
        text = self.default_text(directories)
        if text is None:
            return None
        value = parse(f"x = {text}")["x"]
        assert not isinstance(value, dict)
        return value


def parse_version(text: str) -> Version | None:
    """`2.3.15`; None if it is not of that form."""
    parts = text.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])


@functools.cache
def _table() -> tuple[dict[str, SectionInfo], dict[str, Setting]]:
    sections: dict[str, SectionInfo] = {}
    settings: dict[str, Setting] = {}
    section, last = "", ""
    for line in TABLE.strip().splitlines():
        if line.startswith("["):
            section, _, flag = line[1:].partition("]")
            sections[section] = SectionInfo(section, bool(flag), "")
            last = ""
        elif line.startswith(" ") and not last:
            known = sections[section]
            sections[section] = SectionInfo(known.name, known.commented, line.strip())
        elif line.startswith(" "):
            s = settings[last]
            settings[last] = Setting(
                s.path, s.kind, s.since, s.deprecated, s.flags, s.default, line.strip()
            )
        else:
            words, _, default = line.partition(" = ")
            name, kind, since, *flags = words.split(" ")
            gone = next((f[1:] for f in flags if f.startswith("-")), "")
            last = f"{section}/{name}"
            version = parse_version(since)
            assert version is not None, line
            reason = next((f[1:] for f in flags if f.startswith("!")), "")
            settings[last] = Setting(
                last,
                kind,
                version,
                parse_version(gone),
                frozenset(flags),
                default or None,
                _UNUSED + REASONS[reason] if reason else "",
            )
    return sections, settings


def known_sections() -> Mapping[str, SectionInfo]:
    """In LVM2's order."""
    return _table()[0]


def known_settings() -> Mapping[str, Setting]:
    """By path, in LVM2's order."""
    return _table()[1]


def find_setting(path: str) -> Setting | None:
    """Also one below a section with a name of the user's choice."""
    settings = known_settings()
    if path in settings:
        return settings[path]
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "tags":
        return settings.get(f"tags/<tag>/{parts[2]}")
    return None


def may_be_empty(path: str) -> bool:
    """Whether an empty text is a value of this setting; else it counts as none."""
    setting = find_setting(path)
    return setting is None or setting.kind not in "sa"


# -- checks ---------------------------------------------------------------------------------------


def check_settings(tree: Section) -> list[str]:
    """What is wrong with a tree, in LVM2's words; empty if it is valid."""
    found: list[str] = []
    for name, node in tree.items():
        if not isinstance(node, dict):
            found.append(f'Configuration setting "{name}" invalid. It\'s not part of any section.')
        elif name not in known_sections():
            found.append(f'Configuration section "{name}" unknown.')
        else:
            found += _check_section(name, node)
    return found


def _check_section(path: str, section: Section) -> Iterator[str]:
    for name, node in section.items():
        inner = f"{path}/{name}"
        setting = find_setting(inner)
        if setting is not None:
            problem = _problem(setting, inner, node)
            if problem is not None:
                yield problem
        elif inner.startswith(_OPEN):
            if isinstance(node, dict) and not inner.startswith("tags/"):
                continue
            if isinstance(node, dict):
                yield from _check_section(inner, node)
        elif isinstance(node, dict):
            yield f'Configuration section "{inner}" unknown.'
        else:
            yield f'Configuration setting "{inner}" unknown.'


def _problem(setting: Setting, path: str, node: Value | Section) -> str | None:
    wanted = _TYPES[setting.kind]

    def wrong(got: str) -> str:
        return (
            f'WARNING: Configuration setting "{path}" has invalid type. '
            f"Found {got} but expected {wanted}."
        )

    if isinstance(node, dict):
        return wrong("section")
    if node == [] and setting.kind in "ax":
        return f'Configuration setting "{path}" invalid. Empty value not allowed.'
    items: list[Scalar] = node if isinstance(node, list) else [node]
    for item in items:
        if isinstance(item, float):
            return wrong("float")
        if isinstance(item, int):
            if setting.kind in "sSaA":
                return wrong("integer")
        elif setting.kind == "i":
            return wrong("string")
        elif setting.kind == "b" and item not in _BOOLEAN_WORDS:
            return (
                f'Configuration setting "{path}" invalid. Found string value "{item}", expected '
                'boolean value: 0/1, "y/n", "yes/no", "on/off", "true/false".'
            )
        elif item == "" and setting.kind in "sax":
            return f'Configuration setting "{path}" invalid. It cannot be set to an empty value.'
    return None


def check_profile(tree: Section, kind: str) -> str | None:
    """The first thing that a profile of a kind (`command`, `metadata`) may not set, or None."""
    for name, node in tree.items():
        if not isinstance(node, dict):
            return f'Configuration setting "{name}" invalid. It\'s not part of any section.'
        if name not in known_sections():
            return f'Configuration section "{name}" unknown.'
        members = [s for s in known_settings().values() if s.section == name]
        if not any(s.flags & {"command", "metadata"} for s in members):
            return f'Configuration section "{name}" is not customizable by a profile.'
        for inner in node:
            path = f"{name}/{inner}"
            setting = find_setting(path)
            if setting is None and path.startswith(_OPEN):
                continue
            if setting is None:
                kind_of = "section" if isinstance(node[inner], dict) else "setting"
                return f'Configuration {kind_of} "{path}" unknown.'
            problem = _problem(setting, path, node[inner])
            if problem is not None:
                return problem
            other = "metadata" if kind == "command" else "command"
            if kind not in setting.flags and other in setting.flags:
                return (
                    f'Configuration option "{path}" is customizable by {other} profile only, '
                    f"not {kind} profile."
                )
            if kind not in setting.flags:
                return f'Configuration option "{path}" is not customizable by a profile.'
    return None


def host_tags(tree: Section, node_name: str) -> list[str]:
    """The tags that the host of this name has (lvm.conf(5), section `tags`)."""
    section = tree.get("tags")
    if not isinstance(section, dict):
        return []
    found = []
    if section.get("hosttags") in (1, "1", "y", "yes", "on", "true"):
        found.append(node_name)
    for name, node in section.items():
        if not isinstance(node, dict):
            continue
        hosts = node.get("host_list")
        listed = hosts if isinstance(hosts, list) else [hosts]
        if "host_list" not in node or node_name in listed:
            found.append(name.removeprefix("@"))
    return found
