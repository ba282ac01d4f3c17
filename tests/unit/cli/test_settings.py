"""Settings that say the same as options do, and options that all commands have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ulvm.cli.main import main


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, and an empty host."""
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    path = tmp_path / "pv.img"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    return path


@pytest.mark.parametrize(
    ("words", "out", "err"),
    [
        (["formats", "-qq"], "  lvm2\n", ""),
        (["formats", "--config", 'log/prefix="> "'], "> lvm2\n", ""),
        (["vgs", "no", "--config", 'log/prefix=""'], "",
         'Volume group "no" not found\nCannot process volume group no\n'),
        (["vgs", "--config", "global/test=1"], "",
         "  TEST MODE: Metadata will NOT be updated and volumes will not be (de)activated.\n"),
        (["vgs", "--config", "global/activation=0"], "",
         "  WARNING: Activation disabled. No device-mapper interaction will be attempted.\n"),
        (["vgs", "--config", "nosuch{}"], "", '  Configuration section "nosuch" unknown.\n'),
        (["vgs", "--config", "config/checks=0 nosuch{}"], "", ""),
        (["vgs", "--config", "config/abort_on_errors=1 nosuch{}"], "",
         '  Configuration section "nosuch" unknown.\n  LVM configuration invalid.\n'),
        (["vgs", "--config", ""], "",
         "  Failed to set overridden configuration entries.\n"
         "  Run `vgs --help' for more information.\n"),
    ],
)  # fmt: skip
def test_what_is_said(
    image: Path, capsys: pytest.CaptureFixture[str], words: list[str], out: str, err: str
) -> None:
    assert main(words) in (0, 3, 5)
    said = capsys.readouterr()
    assert (said.out, said.err) == (out, err)


@pytest.mark.parametrize("silence", [["-qq"], ["--config", "log/silent=1"]])
def test_silence_is_for_what_was_not_asked_for(
    image: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    silence: list[str],
) -> None:
    assert main(["vgcreate", "-q", "vg", str(image)]) == 0
    assert 'Volume group "vg" successfully created\n' in capsys.readouterr().out
    assert main(["vgs", "--noheadings", "-o", "name", *silence]) == 0
    assert capsys.readouterr().out == "  vg\n"
    # A question would be answered with yes.
    monkeypatch.setattr(sys, "stdin", iter(["y\n"]))
    assert main(["pvremove", "-ff", str(image), *silence]) == 5
    assert main(["vgremove", "vg", *silence]) == 0
    assert capsys.readouterr().out == ""


def test_locks_lie_where_the_settings_say(image: Path) -> None:
    place = image.parent / "locks"
    assert main(["pvcreate", str(image), "--config", f'global/locking_dir="{place}"']) == 0
    assert list(place.iterdir()) != []
    assert not (image.parent / "run" / "lock").exists()
