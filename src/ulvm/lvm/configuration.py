"""The configuration as text (lvmconfig(8)): settings chosen by type, version and name, as LVM shows
them.

What is shown is a tree in which a leaf is a line or two of comments, and one for the setting.
Settings that ulvm knows come in LVM2's order with those of the file that it does not know behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulvm.errors import NotFoundError
from ulvm.metadata.tree import Section, Value, escape
from ulvm.vgstore.config import Config
from ulvm.vgstore.host import Host
from ulvm.vgstore.settings import (
    Setting,
    Version,
    check_settings,
    find_setting,
    known_sections,
    known_settings,
)

__all__ = ["TYPES", "Presentation", "show_configuration", "validate"]

TYPES = (
    "current", "default", "diff", "full", "list", "missing", "new", "profilable",
    "profilable-command", "profilable-metadata",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Presentation:
    """How, and what, besides the type. `at` and `since` are versions of LVM2."""

    comments: bool = False
    summary: bool = False
    spaces: bool = False
    versions: bool = False
    at: Version | None = None
    since: Version | None = None
    deprecated: bool = False
    unsupported: bool = False
    ignore_advanced: bool = False
    ignore_unsupported: bool = False
    ignore_local: bool = False
    merged: bool = False


@dataclass(frozen=True, slots=True)
class _Leaf:
    path: str
    setting: Setting | None
    text: str | None
    """What stands behind `=`; None where there is no value."""
    commented: bool = False


def validate(config: Config, *, merged: bool) -> list[str]:
    """What is wrong with the foremost source of settings, or with all together."""
    return check_settings(config.tree if merged else _front(config))


def show_configuration(
    host: Host, kind: str, how: Presentation, names: Sequence[str]
) -> tuple[list[str], NotFoundError | None]:
    """(lines, what went wrong): sections or settings `names` in their order, or all. After the
    first name that is not there nothing more is shown."""
    leaves = list(_leaves(host, kind, how))
    if not names:
        return list(_sections(leaves, kind, how)), None
    lines: list[str] = []
    for name in names:
        path = name.strip("/")
        chosen = [leaf for leaf in leaves if _below(leaf.path, path)]
        known = path in known_sections() and not (path == "local" and how.ignore_local)
        if not chosen and not (known and kind not in ("current", "diff")):
            return lines, NotFoundError(f"Configuration node {name} not found")
        if kind == "list":
            lines += _list(chosen, how)
        elif len(chosen) == 1 and chosen[0].path == path:
            lines += _setting(chosen[0], how, 0)
        else:
            lines += _sections(chosen, kind, how)
    return lines, None


def _below(path: str, wanted: str) -> bool:
    return path == wanted or path.startswith(f"{wanted}/")


# -- which ----------------------------------------------------------------------------------------


def _front(config: Config) -> Section:
    return config.layers[-1].tree if config.layers else {}


def _leaves(host: Host, kind: str, how: Presentation) -> Iterator[_Leaf]:
    directories = {"SYS": host.system_dir, "RUN": host.run_dir}
    if kind == "current":
        tree = host.config.tree if how.merged else _front(host.config)
        for path, value in _values(tree):
            setting = find_setting(path)
            # LVM2 shows what is wrong outside the sections alone.
            if "/" not in path if setting is None else _shown_from_file(setting, how):
                yield _Leaf(path, setting, _text(value))
        return
    values = dict(_values(host.config.tree))
    if kind == "diff":
        for path, value in values.items():
            setting = find_setting(path)
            if setting is None or not _shown_from_file(setting, how) or _invalid(path, value):
                continue
            if _items(value) != _items(setting.default_value(directories)):
                yield _Leaf(path, setting, _text(value))
        return
    for setting in known_settings().values():
        in_force = kind == "full" and setting.path in values and _shown_from_file(setting, how)
        if not (in_force or _wanted(setting, kind, how)):
            continue
        if setting.path in values:
            if kind == "missing":
                continue
            if kind == "full":
                yield _Leaf(setting.path, setting, _text(values[setting.path]))
                continue
        text = setting.default_text(directories)
        if kind == "full" and text is None:
            continue
        commented = kind != "full" and "plain" not in setting.flags
        if text is not None or "<" not in setting.path or how.comments or how.summary:
            text = _spaced(setting, directories, how) or text
            yield _Leaf(setting.path, setting, text, commented)
    if kind == "full":
        for path, value in values.items():
            if path not in known_settings():
                yield _Leaf(path, None, _text(value))


def _values(tree: Section, path: str = "") -> Iterator[tuple[str, Value]]:
    for name, node in tree.items():
        inner = f"{path}{name}"
        if isinstance(node, dict):
            yield from _values(node, f"{inner}/")
        else:
            yield inner, node


def _shown_from_file(setting: Setting, how: Presentation) -> bool:
    return not (
        (how.ignore_advanced and "advanced" in setting.flags)
        or (how.ignore_unsupported and "unsupported" in setting.flags)
        or (how.ignore_local and setting.section == "local")
        or (how.at is not None and setting.since > how.at)
    )


def _wanted(setting: Setting, kind: str, how: Presentation) -> bool:
    if not _shown_from_file(setting, how):
        return False
    if "unsupported" in setting.flags and not how.unsupported:
        return False
    gone = setting.deprecated
    if gone is not None and not how.deprecated and not (how.at is not None and how.at < gone):
        return False
    if kind == "new":
        return how.since is not None and setting.since >= how.since
    if kind.startswith("profilable"):
        wanted = {kind.partition("-")[2]} - {""} or {"command", "metadata"}
        return bool(setting.flags & wanted)
    return True


def _invalid(path: str, value: Value) -> bool:
    tree: Section = {}
    node = tree
    *sections, name = path.split("/")
    for section in sections:
        inner: Section = {}
        node[section] = inner
        node = inner
    node[name] = value
    return bool(check_settings(tree))


def _items(value: Value | None) -> list[object]:
    return list(value) if isinstance(value, list) else [value]


# -- how ------------------------------------------------------------------------------------------


def _text(value: Value) -> str:
    """As in LVM, a list of one is shown as a scalar."""
    if isinstance(value, list):
        items = [_text(item) for item in value]
        return items[0] if len(items) == 1 else f"[{','.join(items)}]"
    return f'"{escape(value)}"' if isinstance(value, str) else str(value)


def _spaced(setting: Setting, directories: Mapping[str, Path], how: Presentation) -> str | None:
    value = setting.default_value(directories)
    if not how.spaces or not isinstance(value, list):
        return None
    return f"[ {', '.join(_text(item) for item in value)} ]" if value else "[ ]"


def _sections(leaves: Iterable[_Leaf], kind: str, how: Presentation) -> Iterator[str]:
    """Leaves, grouped by section in the order of their first ones."""
    if kind == "list":
        yield from _list(leaves, how)
        return
    groups: dict[str, list[_Leaf]] = {}
    for leaf in leaves:
        section, slash, _ = leaf.path.partition("/")
        groups.setdefault(section if slash else "", []).append(leaf)
    for section, members in groups.items():
        if not section:
            for leaf in members:
                yield from _setting(leaf, how, 0)
            continue
        info = known_sections().get(section)
        hidden = info is not None and info.commented and all(m.commented for m in members)
        mark = "# " if hidden else ""
        if info is not None and (how.comments or how.summary):
            yield from ("", f"# Configuration section {section}.", f"# {info.summary}")
        if how.versions and info is not None:
            first = min(s.since for s in known_settings().values() if s.section == section)
            yield f"# Available since version {'.'.join(map(str, first))}."
        yield f"{mark}{section} {{"
        yield from _members(members, how, 1, mark)
        yield f"{mark}}}"


def _members(leaves: Sequence[_Leaf], how: Presentation, depth: int, mark: str) -> Iterator[str]:
    """The inside of a section; leaves that lie deeper come with their subsections."""
    indent = "\t" * depth
    done = set()
    for leaf in leaves:
        parts = leaf.path.split("/")
        if len(parts) == depth + 1:
            yield from _setting(leaf, how, depth)
        elif parts[depth] not in done:
            done.add(parts[depth])
            inner = [x for x in leaves if x.path.split("/")[: depth + 1] == parts[: depth + 1]]
            yield f"{indent}{mark}{parts[depth].strip('<>')} {{"
            yield from _members(inner, how, depth + 1, mark)
            yield f"{indent}{mark}}}"


def _setting(leaf: _Leaf, how: Presentation, depth: int) -> Iterator[str]:
    indent = "\t" * depth
    setting = leaf.setting
    if setting is not None and (how.comments or how.summary):
        yield ""
        yield f"{indent}# Configuration option {setting.path}."
        yield f"{indent}# {setting.summary}"
        if setting.deprecated is not None:
            yield f"{indent}# This configuration option is deprecated."
        if "advanced" in setting.flags and how.comments:
            yield f"{indent}# This configuration option is advanced."
        if setting.default is None:
            yield f"{indent}# This configuration option does not have a default value defined."
        elif setting.deprecated is None:
            yield f"{indent}# This configuration option has an automatic default value."
    if setting is not None and how.versions:
        yield f"{indent}# Available since version {'.'.join(map(str, setting.since))}."
        if setting.deprecated is not None:
            yield f"{indent}# Deprecated since version {'.'.join(map(str, setting.deprecated))}."
    if leaf.text is not None:
        name = leaf.path.rpartition("/")[2]
        equals = " = " if how.spaces and leaf.commented else "="
        yield f"{indent}{'# ' if leaf.commented else ''}{name}{equals}{leaf.text}"


def _list(leaves: Iterable[_Leaf], how: Presentation) -> Iterator[str]:
    for leaf in leaves:
        assert leaf.setting is not None
        line = leaf.path
        if how.summary:
            line += f" - {leaf.setting.summary} "
        if how.versions:
            line += ("" if how.summary else " - ") + f"[{'.'.join(map(str, leaf.setting.since))}]"
        yield line
