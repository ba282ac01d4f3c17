"""lvmconfig beside LVM2's own, on the same configuration files."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests import needs
from ulvm.cli.main import main

pytestmark = [needs.root, needs.program("lvm")]

CONF = """
devices { scan = [ "/dev", "/proc" ] filter = "a|.*|" foo = 3 }
global { units = "h" suffix = 1 umask = 077 }
activation { snapshot_autoextend_percent = 70 volume_list = [ "x", "y/z" ] udev_sync = "yes" }
report { columns_as_row = 1 headings = "maybe" }
"""
# What ulvm means otherwise, has not, or has beside LVM2's.
OURS = re.compile(
    r"use_devicesfile|locking_dir|disk_area|tag> ?/|ulvm|durability|snapshot_autoextend_threshold"
)
OPEN_SECTION = re.compile(r"^\s*# (?:cache_settings|tag) \{\n\s*# \}\n", re.MULTILINE)


class Both:
    """LVM2 and ulvm with one system directory."""

    def __init__(self, system_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.system_dir = system_dir
        self._capsys = capsys

    def write(self, name: str, text: str) -> None:
        path = self.system_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def compare(self, line: str) -> None:
        words = shlex.split(line)
        environ = {"LVM_SYSTEM_DIR": str(self.system_dir), "LVM_SUPPRESS_FD_WARNINGS": "1"}
        theirs = subprocess.run(
            ["lvm", "lvmconfig", *words],
            capture_output=True,
            text=True,
            env={**os.environ, **environ},
            check=False,
        )
        rc = main(["lvmconfig", *words])
        said = self._capsys.readouterr()
        assert rc == theirs.returncode
        # In the order of the file; LVM2 turns it round where it has merged two.
        assert sorted(self._lines(said.out)) == sorted(self._lines(theirs.stdout))
        # LVM2 reads a file again for its own ends, and repeats what it has to say of it.
        assert self._lines(said.err) == list(dict.fromkeys(self._lines(theirs.stderr)))

    def _lines(self, text: str) -> list[str]:
        text = OPEN_SECTION.sub("", text.replace(str(self.system_dir), "SYSTEM"))
        text = re.sub(r"^ulvm \{\n(?:\t.*\n)*\}\n", "", text, flags=re.MULTILINE)
        return [line for line in text.splitlines() if not OURS.search(line)]


@pytest.fixture
def both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Both:
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    (tmp_path / "etc").mkdir()
    return Both(tmp_path / "etc", capsys)


@pytest.mark.parametrize(
    "line",
    [
        "--type default",
        "--type default --withspaces global shell",
        "--type default --withversions --showdeprecated --showunsupported devices",
        "--type list --showdeprecated --showunsupported",
        "--type list --withversions shell report/headings",
        "--type new --sinceversion 2.3.10",
        "--type default --atversion 2.2.90",
        "--type profilable",
        "--type profilable-command",
        "--type profilable-metadata",
        "--type default devices/nosuch",
        "--type bogus",
        "--validate --type default",
        "--list --type default",
        "--atversion 2.2.90",
        "--sinceversion 2.2.90",
        "--type new --sinceversion 2",
        "--type list --withcomments",
        "--commandprofile nosuch",
        "--commandprofile a/b",
        "--commandprofile bad",
        "--config global/units=b",
        "--config report/aligned=x",
    ],
)
def test_without_a_file(both: Both, line: str) -> None:
    both.write("profile/bad.profile", 'devices { dir = "/x" }')
    both.compare(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--type current",
        "--type diff",
        "--validate",
        "--validate --config global/units=b",
        "devices/scan global",
        "devices/sysfs_scan",
        "--type full devices/sysfs_scan global/umask",
        "--type missing backup",
        "--withversions global",
        "--config global/units=b",
        "--profile p",
        "--metadataprofile m",
        "--type full --profile p global/units report/headings",
        "-f /nosuch/x",
    ],
)
def test_with_a_file(both: Both, line: str) -> None:
    both.write("lvm.conf", CONF)
    both.write("profile/p.profile", 'report { headings = 0 } global { units = "b" }')
    both.write("profile/m.profile", "allocation { thin_pool_zero = 0 }")
    both.compare(line)


def test_a_file_to_begin_with_is_valid(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    path = both.system_dir / "ulvm.conf"
    assert main(["lvmconfig", "--type", "default", "--withgeneralpreamble", "-f", str(path)]) == 0
    assert "# units=" in path.read_text()
    assert main(["lvmconfig", "--validate"]) == 0
    path.write_text(path.read_text().replace("\t# units=", "\tunit="))
    assert main(["lvmconfig", "--validate"]) == 5
    said = capsys.readouterr()
    assert said.out == "  LVM configuration valid.\n"
    assert 'Configuration setting "global/unit" unknown.' in said.err


@pytest.mark.parametrize(
    "text",
    [
        "global {\n a = \n}\n",
        "global {\n",
        "global }\n",
        "\x01\x02\n",
        'global { units = "b" } }\n',
    ],
)
def test_settings_that_cannot_be_read(both: Both, text: str) -> None:
    """LVM2 reads them before it looks at the words."""
    both.write("lvm.conf", text)
    both.compare("")
    both.compare("--nosuch")
    both.compare("--type default global/units")
    both.write("lvm.conf", "")
    both.write("lvmlocal.conf", text)
    both.compare("")


def test_settings_that_are_no_file(both: Both) -> None:
    (both.system_dir / "lvm.conf").unlink(missing_ok=True)
    (both.system_dir / "lvm.conf").mkdir()
    both.compare("")
