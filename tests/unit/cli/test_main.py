"""The program's front door: names, help, exit codes, and what is imported on the way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ulvm
from ulvm.cli.main import COMMANDS, main

MAIN = "import sys; from ulvm.cli.main import main; sys.exit(main())"


def run(tmp_path: Path, *words: str, name: str = "ulvm") -> subprocess.CompletedProcess[str]:
    """The program under a name, on an empty host."""
    program = tmp_path / name
    program.write_text(f"#!{sys.executable}\n{MAIN}\n")
    program.chmod(0o755)
    return subprocess.run(
        [program, *words],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "ULVM_SYSTEM_DIR": str(tmp_path / "etc"),
            "ULVM_RUN_DIR": str(tmp_path / "run"),
        },
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr()
    if name == "dmsetup":
        assert said.err.startswith("Usage:\n")
    else:
        assert said.out.startswith(f"  {name} - ")
    assert main([name, "--longhelp"]) == 0
    said = capsys.readouterr()
    assert "Variables:" in said.out + said.err or name in ("daemon", "devices", "monitor")


def test_a_command_answers_under_its_own_name(tmp_path: Path) -> None:
    assert run(tmp_path, "--help", name="lvs").stdout.startswith("  lvs - ")
    assert run(tmp_path, name="vgs").returncode == 0
    done = run(tmp_path, "nosuch", name="vgs")
    assert (done.returncode, done.stderr) == (
        5,
        '  Volume group "nosuch" not found\n  Cannot process volume group nosuch\n',
    )


def test_help_and_version(tmp_path: Path) -> None:
    for words in (("help",), ("--help",)):
        assert "lvcreate" in run(tmp_path, *words).stdout
    assert run(tmp_path, "help", "lvs").stdout == run(tmp_path, "lvs", "--help").stdout
    assert run(tmp_path, "--version").stdout == f"ulvm {ulvm.__version__}\n"
    for words in (("version",), ("lvs", "--version")):
        lines = run(tmp_path, *words).stdout.splitlines()
        # Scripts for LVM take its version from the first line.
        assert re.fullmatch(r"  LVM version:     2\.03\.\d+\(2\) \(\d{4}-\d\d-\d\d\)", lines[0])
        assert lines[-1] == f"  ulvm version:    {ulvm.__version__}"


def test_exit_codes_of_a_wrong_command_line(tmp_path: Path) -> None:
    done = run(tmp_path, "nosuch")
    assert (done.returncode, done.stderr) == (2, "  No such command.  Try 'ulvm help'.\n")
    done = run(tmp_path, "lvs", "--nosuch")
    assert done.returncode == 3
    assert done.stderr == (
        "lvs: unrecognized option '--nosuch'\n  Error during parsing of command line.\n"
    )
    assert run(tmp_path, "vgcreate").returncode == 3


def test_a_list_on_an_empty_host_makes_nothing(tmp_path: Path) -> None:
    for name in ("lvs", "vgs", "pvs", "lvdisplay", "vgdisplay", "pvdisplay"):
        done = run(tmp_path, name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "run" / "ulvmd.lock").exists()


DEAR = [
    "numpy",
    "rich",
    "xxhash",
    "zstandard",
    "mfusepy",
    "ctypes",
    "tempfile",
    "subprocess",
    "calendar",
    "ulvm.cli.help",
    "ulvm.vgstore.checks",
    "ulvm.vgstore.commit",
    "ulvm.metadata.allocate",
    "ulvm.activation.plan",
    "dataclasses",
]


def test_reports_start_without_heavy_imports(tmp_path: Path) -> None:
    """Start-up time: scripts call lvs often."""
    code = (
        "import sys; from ulvm.cli.main import main; main(['lvs']); "
        f"print(*({{*sys.modules}} & {{*{DEAR!r}}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "ULVM_SYSTEM_DIR": str(tmp_path / "etc"),
            "ULVM_RUN_DIR": str(tmp_path / "run"),
        },
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", ["ulvm.cli.main", "ulvm.cli.lvchange"])
def test_ctrl_c_is_answered_while_a_command_is_loaded(tmp_path: Path, module: str) -> None:
    program = f"""
import signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from ulvm.cli.start import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "lvchange", "-ay", "vg"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ULVM_SYSTEM_DIR": str(tmp_path), "ULVM_RUN_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (130, "  Interrupted...\n")


def test_a_reader_that_goes_away_is_no_failure_of_ours(tmp_path: Path) -> None:
    program = tmp_path / "ulvm"
    program.write_text(f"#!{sys.executable}\n{MAIN}\n")
    program.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", f"{program} lvcreate --help | true"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
