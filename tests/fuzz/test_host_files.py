"""Files of the host that somebody else wrote: backups of metadata, and the daemon's state.

`vgcfgrestore` restores or refuses; what it refuses changes no disk. The daemon starts over any
state file, says what it leaves out, and holds what can be held.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import effort
from tests.e2e.host import UlvmHost
from tests.fuzz.mutate import mutate, mutate_values
from tests.fuzz.test_hostile import in_time
from tests.unit.lvm.lab import KIB, Lab
from ulvm.blockdev.base import BlockDevice
from ulvm.cli.main import main
from ulvm.daemon.state import STATE_FILE, read_state, write_state
from ulvm.errors import DeviceError, RefusedError, UlvmError
from ulvm.lvm import lv, snapshot
from ulvm.lvm.restore import backups, restore
from ulvm.metadata.text import vg_from_text, vg_to_text
from ulvm.vgstore.archive import archived, backup_path, read_backup
from ulvm.vgstore.scan import scan

pytestmark = pytest.mark.timeout(effort.amount(300, 0))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    lv.create(made.session, "vg", "base", extents=4)
    snapshot.create(made.session, "vg", "base", "snap", extents=2, chunk_size=8)
    made.write("base", 0, b"x" * 64 * KIB)
    yield made
    made.mapper.shutdown()


# -- backups of metadata --------------------------------------------------------------------------


@pytest.mark.parametrize("active", [False, True])
def test_backups_of_metadata(lab: Lab, tmp_path: Path, active: bool) -> None:
    if not active:
        for name in ("snap", "base"):
            lv.deactivate(lab.session, "vg", name)
    lab.heard.answer = True
    goods = [backup_path(lab.host, "vg").read_bytes()]
    goods += [path.read_bytes() for path in archived(lab.host.archive_dir, "vg")]
    choose = effort.rng("vgcfgrestore", active)
    file = tmp_path / "hostile"
    good = lab.contents()
    tables, seqno = lab.tables(), lab.vg.seqno
    restored = 0
    for number in range(effort.amount(60, 1_200)):
        text = choose.choice(goods)
        text = mutate_values(choose, text) if choose.random() < 0.85 else mutate(choose, text)
        file.write_bytes(text)
        try:
            with in_time():
                with suppress(UlvmError):
                    list(backups(lab.session, "vg", file))
                try:
                    restore(lab.session, "vg", file)
                except UlvmError:
                    assert lab.contents() == good, "refused, and a disk was changed"
                    assert lab.tables() == tables, "refused, and a table was changed"
                    continue
            restored += 1
            wanted, head = read_backup(file)
            wanted = vg_from_text(vg_to_text(wanted, head))  # less what LVM2 would not write
            found = scan(lab.host).vg("vg")
            assert found.lvs == wanted.lvs, "it was not restored"
            assert found.seqno > seqno
        except BaseException as error:
            raise AssertionError(
                f"ULVM_SEED={effort.SEED} vgcfgrestore {active} {number}: {error!r}: {text!r}"
            ) from error
        finally:
            effort.tally("hostile backups of metadata")
        # Back to where it was, for the next.
        file.write_bytes(goods[0])
        restore(lab.session, "vg", file)
        good, tables, seqno = lab.contents(), lab.tables(), lab.vg.seqno
    effort.tally("hostile backups of metadata: restored", restored)
    assert restored


def test_a_listing_of_backups_from_no_year(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = backup_path(lab.host, "vg")
    lines = [
        f"creation_time = {(1 << 63) - 1}" if line.startswith("creation_time") else line
        for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines))
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(lab.host.system_dir))
    monkeypatch.setenv("ULVM_RUN_DIR", str(lab.host.run_dir))
    assert main(["vgcfgrestore", "--list", "-f", str(file), "vg"]) == 0
    assert "Backup Time:\t\n" in capfd.readouterr().out


# -- the daemon's state ---------------------------------------------------------------------------


class Disks(Lab):
    """A path that no PV of the lab has can be opened no more than a folder."""

    def open(self, path: str, writable: bool) -> BlockDevice:
        if path not in self.devices:
            raise DeviceError(f"{path} is no disk", errno=errno.ENOTBLK)
        return super().open(path, writable)


def test_states_in_a_mapper(lab: Lab, tmp_path: Path) -> None:
    """Each mutation is restored as far as it makes sense, and what is not is said."""
    images = lab.contents()
    devices = lab.mapper.snapshot_state()["devices"]
    run_dir = tmp_path / "daemon"
    run_dir.mkdir()
    write_state(run_dir, devices)
    file = run_dir / STATE_FILE
    good = file.read_bytes()
    spread = json.dumps(json.loads(good), indent=1).encode()
    choose = effort.rng("state")
    came = said = 0
    for number in range(effort.amount(200, 6_000)):
        if choose.random() < 0.3:
            text = json.dumps(_twisted(choose, json.loads(good))).encode()
        else:
            text = (mutate_values if choose.random() < 0.7 else mutate)(choose, spread)
        file.write_bytes(text)
        heard: list[str] = []
        other = Disks(tmp_path, images=images)
        try:
            with in_time():
                state = None
                try:
                    state = read_state(run_dir, heard.append)
                except RefusedError as refused:
                    heard.append(str(refused))
                if state is not None:
                    heard += other.mapper.restore_state(state)
                    came += bool(other.mapper.devices())
                for device in other.mapper.all_mapped():
                    with suppress(UlvmError):
                        other.mapper.status(device.name)
                assert json.dumps(other.mapper.snapshot_state())
                said += bool(heard)
        except BaseException as error:
            raise AssertionError(
                f"ULVM_SEED={effort.SEED} state {number}: {error!r}: {text!r}"
            ) from error
        finally:
            other.mapper.shutdown()
        effort.tally("hostile states of the daemon")
    assert came
    assert said


def _twisted(choose: Any, state: Any) -> Any:
    """One value of another type somewhere in it."""
    odd = [None, True, -1, 1 << 70, 1.5, "", "x\0y", "\ud800", "/", [], {}, [[]], [None], "LVM-x"]
    spots: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            spots.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(state["devices"])
    node, key = choose.choice(spots)
    node[key] = choose.choice(odd)
    return state


STATES = {
    "no JSON": lambda s: "{",
    "deep": lambda s: "[" * 100_000,
    "a list": lambda s: "[]",
    "devices are a number": lambda s: json.dumps({**s, "devices": 7}),
    "devices are numbers": lambda s: json.dumps({**s, "devices": [7, None, *s["devices"]]}),
    "no names": lambda s: json.dumps({**s, "devices": [{}, *s["devices"]]}),
    "half a pair": lambda s: json.dumps(
        {**s, "devices": [{**s["devices"][0], "name": "\ud800"}, *s["devices"]]}
    ),
    "a great minor": lambda s: json.dumps(
        {**s, "devices": [{**s["devices"][0], "name": "z", "uuid": "", "minor": 1 << 80}]}
    ),
    "a table of numbers": lambda s: json.dumps(
        {**s, "devices": [{**d, "table": [1, 2]} for d in s["devices"]]}
    ),
    "a path with a NUL": lambda s: json.dumps(
        {**s, "devices": [{**d, "table": [[0, 8, "linear", "/a\0b 0"]]} for d in s["devices"]]}
    ),
}


def test_the_daemon_starts_over_any_state(short_tmp: Path) -> None:
    """After kill -9 the state file is replaced; a daemon comes, says what it leaves out, serves."""
    host = UlvmHost(short_tmp)
    host.image("disk", "32M")
    host.run("vgcreate vg disk")
    host.run("lvcreate -y -an -n base -L 4M vg")
    state_file = host.run_dir / STATE_FILE
    try:
        host.run("vgchange -ay vg")
        good = json.loads(state_file.read_text())
        for what, make in list(STATES.items())[:: effort.amount(2, 1)]:
            kill(host)
            state_file.write_text(make(good))
            host.run("vgchange -ay vg")
            log = host.log()
            assert "Traceback" not in log, (what, log)
            assert "passed over" in log or "not brought back" in log, (what, log)
            (host.run_dir / "ulvmd.log").write_text("")
            assert host.run("lvs --noheadings -o lv_active vg").stdout.split() == ["active"], what
            effort.tally("daemons over hostile states")
    finally:
        host.close()


def kill(host: UlvmHost) -> None:
    pid = host.daemon_pid()
    process = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([process], [], [], 20)[0]
    finally:
        os.close(process)
