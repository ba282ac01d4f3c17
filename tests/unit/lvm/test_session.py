"""A change is whole or not at all: the metadata, the devices, and who waits for them."""

from __future__ import annotations

import signal
from typing import NoReturn

import pytest

from tests.unit.lvm.lab import EXTENT, KIB, Lab, renamed_at_the_next_lock
from ulvm.cli.lv import remove_one
from ulvm.dm_ioctl import TableLine
from ulvm.errors import BusyError, DeviceError, NotFoundError, RefusedError, UlvmError
from ulvm.lvm import lv, lv_change, merge, pv_change, snapshot
from ulvm.lvm import vg as lvm_vg
from ulvm.lvm.lv_change import Changes
from ulvm.metadata.cow import cow_max_extents
from ulvm.vgstore.config import Config
from ulvm.vgstore.locks import vg_lock
from ulvm.vgstore.scan import Scan, scan


@pytest.fixture
def busy(lab: Lab) -> Lab:
    """vg/o with content, active."""
    lv.create(lab.session, "vg", "o", extents=4)
    lab.write("o", 0, b"\x11" * (64 * KIB))
    return lab


def snap(lab: Lab, name: str = "s", extents: int = 2) -> None:
    snapshot.create(lab.session, "vg", "o", name, extents=extents)


def assert_as_before(lab: Lab, vg: object, tables: object) -> None:
    assert lab.vg == vg
    assert lab.tables() == tables
    assert not any(info.suspended for info in lab.mapper.devices())
    lab.write("o", 0, b"\x22" * 512)  # Nobody is left waiting.


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_write_that_fails_before_the_commit_takes_all_back(busy: Lab, nth: int) -> None:
    vg, tables = busy.vg, busy.tables()
    for device in busy.devices.values():
        device.fail_nth("write", nth)
    try:
        snap(busy)
    except UlvmError:
        for device in busy.devices.values():
            device.clear()
        assert_as_before(busy, vg, tables)
    else:
        # Past the last write of the first PV, or one of several areas failed: the other counts.
        for device in busy.devices.values():
            device.clear()
        assert busy.vg.snapshot_of("s") is not None
        assert busy.read("s", 0, 512) == b"\x11" * 512


def test_a_table_that_is_refused_takes_all_back(busy: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    vg, tables = busy.vg, busy.tables()
    real = busy.mapper.load
    loads = []

    def load(device: str, table: object, *, read_only: bool = False) -> object:
        loads.append(device)
        if len(loads) == 4:
            raise RefusedError("no room for this table")
        return real(device, table, read_only=read_only)  # type: ignore[arg-type]

    monkeypatch.setattr(busy.mapper, "load", load)
    with pytest.raises(RefusedError, match="no room"):
        snap(busy)
    monkeypatch.undo()
    assert_as_before(busy, vg, tables)


def test_an_edit_that_is_refused_changes_nothing(busy: Lab) -> None:
    snap(busy)
    contents, tables = busy.contents(), busy.tables()
    for refused in (
        lambda: snapshot.create(busy.session, "vg", "s", "t", extents=2),
        lambda: snap(busy, extents=10**6),
        lambda: snapshot.create(busy.session, "vg", "o", "t", extents=2, chunk_size=7),
        lambda: lv.create(busy.session, "vg", "o", extents=1),
        lambda: lv.create(busy.session, "vg", "pvmove0", extents=1),
        lambda: lv.create(busy.session, "vg", "big", extents=10**6),
        lambda: lv.create(busy.session, "nosuch", "x", extents=1),
        lambda: lv.extend(busy.session, "vg", "o", 8),
        lambda: lv.extend(busy.session, "vg", "nosuch", 8),
        lambda: lv.reduce(busy.session, "vg", "o", 1),
        lambda: lv.rename(busy.session, "vg", "o", "s"),
        lambda: lv.remove(busy.session, "vg", "o"),
        lambda: lv_change.change(busy.session, "vg", "o", Changes(writable=True)),
        lambda: merge.start(busy.session, "vg", "o"),
    ):
        with pytest.raises(UlvmError):
            refused()
        assert (busy.contents(), busy.tables()) == (contents, tables)


def test_a_change_that_stands_is_told_whatever_became_of_the_devices(
    busy: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told of an error alone would take a merge that has been committed for undone."""
    snap(busy)

    def gone(*_words: object, **_named: object) -> None:
        raise DeviceError("The daemon does not answer: Broken pipe.")

    monkeypatch.setattr(busy.mapper, "resume", gone)
    with pytest.raises(DeviceError):
        merge.start(busy.session, "vg", "s")
    assert busy.vg.merging_snapshot_of("o") is not None
    assert busy.heard.warned[-1] == (
        "WARNING: Volume group vg has changed, its devices may not have."
    )  # fmt: skip
    monkeypatch.undo()


def test_a_lock_may_be_taken_again_inside(lab: Lab) -> None:
    with lab.session.lock("vg"), lab.session.lock("vg"):
        lv.create(lab.session, "vg", "x", extents=1)
    with lab.session.lock("vg"):
        pass
    assert lab.vg.lv("x") is not None


def test_resolving(busy: Lab) -> None:
    assert busy.session.resolve_lv("/dev/mapper/vg-o") == ("vg", "o")
    snap(busy)
    for text in ("vg/nosuch", "vg/snapshot0"):
        with pytest.raises(NotFoundError, match='Failed to find logical volume "vg/'):
            busy.session.resolve_lv(text)
    with pytest.raises(NotFoundError) as caught:
        busy.session.resolve_lv("nosuch/o")
    assert caught.value.message.splitlines() == [
        'Volume group "nosuch" not found',
        "Cannot process volume group nosuch",
    ]


def test_what_a_dead_command_left_suspended_is_resumed_by_the_next(busy: Lab) -> None:
    busy.mapper.suspend("vg-o", lockfs=False)
    lv.create(busy.session, "vg", "x", extents=1)
    assert not any(info.suspended for info in busy.mapper.devices())
    assert any("left half-way" in text for text in busy.heard.warned)


def test_devices_of_a_commit_whose_swap_died_are_brought_to_the_metadata(busy: Lab) -> None:
    """The metadata know the snapshot, the devices do not yet: a kill between commit and resume."""
    mapper = busy.mapper
    busy.session.mapper = type(mapper)(open_file=busy.open)  # Commits where nothing is active.
    snap(busy)
    busy.session.mapper.shutdown()
    busy.session.mapper = mapper
    mapper.suspend("vg-o", lockfs=False)
    with busy.session.lock("vg"):
        busy.session.vg_for_change("vg")
    busy.write("o", 0, b"\x22" * 512)
    assert busy.read("s", 0, 512) == b"\x11" * 512


def test_what_was_chosen_before_the_lock_is_no_other_volume_of_that_name(busy: Lab) -> None:
    chosen = busy.vg.volume("o").uuid
    lv.rename(busy.session, "vg", "o", "p")
    lv.create(busy.session, "vg", "o", extents=1)
    with pytest.raises(RefusedError, match="vg/o was renamed to p meanwhile"):
        remove_one(busy.session, "vg/o", force=True, uuid=chosen)
    assert [v.name for v in busy.vg.lvs] == ["p", "o"]
    remove_one(busy.session, "vg/p", force=True, uuid=chosen)
    remove_one(busy.session, "vg/p", force=True, uuid=chosen)  # Another was faster.
    assert [v.name for v in busy.vg.lvs] == ["o"]


def test_a_merge_from_begin_to_end(busy: Lab) -> None:
    snap(busy)
    busy.write("o", 0, b"\x22" * (32 * KIB))
    assert merge.start(busy.session, "vg", "s") == ("o", merge.Started.RUNNING)
    assert merge.poll(busy.session, "vg", "o")
    assert busy.read("o", 0, 64 * KIB) == b"\x11" * (64 * KIB)
    assert [v.name for v in busy.vg.lvs] == ["o"]
    assert busy.heard.said[-3:] == [
        "vg/o: Merged: 100.00%",
        "Merge of snapshot into logical volume vg/o has finished.",
        'Logical volume "s" successfully removed.',
    ]
    assert not merge.poll(busy.session, "vg", "o")


def test_a_merge_of_an_inactive_origin_waits(busy: Lab) -> None:
    snap(busy)
    busy.write("o", 0, b"\x22" * (32 * KIB))
    lv.deactivate(busy.session, "vg", "o")
    assert merge.start(busy.session, "vg", "s") == ("o", merge.Started.ORIGIN_IS_INACTIVE)
    assert not merge.poll(busy.session, "vg", "o")
    lv.activate(busy.session, "vg", "o")
    assert merge.poll(busy.session, "vg", "o")
    assert busy.read("o", 0, 512) == b"\x11" * 512


def test_a_merge_whose_group_is_renamed_before_its_end_is_finished(
    busy: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    snap(busy)
    merge.start(busy.session, "vg", "s")
    renamed_at_the_next_lock(busy, monkeypatch)
    assert merge.poll(busy.session, "vg", "o")
    assert [v.name for v in scan(busy.host).vg("wg").lvs] == ["o"]


def test_a_merge_whose_origin_is_renamed_is_finished(busy: Lab) -> None:
    snap(busy)
    merge.start(busy.session, "vg", "s")
    lv.rename(busy.session, "vg", "o", "p")
    assert merge.poll(busy.session, "vg", "p")
    assert [v.name for v in busy.vg.lvs] == ["p"]


def test_a_merge_whose_group_is_renamed_is_finished(
    busy: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    snap(busy)
    merge.start(busy.session, "vg", "s")
    scan, looks = busy.session.scan, []

    def scanned() -> Scan:
        looks.append("")
        if len(looks) == 2:  # It is being polled.
            lvm_vg.rename(busy.session, "vg", "renamed")
        return scan()

    monkeypatch.setattr(busy.session, "scan", scanned)
    assert merge.poll(busy.session, "vg", "o")
    assert [v.name for v in scan().vg("renamed").lvs] == ["o"]


def test_a_merge_whose_origin_is_renamed_at_its_end_is_finished(
    busy: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    snap(busy)
    busy.write("o", 0, b"\x22" * (32 * KIB))
    merge.start(busy.session, "vg", "s")

    def say(text: str) -> None:
        if text == "vg/o: Merged: 100.00%":
            lv.rename(busy.session, "vg", "o", "renamed")

    monkeypatch.setattr(busy.session, "say", say)
    assert merge.poll(busy.session, "vg", "o")
    assert [v.name for v in busy.vg.lvs] == ["renamed"]


def test_how_long_writers_waited_is_told(busy: Lab) -> None:
    made = snapshot.create(busy.session, "vg", "o", "s", extents=2)
    assert made.report.suspended_seconds > 0
    assert made.report.left == []


def test_a_store_larger_than_of_use_is_cut(busy: Lab) -> None:
    snapshot.create(busy.session, "vg", "o", "s", extents=20)
    most = cow_max_extents(busy.vg, "o", 8)
    cow = busy.vg.lv("s")
    assert cow is not None
    assert cow.extent_count == most
    assert busy.heard.said == [
        "Reducing COW size 1.25 MiB down to maximum usable size 320.00 KiB."
    ]  # fmt: skip


def test_a_pv_is_not_resized_while_another_command_has_its_group(busy: Lab) -> None:
    """What that one has suspended is not what a command that died has left."""
    busy.begin(busy.host._replace(config=Config().with_overrides("global/wait_for_locks=0")))
    busy.mapper.suspend("vg-o")
    with vg_lock(busy.host, "vg", exclusive=True), pytest.raises(BusyError):
        pv_change.resize(busy.session, next(iter(busy.devices)))
    assert busy.mapper.info("vg-o").suspended
    busy.mapper.resume("vg-o")


def without_its_cow(busy: Lab) -> None:
    """The daemon was killed, and the header of vg/s cannot be read any more."""
    state = busy.mapper.snapshot_state()
    busy.mapper.shutdown()
    cow = busy.vg.lv("s")
    assert cow is not None
    (area,) = cow.segments[0].areas  # type: ignore[union-attr]
    pv = busy.vg.pv(area.pv_uuid)
    path = busy.session.last_scan.path_of(area.pv_uuid)
    assert pv is not None
    assert path is not None
    start = (pv.pe_start + area.pe * busy.vg.extent_size) * 512
    busy.devices[path].fail_range("read", start, 4 * KIB)
    busy.mapper = busy.session.mapper = type(busy.mapper)(open_file=busy.open)
    assert busy.mapper.restore_state(state)


def test_a_snapshot_that_cannot_be_read_keeps_no_other_volume_from_being_changed(busy: Lab) -> None:
    lv.create(busy.session, "vg", "db", extents=1)
    snap(busy)
    without_its_cow(busy)
    busy.mapper.suspend("vg-db")
    lv.extend(busy.session, "vg", "db", 2)
    assert not any(i.suspended and i.live_table for i in busy.mapper.devices())
    assert any("reload ioctl on vg-s failed" in text for text in busy.heard.warned)
    with pytest.raises(UlvmError, match="reload ioctl on vg-s failed"):
        snap(busy, "t")
    lv.remove(busy.session, "vg", "s")
    assert busy.read("o", 0, 512) == b"\x11" * 512


def test_what_is_left_suspended_keeps_the_group_from_being_changed(busy: Lab) -> None:
    snap(busy)
    without_its_cow(busy)
    busy.mapper.suspend("vg-o-real")
    vg = busy.vg
    with pytest.raises(UlvmError, match="reload ioctl on vg-s failed"):
        lv.create(busy.session, "vg", "x", extents=1)
    assert busy.vg == vg


def test_a_name_that_a_dead_command_freed_is_free(
    busy: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lvrename died between its commit and the new name of the device."""

    def die(device: str, name: str) -> NoReturn:
        raise KeyboardInterrupt

    lv.create(busy.session, "vg", "b", extents=1)
    busy.write("b", 0, b"\x22" * 512)
    monkeypatch.setattr(busy.mapper, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        lv.rename(busy.session, "vg", "o", "p")
    monkeypatch.undo()
    assert busy.vg.lv("o") is None
    assert busy.mapper.info("vg-o")
    lv.rename(busy.session, "vg", "b", "o")
    assert busy.read("o", 0, 512) == b"\x22" * 512
    assert busy.read("p", 0, 512) == b"\x11" * 512


@pytest.mark.parametrize("call", ["suspend", "resume"])
def test_an_interrupt_leaves_nothing_suspended_behind_a_refresh(
    busy: Lab, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    snap(busy)
    for device in ("vg-o", "vg-s"):
        busy.mapper.suspend(device)  # As a command that died would have left them.
    origin = busy.mapper.info("vg-o").uuid
    busy.mapper.load(origin, [TableLine(0, 4 * EXTENT, "zero")])
    busy.mapper.resume(origin)
    real = getattr(busy.mapper, call)

    def interrupted(*args: object, **options: object) -> object:
        monkeypatch.setattr(busy.mapper, call, real)
        done = real(*args, **options)
        signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(busy.mapper, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        lv_change.refresh(busy.session, "vg", ["o"])
    assert not any(info.suspended for info in busy.mapper.devices())
    assert busy.read("o", 0, 512) == b"\x11" * 512


def test_an_interrupt_waits_for_the_last_lock_and_for_no_answer(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_question: str) -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    monkeypatch.setattr(lab.session.messages, "ask", asked)
    steps = []

    def lock_twice() -> None:
        with lab.session.lock_global(), lab.session.lock("vg"):
            lv.create(lab.session, "vg", "x", extents=1)
            signal.raise_signal(signal.SIGINT)
            steps.append("locked")

    def answer() -> None:
        with lab.session.lock("vg"):
            lv.create(lab.session, "vg", "y", extents=1)
            lab.session.ask("Go on?")
            steps.append("answered")

    for step in (lock_twice, answer):
        with pytest.raises(KeyboardInterrupt):
            step()
    assert steps == ["locked"]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    lv.create(lab.session, "vg", "z", extents=1)
    assert {"x", "y", "z"} <= {found.name for found in lab.vg.lvs}


def test_what_sees_to_the_end_of_a_merge_listens_to_signals(
    busy: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would never hear of those that are held back when it is started."""
    masks = []
    monkeypatch.setattr(
        merge,
        "resume_polling",
        lambda *_: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    )
    lv_change.set_minor(busy.session, "vg", "o", 77, force=1)
    assert masks == [set()]
