"""Moves whose disks fail, and who sees to their end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.unit.lvm.lab import KIB, Lab, renamed_at_the_next_lock
from ulvm.errors import DeviceError
from ulvm.lvm import lv, merge, move
from ulvm.vgstore.scan import scan

CONTENT = bytes(range(256)) * KIB


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Lab, str, move.Move]:
    """A lab with a volume on its way from disk a to disk b, which is b's path."""
    lab = Lab(tmp_path)
    lv.create(lab.session, "vg", "o", extents=4)
    lab.write("o", 0, CONTENT)
    found = move.start(lab.session, "vg", str(tmp_path / "a"))
    assert found is not None
    return lab, str(tmp_path / "b"), found


def test_a_destination_that_fails_is_told_and_no_writer_sees_it(
    begun: tuple[Lab, str, move.Move],
) -> None:
    lab, target, found = begun
    start = lab.vg.pvs[1].pe_start * 512
    lab.devices[target].fail_range("write", start, 1 << 20)
    changed = CONTENT[:-1] + b"!"
    lab.write("o", len(CONTENT) - 512, changed[-512:])
    with pytest.raises(DeviceError, match=r"^.*/a: Copying to or from a device failed"):
        move.poll(lab.session, [found], interval=0)
    lab.devices[target].clear()
    assert move.abort(lab.session, found)
    vg = lab.vg
    assert not vg.pvmoves()
    assert [vg.allocated(pv.uuid) for pv in vg.pvs] == [4, 0]
    assert not any(suspended for _, suspended, _ in lab.tables())
    assert lab.read("o", 0, len(CONTENT)) == changed
    lab.mapper.shutdown()


def test_a_destination_that_is_well_again_is_tried_once_more(
    begun: tuple[Lab, str, move.Move], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, target, found = begun
    lab.devices[target].fail_range("write", lab.vg.pvs[1].pe_start * 512, 1 << 20)
    changed = CONTENT[:-1] + b"!"
    lab.write("o", len(CONTENT) - 512, changed[-512:])
    with pytest.raises(DeviceError, match="Run pvmove again to try once more"):
        move.poll(lab.session, [found], interval=0)
    lab.devices[target].clear()
    suspend = lab.mapper.suspend

    def interrupted(*args: object, **options: object) -> object:
        monkeypatch.setattr(lab.mapper, "suspend", suspend)
        done = suspend(*args, **options)  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(lab.mapper, "suspend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        move.resume(lab.session, found)
    assert not any(suspended for _, suspended, _ in lab.tables())
    assert move.poll(lab.session, [found], interval=0)
    assert [lab.vg.allocated(pv.uuid) for pv in lab.vg.pvs] == [0, 4]
    assert lab.read("o", 0, len(CONTENT)) == changed
    lab.mapper.shutdown()


def test_a_move_that_ended_is_nobody_s_any_more(begun: tuple[Lab, str, move.Move]) -> None:
    lab, _, found = begun
    assert move.poll(lab.session, [found], interval=0)
    assert move.find_all(lab.session) == []
    assert move.poll(lab.session, [found], interval=1)
    assert not move.abort(lab.session, found)
    words = f"{found.label}: No pvmove in progress - already finished or aborted."
    assert lab.heard.said == [words, words]
    lab.mapper.shutdown()


def test_a_move_whose_group_is_renamed_just_now_goes_on(
    begun: tuple[Lab, str, move.Move], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, _, found = begun
    renamed_at_the_next_lock(lab, monkeypatch)
    assert move.poll(lab.session, [found], interval=0)
    group = scan(lab.host).vg("wg")
    assert [group.allocated(pv.uuid) for pv in group.pvs] == [0, 4]
    lab.mapper.shutdown()


def test_a_move_nothing_stands_on_is_interrupted(begun: tuple[Lab, str, move.Move]) -> None:
    lab, _, found = begun
    lv.deactivate(lab.session, "vg", "o")
    assert lab.tables() == []
    assert not move.poll(lab.session, [found], interval=0)
    assert lab.heard.said == [f"{found.label}: Interrupted: No longer active."]
    move.resume(lab.session, found)
    assert move.poll(lab.session, [found], interval=0)
    assert [lab.vg.allocated(pv.uuid) for pv in lab.vg.pvs] == [0, 4]
    lab.mapper.shutdown()


def test_a_trial_starts_no_process(begun: tuple[Lab, str, move.Move]) -> None:
    lab, _, found = begun
    lab.begin(lab.host.on_trial())
    assert move.resume_polling(lab.session, lab.vg) == 1
    merge.poll_in_background(lab.session, lab.vg, "o")
    assert found.name == "pvmove0"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    lab.mapper.shutdown()
