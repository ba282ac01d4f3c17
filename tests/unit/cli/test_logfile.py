"""What is kept in log/file, and the log of the shell's last command."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

import pytest

from ulvm.cli.logfile import ERROR, LogFile
from ulvm.cli.main import main


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    return tmp_path


def settings(system: Path, text: str) -> None:
    (system / "ulvm.conf").write_text(f"log {{ {text} }}\n")


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        (0, []),
        (3, ['  Volume group "nope" not found', "  Cannot process volume group nope"]),
        (2, []),
    ],
)
def test_errors_are_kept_from_level_3_on(system: Path, level: int, kept: list[str]) -> None:
    settings(system, f'level={level} file="{system}/log" debug_file_fields="message"')
    assert main(["vgs", "nope"]) == 5
    path = system / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    assert [line.removeprefix(" ") for line in lines] == kept


def test_a_file_is_added_to_or_written_over(system: Path) -> None:
    settings(system, f'level=3 file="{system}/log"')
    for _ in range(2):
        main(["vgs", "nope"])
    lines = (system / "log").read_text().splitlines()
    assert len(lines) == 4
    pattern = r"\d\d:\d\d:\d\d\.\d{6} vgs\[\d+\] cli/\w+\.py:\d+   Volume group \"nope\" not found"
    assert re.fullmatch(pattern, lines[0]), lines[0]
    settings(system, f'level=3 overwrite=1 file="{system}/log"')
    main(["vgs", "nope"])
    assert len((system / "log").read_text().splitlines()) == 2


@pytest.mark.parametrize(("text", "mode"), [("", 0o600), ("global/umask=022", 0o644)])
def test_a_file_has_the_mode_that_is_set(system: Path, text: str, mode: int) -> None:
    (system / "ulvm.conf").write_text(f'log {{ level=3 file="{system}/log" }}\n{text}\n')
    old = os.umask(0)
    try:
        main(["vgs", "nope"])
    finally:
        os.umask(old)
    assert stat.S_IMODE((system / "log").stat().st_mode) == mode


def test_what_v_tells_is_kept_from_level_5_on(system: Path) -> None:
    (system / "disk").touch()
    with (system / "disk").open("wb") as disk:
        disk.truncate(8 << 20)
    settings(system, f'level=5 file="{system}/log" debug_file_fields="message"')
    assert main(["pvcreate", str(system / "disk")]) == 0
    lines = (system / "log").read_text().splitlines()
    assert f"   Zeroing start of device {system}/disk." in lines
    assert lines[-1] == f'   Physical volume "{system}/disk" successfully created.'


def test_a_file_that_cannot_be_opened_hinders_nothing(
    system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(system, f'level=4 file="{system}/none/log"')
    assert main(["vgs"]) == 0
    assert capsys.readouterr().err == (
        f"  {system}/none/log: fopen failed: No such file or directory\n"
    )


def test_the_shell_shows_the_log_of_the_command_before(
    system: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("lastlog\n"))
    main([])
    assert "No log report stored." in capsys.readouterr().err
    settings(system, "report_command_log=1")
    script = "vgs nope\nlastlog\nlastlog -S log_context=shell\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(script))
    main([])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = [line[:3] for line in lines if line and line[0].isdigit()]
    assert shown == [
        *(["1", "error", "processing"], ["2", "error", "processing"]),
        ["3", "status", "processing"],
        *(["1", "error", "processing"], ["2", "error", "processing"]),
        *(["3", "status", "processing"], ["4", "status", "shell"]),
        ["4", "status", "shell"],
    ]


def test_a_log_that_is_full_stops_no_command(
    system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = system / "pv.img"
    image.write_bytes(bytes(8 << 20))
    settings(system, 'level=7 file="/dev/full"')
    assert main(["vgcreate", "vg", str(image)]) == 0
    lost = "  WARNING: Not all is in log/file: No space left on device\n"
    assert capsys.readouterr().err == lost
    assert main(["vgchange", "--addtag", "x", "vg"]) == 0
    assert main(["vgs", "nope"]) == 5
    said = capsys.readouterr().err
    assert '  Volume group "nope" not found\n' in said
    assert said.endswith(lost)


def test_what_is_no_text_goes_to_the_system_log() -> None:
    LogFile(None, syslog=True, level=ERROR, command="vgs").write(ERROR, "v\udcff")
