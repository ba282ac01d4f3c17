"""The state file: whole or not at all, and worth nothing after a boot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ulvm.daemon.state import STATE_FILE, drop_state, read_state, write_state
from ulvm.errors import RefusedError

DEVICES = [{"name": "a", "uuid": "", "minor": 0}]


def test_written_read_and_dropped(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    write_state(tmp_path, DEVICES)
    state = read_state(tmp_path)
    assert state is not None
    assert state["devices"] == DEVICES
    assert (tmp_path / STATE_FILE).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [STATE_FILE]
    drop_state(tmp_path)
    drop_state(tmp_path)
    assert read_state(tmp_path) is None


def test_without_devices_there_is_nothing_to_bring_back(tmp_path: Path) -> None:
    write_state(tmp_path, [])
    assert read_state(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"boot_id": "another"},
        {"boot_id": None},
        {"boot_id": "another", "version": 99},
        {"version": None},
        {"devices": None},
    ],
)
def test_a_state_of_another_boot_is_ignored(tmp_path: Path, change: dict[str, object]) -> None:
    write_state(tmp_path, DEVICES)
    path = tmp_path / STATE_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("version", [0, 99])
def test_a_state_of_another_version_is_refused_and_stays(tmp_path: Path, version: int) -> None:
    write_state(tmp_path, DEVICES)
    path = tmp_path / STATE_FILE
    text = json.dumps({**json.loads(path.read_text()), "version": version})
    path.write_text(text)
    with pytest.raises(RefusedError, match="another version"):
        read_state(tmp_path)
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_state_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    assert read_state(tmp_path) is None


def test_what_could_not_be_written_takes_up_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    write_state(tmp_path, DEVICES)
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(MemoryError):
        write_state(tmp_path, [])
    assert [p.name for p in tmp_path.iterdir()] == [STATE_FILE]
    assert read_state(tmp_path) is not None
