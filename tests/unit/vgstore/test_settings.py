"""The table of settings, what is said of wrong ones, and the sources that make a configuration."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import ulvm
from ulvm.errors import RefusedError, UsageError
from ulvm.metadata.tree import parse
from ulvm.vgstore.config import Config
from ulvm.vgstore.host import Host, lvm_environment
from ulvm.vgstore.settings import (
    check_profile,
    check_settings,
    find_setting,
    host_tags,
    known_sections,
    known_settings,
    parse_version,
)
from ulvm.vgstore.settings_table import REASONS

READERS = {"get_int", "get_str", "get_bool", "get_list"}


def _reads() -> Iterator[tuple[str, object, str]]:
    """(setting, default, module) of every place where a setting with a fixed name is read."""
    for path in Path(ulvm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in READERS
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and "/" in str(node.args[0].value)
            ):
                default = node.args[1] if len(node.args) > 1 else None
                value = default.value if isinstance(default, ast.Constant) else None
                yield str(node.args[0].value), value, path.name


def test_what_is_read_is_known_with_the_default_that_counts() -> None:
    found = list(_reads())
    assert len(found) > 15
    directories = {"SYS": Path("/s"), "RUN": Path("/r")}
    for name, default, module in found:
        setting = find_setting(name)
        assert setting is not None, f"{module} reads {name}, which is in no table"
        assert setting.has_effect, f"{module} reads {name}"
        if default is not None and setting.default is not None:
            assert setting.default_value(directories) == default, f"{module}: {name}"


def test_what_is_said_to_do_something_is_read() -> None:
    """By its name, or as one of a family whose names are put together."""
    sources = [
        path.read_text(encoding="utf-8")
        for path in Path(ulvm.__file__).parent.rglob("*.py")
        if path.stem not in ("settings_table", "examples")
    ]
    families = ("report/", "log/command_log_", "tags/")
    unread = [
        setting.path
        for setting in known_settings().values()
        if setting.has_effect
        and not setting.path.startswith(families)
        and not any(setting.path in text for text in sources)
    ]
    assert unread == []


def test_what_does_nothing_says_why() -> None:
    assert all(setting.summary for setting in known_settings().values())
    used = {f[1:] for s in known_settings().values() for f in s.flags if f.startswith("!")}
    assert used == set(REASONS)


def test_every_default_passes_the_check_of_its_type() -> None:
    for setting in known_settings().values():
        assert setting.section in known_sections()
        if setting.default is not None and "<" not in setting.path:
            section, _, name = setting.path.partition("/")
            assert check_settings({section: parse(f"{name} = {setting.default}")}) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("devices { dir = '/dev' scan = [ '/a' ] } tags { foo { host_list = 'x' } }", None),
        ("bar = 3", "Configuration setting \"bar\" invalid. It's not part of any section."),
        ("nosuch { x = 1 }", 'Configuration section "nosuch" unknown.'),
        ("devices { foo = 1 }", 'Configuration setting "devices/foo" unknown.'),
        ("global { units = 3 }", 'WARNING: Configuration setting "global/units" has invalid type. '
         "Found integer but expected string."),
        ("global { umask = 'x' }", 'WARNING: Configuration setting "global/umask" has invalid '
         "type. Found string but expected integer."),
        ("devices { scan = [ 1 ] }", 'WARNING: Configuration setting "devices/scan" has invalid '
         "type. Found integer but expected array with values of type: string."),
        ("devices { dir { x = 1 } }", 'WARNING: Configuration setting "devices/dir" has invalid '
         "type. Found section but expected string."),
        ("backup { archive = 'zz' }", 'Configuration setting "backup/archive" invalid. Found '
         'string value "zz", expected boolean value: 0/1, "y/n", "yes/no", "on/off", '
         '"true/false".'),
        ("devices { dir = '' }", 'Configuration setting "devices/dir" invalid. It cannot be set '
         "to an empty value."),
        ("devices { filter = [] }", 'Configuration setting "devices/filter" invalid. Empty value '
         "not allowed."),
    ],
)  # fmt: skip
def test_the_words_of_the_check(text: str, said: str | None) -> None:
    assert check_settings(parse(text)) == ([] if said is None else [said])


def test_an_empty_text_is_no_directory(tmp_path: Path) -> None:
    """Locks and backups in whatever directory a command is started in would be those of nobody."""
    empty = 'global/locking_dir="" backup/backup_dir="" backup/archive_dir="" log/prefix=""'
    host = Host(tmp_path / "etc", tmp_path / "run", Config().with_overrides(empty))
    assert host.lock_dir == tmp_path / "run/lock"
    assert (host.backup_dir, host.archive_dir) == (
        tmp_path / "etc/backup",
        tmp_path / "etc/archive",
    )
    assert host.config.get_str("log/prefix", "  ") == ""


def test_a_profile_sets_what_its_kind_may() -> None:
    assert check_profile(parse("report { headings = 0 } global { units = 'b' }"), "command") is None
    assert check_profile(parse("devices { dir = '/x' }"), "command") == (
        'Configuration section "devices" is not customizable by a profile.'
    )
    assert check_profile(parse("allocation { thin_pool_zero = 0 }"), "command") == (
        'Configuration option "allocation/thin_pool_zero" is customizable by metadata profile '
        "only, not command profile."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nope { a = 1 }", 'Configuration section "nope" unknown.'),
        ("report { headings = 0 nope = 2 }", 'Configuration setting "report/nope" unknown.'),
        ("report { nope { x = 1 } }", 'Configuration section "report/nope" unknown.'),
        ('report { headings = "maybe" }', 'Configuration setting "report/headings" invalid.'),
        ("report { headings = 0 }", None),
    ],
)
def test_a_profile_has_nothing_that_is_unknown(text: str, said: str | None) -> None:
    found = check_profile(parse(text), "command")
    assert found == said or (said is not None and found is not None and found.startswith(said))


def test_a_tag_that_no_file_can_be_named_for_has_none(tmp_path: Path) -> None:
    (tmp_path / "ulvm.conf").write_bytes(b'tags { "a\0b" { } "a/b" { } }')
    assert "tags" in Config.load_directory(tmp_path).tree


def test_each_source_counts_before_those_below_it(tmp_path: Path) -> None:
    (tmp_path / "lvm.conf").write_text("global { units = 'a' suffix = 0 umask = 1 test = 1 }")
    host = Host.from_environment({"ULVM_SYSTEM_DIR": str(tmp_path), "ULVM_RUN_DIR": "/r"})
    assert host.config.get_str("global/units", "") == "a"
    (tmp_path / "ulvm.conf").write_text(
        "global { units = 'b' suffix = 0 umask = 1 test = 1 } tags { t { } }"
    )
    (tmp_path / "lvmlocal.conf").write_text("global { units = 'c' suffix = 1 umask = 1 test = 1 }")
    (tmp_path / "lvm_t.conf").write_text("global { umask = 2 test = 1 } tags { further { } }")
    (tmp_path / "lvm_further.conf").write_text("global { test = 3 } tags { t { } }")
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "p.profile").write_text("global { units = 'd' suffix = 2 }")
    host = Host.from_environment(
        {"ULVM_SYSTEM_DIR": str(tmp_path), "ULVM_RUN_DIR": "/r", "ULVM_COMMAND_PROFILE": "p"},
        overrides="global/units = e",
    )
    values = [host.config.get(f"global/{name}") for name in ("units", "suffix", "umask", "test")]
    assert values == ["e", 2, 2, 3]
    assert [layer.source for layer in host.config.layers] == ["file", "command profile", "string"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("a/b", "bad profile name"), ("none", "stat failed"), ("bad", "Parse error")],
)
def test_a_profile_that_cannot_be_applied_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "bad.profile").write_text("global {")
    with pytest.raises(RefusedError, match=said):
        Config().with_profile(tmp_path, name)


@pytest.mark.parametrize("text", ["", " ", "a b", "global {", "global/units"])
def test_an_override_that_is_none_is_a_bad_command_line(text: str) -> None:
    with pytest.raises(UsageError, match="Failed to set overridden"):
        Config().with_overrides(text)


def test_lvms_variables_stand_in_for_those_that_are_not_set() -> None:
    found = lvm_environment(
        {
            "LVM_SYSTEM_DIR": "/l",
            "LVM_COMMAND_PROFILE": "v",
            "ULVM_COMMAND_PROFILE": "u",
            "DM_DEV_DIR": "/d",
        }
    )
    assert found["ULVM_SYSTEM_DIR"] == "/l"
    assert found["ULVM_COMMAND_PROFILE"] == "u"
    host = Host.from_environment({"ULVM_DEV_DIR": found["ULVM_DEV_DIR"], "ULVM_RUN_DIR": "/r"})
    assert host.dev_dir == Path("/d")


def test_tags_of_the_host() -> None:
    tree = parse(
        "tags { hosttags = 1 a { } @b { host_list = [ 'h', 'i' ] } c { host_list = 'x' } }"
    )
    assert host_tags(tree, "h") == ["h", "a", "b"]


def test_versions() -> None:
    assert parse_version("2.3.16") == (2, 3, 16)
    assert [parse_version(text) for text in ("2.3", "a.b.c", "", "1.2.3.4", "²...")] == [None] * 5


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOME")
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: (1 << 31) - 5)  # in no passwd(5)
    with pytest.raises(RefusedError, match="User 2147483643 has no home directory: set HOME, or"):
        Host.from_environment({})
    assert Host.from_environment({"ULVM_SYSTEM_DIR": str(tmp_path)}).run_dir == tmp_path / "run"
