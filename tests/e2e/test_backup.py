"""`ulvm backup`, `restore` and `verify` as commands, against a real daemon."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import xxhash

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.test_backup_interrupts import Heard
from tests.waiting import ended, until
from ulvm.backup import snapshot as backup_snapshot
from ulvm.backup.job import BackupRequest, backup
from ulvm.backup.leftovers import RESTORING_TAG
from ulvm.backup.pipeline import Progress
from ulvm.backup.restoring import _created, restore
from ulvm.errors import BusyError, DaemonGoneError, DeviceError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.session import Session
from ulvm.vgstore.host import Host

MIB = 1 << 20

HOLDER = """
import sys
from ulvm.blockdev.nbd import NbdDevice
device = NbdDevice(sys.argv[1], sys.argv[2])
print("ready", flush=True)
input()
device.close()
"""


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    """A host with a volume vg/db of 64 MiB in a group of 252 MiB."""
    image = host.image("pv0.img", "256M")
    host.run(f"pvcreate {image}")
    host.run(f"vgcreate vg {image}")
    host.run("lvcreate -n db -L 64M vg")
    return host


def uri(host: UlvmHost, volume: str) -> str:
    return f"nbd+unix:///{volume}?socket={quote(str(host.run_dir))}/nbd.sock"


def fill(host: UlvmHost, volume: str, tmp_path: Path, seed: int = 1) -> bytes:
    """Put known bytes on the first 24 MiB of a volume."""
    content = random.Random(seed).randbytes(8 * MIB) * 2 + bytes(4 * MIB) + b"text" * MIB
    source = tmp_path / "content"
    source.write_bytes(content)
    subprocess.run(["nbdcopy", "--flush", str(source), uri(host, volume)], check=True)
    return content


def content(host: UlvmHost, volume: str) -> bytes:
    """All of a volume."""
    done = subprocess.run(["nbdcopy", uri(host, volume), "-"], stdout=subprocess.PIPE, check=True)
    return done.stdout


def lvs(host: UlvmHost) -> list[str]:
    return host.run("lvs --noheadings -o lv_name vg").stdout.split()


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "backups"
    directory.mkdir()
    return directory


pytestmark = needs.program("nbdcopy")


# -- the round trip ---------------------------------------------------------------------------


def test_backup_verify_restore(vg: UlvmHost, target: Path, tmp_path: Path) -> None:
    fill(vg, "vg/db", tmp_path)
    raw = content(vg, "vg/db")
    said = vg.run(f"backup vg/db --to {target}").stdout
    assert "Writers waited" in said
    assert "read back and verified" in said
    assert lvs(vg) == ["db"]
    manifest_name, image_name = names(target)
    manifest = json.loads((target / manifest_name).read_bytes())
    assert image_name == manifest["image"]["file"]
    assert manifest["image"]["size"] == 64 * MIB
    assert manifest["image"]["xxh128"] == xxhash.xxh3_128(raw).hexdigest()
    assert manifest["volume"]["vg"] == "vg"
    assert manifest["verified"] is True
    plain = subprocess.run(
        ["zstd", "-dc", str(target / image_name)], stdout=subprocess.PIPE, check=True
    )
    assert plain.stdout == raw
    assert "is whole" in vg.run(f"verify {target / manifest_name}").stdout
    assert "read back and verified" in vg.run(f"restore {target} vg/again").stdout
    assert content(vg, "vg/again") == raw
    assert vg.run("lvs --noheadings -o lv_tags vg/again").stdout.strip() == ""


def test_the_backup_is_of_one_instant(vg: UlvmHost, target: Path, tmp_path: Path) -> None:
    """What is written right after the snapshot is not in it."""
    fill(vg, "vg/db", tmp_path)
    before = content(vg, "vg/db")
    other = tmp_path / "other"
    other.write_bytes(os.urandom(8 * MIB))
    vg.run(f"backup vg/db --to {target} --resume 'nbdcopy {other} \"{uri(vg, 'vg/db')}\"'")
    assert content(vg, "vg/db") != before
    vg.run(f"restore {target} vg/again")
    assert content(vg, "vg/again") == before


def test_an_inactive_volume_is_activated_for_it(vg: UlvmHost, target: Path, tmp_path: Path) -> None:
    fill(vg, "vg/db", tmp_path)
    raw = content(vg, "vg/db")
    vg.run("lvchange -an vg/db")
    vg.run(f"backup vg/db --to {target}")
    (manifest,) = target.glob("*.json")
    assert json.loads(manifest.read_bytes())["image"]["xxh128"] == xxhash.xxh3_128(raw).hexdigest()
    assert vg.run("lvs --noheadings -o lv_attr vg/db").stdout.split() == ["-wi-------"]


def test_a_terminal_shows_a_progress_bar(vg: UlvmHost, target: Path, tmp_path: Path) -> None:
    """On standard error; results stay on standard output."""
    fill(vg, "vg/db", tmp_path)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        vg.argv(f"backup vg/db --to {target}"),
        cwd=vg.base,
        env={**vg.env, "TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: the other end was closed
            break
        shown += piece
    os.close(ours)
    stdout, _ = process.communicate()
    assert process.returncode == 0
    assert b"Copying" in shown
    assert b"64" in shown
    assert b"Backup of vg/db is" in stdout
    assert b"Backup of" not in shown


def test_the_longest_name_that_can_have_snapshots(vg: UlvmHost, target: Path) -> None:
    name = "a" * (127 - len("vg--real"))
    vg.run(f"lvcreate -n {name} -L 4M vg")
    vg.run(f"backup vg/{name} --to {target}")
    assert sorted(lvs(vg)) == [name, "db"]


# -- the size of the COW ------------------------------------------------------------------------


def test_the_size_is_chosen_and_said(vg: UlvmHost, target: Path) -> None:
    said = vg.run(f"backup vg/db --to {target}").stdout
    assert "of 64.00 MiB (chosen from 188.00 MiB free in vg; extended before it fills)" in said


def test_the_size_is_given(vg: UlvmHost, target: Path) -> None:
    said = vg.run(f"backup vg/db --size 8m --to {target}").stdout
    assert "of 8.00 MiB (as given; extended before it fills)" in said


def test_no_room_for_a_snapshot(vg: UlvmHost, target: Path) -> None:
    vg.run("lvcreate -n rest -l 100%FREE vg")
    done = vg.run(f"backup vg/db --to {target}", rc=5)
    assert "no free extent" in done.stderr
    assert names(target) == []


def dirty(host: UlvmHost, tmp_path: Path, mebibytes: int) -> str:
    """A shell command that overwrites the start of vg/db."""
    file = tmp_path / "dirt"
    file.write_bytes(os.urandom(mebibytes * MIB))
    return f'nbdcopy --flush {file} "{uri(host, "vg/db")}"'


def test_overflow_fails_loudly_and_leaves_nothing(
    vg: UlvmHost, target: Path, tmp_path: Path
) -> None:
    """The group is full but for the COW, and more is written than it holds."""
    fill(vg, "vg/db", tmp_path)
    vg.run("lvcreate -n rest -l 45 vg")
    free = vg.run("vgs --noheadings -o vg_free_count vg").stdout.split()
    assert free == ["2"]
    done = vg.run(f"backup vg/db --to {target} --resume '{dirty(vg, tmp_path, 16)}'", rc=5)
    assert "overflowed" in done.stderr
    assert "Backup of" not in done.stdout
    assert names(target) == []
    assert sorted(lvs(vg)) == ["db", "rest"]
    assert content(vg, "vg/db")[: 16 * MIB] == (tmp_path / "dirt").read_bytes()


def test_a_command_on_a_snapshot_that_overflows_fails(vg: UlvmHost, tmp_path: Path) -> None:
    vg.run("lvcreate -n rest -l 45 vg")
    done = vg.run(f"backup vg/db --exec ': {{nbd}}' --resume '{dirty(vg, tmp_path, 16)}'", rc=5)
    assert "overflowed" in done.stderr
    assert sorted(lvs(vg)) == ["db", "rest"]


def test_a_backup_whose_snapshot_cannot_be_asked_at_the_end_fails(
    vg: UlvmHost, target: Path
) -> None:
    """The daemon is killed after the last byte was read, and between two looks of the watcher."""
    pid = vg.daemon_pid()
    session = Session(Host.from_environment(vg.env), Heard())

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        yield lambda done, total: None
        os.kill(pid, signal.SIGKILL)

    with closing(session), pytest.raises(DaemonGoneError):
        backup(session, BackupRequest("vg/db", directory=target), stage=stage)
    assert names(target) == []


def test_the_cow_is_extended_before_it_fills(vg: UlvmHost, tmp_path: Path) -> None:
    """6 of 8 MiB are changed at once; later 8 more, which only the extended COW can hold."""
    first = dirty(vg, tmp_path, 6)
    later = tmp_path / "later"
    later.write_bytes(os.urandom(14 * MIB))
    script = f'sleep 2; nbdcopy --flush {later} "{uri(vg, "vg/db")}"'
    done = vg.run(f"backup vg/db --size 8m --resume '{first}' --exec \"sh -c '{script}' {{nbd}}\"")
    assert "extended from 8.00 to 16.00 MiB" in done.stdout
    assert lvs(vg) == ["db"]


def test_the_chunk_size_is_as_that_of_lvcreate(vg: UlvmHost, target: Path) -> None:
    """Without a unit in KiB; and a wrong one stops no application."""
    show = shlex.join(vg.argv("lvs --noheadings -o chunk_size -S lv_tags=ulvm_backup"))
    vg.run(f"backup vg/db -c 64 --exec ': {{nbd}}; {show} >chunk'")
    assert (vg.base / "chunk").read_text().strip() == "64.00k"
    for size in ("3k", "64m"):
        line = f"backup vg/db --to {target} -c {size} --quiesce 'touch quiet'"
        assert "Chunk size must be a power of 2" in vg.run(line, rc=3).stderr
    assert not (vg.base / "quiet").exists()


# -- quiesce and resume -------------------------------------------------------------------------


def test_quiesce_and_resume_stand_around_the_snapshot(
    vg: UlvmHost, target: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    vg.run(
        f"backup vg/db --to {target} --quiesce 'echo quiet $ULVM_LV >>{log}' "
        f"--resume 'echo resumed >>{log}'"
    )
    assert log.read_text() == "quiet db\nresumed\n"
    (manifest,) = target.glob("*.json")
    assert json.loads(manifest.read_bytes())["snapshot"]["quiesced"] is True


def test_a_failing_quiesce_takes_no_snapshot_but_resumes(
    vg: UlvmHost, target: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    done = vg.run(f"backup vg/db --to {target} --quiesce false --resume 'echo r >>{log}'", rc=5)
    assert "no snapshot was taken" in done.stderr
    assert log.read_text() == "r\n"
    assert lvs(vg) == ["db"]
    assert names(target) == []


LOCKED = "exec 9>run/lock/V_vg; flock 9; touch quiet"
"""A quiesce command behind which another one has the group's lock."""


def test_a_signal_while_the_group_is_locked_ends_the_rest_of_the_application(
    vg: UlvmHost, target: Path
) -> None:
    waiting = vg.start(f"backup vg/db --to {target} --quiesce '{LOCKED}' --resume 'rm quiet'")
    until((vg.base / "quiet").exists)
    waiting.send_signal(signal.SIGTERM)
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 128 + signal.SIGTERM
    assert said == "  Interrupted (SIGTERM): no backup was made, and nothing is left of it.\n"
    assert not (vg.base / "quiet").exists()
    assert lvs(vg) == ["db"]


def test_the_application_does_not_wait_for_another_command_without_bound(
    vg: UlvmHost, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_snapshot, "_LOCK_SECONDS", 0.2)
    monkeypatch.chdir(vg.base)
    request = BackupRequest("vg/db", directory=target, quiesce=LOCKED, resume="touch resumed")
    session = Session(Host.from_environment(vg.env), Heard())

    def refused() -> None:
        with closing(session), pytest.raises(BusyError, match="Can't get lock for vg"):
            backup(session, request)

    ended(refused)
    assert (vg.base / "resumed").exists()
    assert lvs(vg) == ["db"]


def test_the_application_goes_on_while_another_command_is_at_work(
    vg: UlvmHost, target: Path
) -> None:
    """It may wait for an answer to its question."""
    with (vg.run_dir / "lock" / "V_vg").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = vg.start(f"backup vg/db --to {target} --quiesce 'touch quiet'")
        until(lambda: bool([*(vg.run_dir / "lock").glob("B_vg_*")]))
        time.sleep(0.5)
        assert not (vg.base / "quiet").exists()
    assert waiting.wait(60) == 0
    assert (vg.base / "quiet").exists()


# -- programs on the snapshot -------------------------------------------------------------------


def test_exec_with_nbd(vg: UlvmHost, tmp_path: Path) -> None:
    fill(vg, "vg/db", tmp_path)
    raw = content(vg, "vg/db")
    out = tmp_path / "out"
    vg.run(f"backup vg/db --exec 'nbdcopy {{nbd}} {out}'")
    assert out.read_bytes() == raw
    assert lvs(vg) == ["db"]


def test_exec_with_nbd_below_a_directory_of_any_name(short_tmp: Path) -> None:
    base = short_tmp / "a b&c#%41"
    base.mkdir()
    with closing(UlvmHost(base)) as host:
        image = host.image("pv", "32M")
        host.run(f"vgcreate vg {shlex.quote(str(image))}")
        host.run("lvcreate -n db -L 8M vg")
        host.run("backup vg/db --exec 'nbdcopy {nbd} out'")
        assert (base / "out").read_bytes() == content(host, "vg/db")


def test_the_status_of_the_program_is_the_commands(vg: UlvmHost) -> None:
    done = vg.run("backup vg/db --exec 'exit 7 # {nbd}'", rc=7)
    assert "failed with status 7" in done.stderr
    assert lvs(vg) == ["db"]


def test_the_status_counts_where_the_caller_passes_over_its_children(vg: UlvmHost) -> None:
    """Who ignores SIGCHLD has each program ignore it that is started, and is told of no status."""
    script = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    script += "os.execv(sys.executable, sys.argv[1:])"
    words = [sys.executable, "-c", script, *vg.argv("backup vg/db --exec 'exit 7 # {nbd}'")]
    assert subprocess.run(words, env=vg.env, check=False).returncode == 7


# -- interrupts ---------------------------------------------------------------------------------


def started(host: UlvmHost, tmp_path: Path) -> subprocess.Popen[str]:
    """A backup in the middle of its program."""
    ready = tmp_path / "ready"
    process = host.start(f"backup vg/db --exec 'touch {ready}; sleep 60; : {{nbd}}'")
    until(ready.exists)
    return process


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_snapshot(vg: UlvmHost, tmp_path: Path, signum: signal.Signals) -> None:
    process = started(vg, tmp_path)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "Interrupted" in stderr
    assert lvs(vg) == ["db"]
    assert "snapshot" not in vg.run("dmsetup table").stdout


def test_a_signal_while_copying_leaves_no_file(vg: UlvmHost, target: Path, tmp_path: Path) -> None:
    fill(vg, "vg/db", tmp_path)
    process = vg.start(f"backup vg/db --level 19 --to {target}")
    until(lambda: names(target) != [])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert names(target) == []
    assert lvs(vg) == ["db"]


def test_after_kill_9_the_next_command_says_so_and_cleans(
    vg: UlvmHost, target: Path, tmp_path: Path
) -> None:
    process = vg.start(f"backup vg/db --level 19 --to {target}")
    until(lambda: names(target) != [])
    process.kill()
    process.communicate()
    (left,) = [name for name in lvs(vg) if name != "db"]
    assert [n for n in names(target) if not n.startswith(".")] == []

    done = vg.run(f"backup vg/db --to {target}")
    assert f"vg/{left}" in done.stderr
    assert "left behind" in done.stderr
    assert "ulvm backup --clean vg" in done.stderr
    assert "Removed ." in done.stdout  # the partial image
    assert len(names(target)) == 2
    assert left in lvs(vg)

    vg.run("backup --clean vg")  # nobody there to say yes
    assert left in lvs(vg)
    assert f"vg/{left}" in vg.run("backup --clean vg --yes").stdout
    assert lvs(vg) == ["db"]
    assert "Nothing" in vg.run("backup --clean").stdout


def test_the_next_backup_cleans_when_told_to(vg: UlvmHost, target: Path) -> None:
    process = vg.start(f"backup vg/db --level 19 --to {target}")
    until(lambda: names(target) != [])
    process.kill()
    process.communicate()
    vg.run(f"backup vg/db --yes --to {target}")
    assert lvs(vg) == ["db"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_moment(
    vg: UlvmHost, target: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    """After SIGTERM nothing is left; after SIGKILL what is left can be cleaned; the volume lives
    on either way, and what lies in the directory is complete or hidden."""
    fill(vg, "vg/db", tmp_path)
    raw = content(vg, "vg/db")
    rng = random.Random(int(signum))
    for _ in range(10):
        process = vg.start(f"backup vg/db --to {target}")
        time.sleep(rng.uniform(0.2, 1.4))
        process.send_signal(signum)
        process.communicate(timeout=60)
        if signum is signal.SIGKILL:
            vg.run("backup --clean vg --yes")
        assert lvs(vg) == ["db"]
        for manifest in target.glob("*.json"):
            vg.run(f"verify {manifest}")
    assert content(vg, "vg/db") == raw
    vg.run("lvremove -y vg/db")


def test_clean_leaves_a_running_backup_alone(vg: UlvmHost, tmp_path: Path) -> None:
    process = started(vg, tmp_path)
    assert "Nothing" in vg.run("backup --clean vg --yes").stdout
    assert len(lvs(vg)) == 2
    process.terminate()
    process.communicate(timeout=60)


# -- restore ------------------------------------------------------------------------------------


def test_restore_overwrites_with_force_alone(vg: UlvmHost, target: Path, tmp_path: Path) -> None:
    fill(vg, "vg/db", tmp_path)
    raw = content(vg, "vg/db")
    vg.run(f"backup vg/db --to {target}")
    fill(vg, "vg/db", tmp_path, seed=2)
    assert "--force" in vg.run(f"restore {target} vg/db", rc=5).stderr
    assert content(vg, "vg/db") != raw
    vg.run(f"restore {target} vg/db --force")
    assert content(vg, "vg/db") == raw


@pytest.mark.parametrize("volume", ["db", "new"])
def test_one_restore_at_a_time_has_a_volume_in_hand(
    vg: UlvmHost, target: Path, volume: str
) -> None:
    """The second comes when the first has no connection open, between writing and reading back."""
    vg.run(f"backup vg/db --to {target}")
    session = Session(Host.from_environment(vg.env), Heard())
    second: list[str] = []

    @contextmanager
    def stage(name: str) -> Iterator[Progress]:
        if name == "Reading back":
            second.append(vg.run(f"restore {target} vg/{volume} --force", rc=5).stderr)
        yield lambda done, total: None

    with closing(session):
        restore(session, target, f"vg/{volume}", force=True, stage=stage)
    assert second == [
        f"  Another command is restoring to vg/{volume}: wait for its end.\n",
    ]
    assert vg.run(f"lvs --noheadings -o lv_tags vg/{volume}").stdout.strip() == ""
    vg.run(f"restore {target} vg/{volume} --force")


def test_a_restore_takes_no_volume_back_that_it_did_not_make(vg: UlvmHost) -> None:
    """The name was free when it looked, and taken when it had the group's lock."""
    session = Session(Host.from_environment(vg.env), Heard())
    with closing(session):
        before = session.find_vg("vg")
        vg.run(f"lvcreate -n new -L 4M --addtag {RESTORING_TAG} vg")
        with (
            pytest.raises(UlvmError, match="already exists"),
            _created(session, before, "new", MIB),
        ):
            pass
    assert sorted(lvs(vg)) == ["db", "new"]


def test_a_restore_takes_its_volume_back_where_that_does_not_become_active(
    vg: UlvmHost, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceError("no")

    vg.run(f"backup vg/db --to {target}")
    session = Session(Host.from_environment(vg.env), Heard())
    monkeypatch.setattr(lvm_lv, "activate_new", fail)
    with closing(session), pytest.raises(DeviceError, match="no"):
        restore(session, target, "vg/new")
    assert lvs(vg) == ["db"]


def test_restore_refuses_a_volume_in_use(vg: UlvmHost, target: Path, tmp_path: Path) -> None:
    vg.run(f"backup vg/db --to {target}")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, f"{vg.run_dir}/nbd.sock", "vg/db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    assert "in use" in vg.run(f"restore {target} vg/db --force", rc=5).stderr
    holder.communicate("\n")
    vg.run(f"restore {target} vg/db --force")


def test_restore_refuses_a_volume_that_is_too_small(vg: UlvmHost, target: Path) -> None:
    vg.run(f"backup vg/db --to {target}")
    vg.run("lvcreate -n small -L 32M vg")
    assert "too small" in vg.run(f"restore {target} vg/small --force", rc=5).stderr


def test_restore_of_a_damaged_backup_leaves_no_volume(
    vg: UlvmHost, target: Path, tmp_path: Path
) -> None:
    fill(vg, "vg/db", tmp_path)
    vg.run(f"backup vg/db --to {target}")
    (image,) = target.glob("*.zst")
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    image.write_bytes(data)
    assert "damaged" in vg.run(f"verify {target}", rc=5).stderr
    assert "damaged" in vg.run(f"restore {target} vg/again", rc=5).stderr
    assert lvs(vg) == ["db"]


def test_a_restore_that_was_killed_is_not_taken_for_whole(
    vg: UlvmHost, target: Path, tmp_path: Path
) -> None:
    fill(vg, "vg/db", tmp_path)
    raw = content(vg, "vg/db")
    vg.run(f"backup vg/db --to {target}")
    metadata = vg.system_dir / "backup" / "vg"
    for _ in range(10):
        process = vg.start(f"restore {target} vg/again")
        until(lambda: "ulvm_restoring" in metadata.read_text(), every=0.002)
        process.kill()
        process.communicate()
        if process.returncode != 0:
            break
        vg.run("lvremove -y vg/again")  # it was quicker than we
    assert vg.run("lvs --noheadings -o lv_tags vg/again").stdout.strip() == "ulvm_restoring"
    vg.run(f"restore {target} vg/again")  # needs no --force
    assert content(vg, "vg/again") == raw
    assert vg.run("lvs --noheadings -o lv_tags vg/again").stdout.strip() == ""


def test_what_a_restore_left_half_written_is_not_backed_up(vg: UlvmHost, target: Path) -> None:
    vg.run(f"lvchange --addtag {RESTORING_TAG} vg/db")
    assert "holds part of a restore" in vg.run(f"backup vg/db --to {target}", rc=5).stderr
    assert "holds part of a restore" in vg.run(f"mount vg/db {target}", rc=5).stderr
    assert lvs(vg) == ["db"]
    vg.run(f"lvchange --deltag {RESTORING_TAG} vg/db")
    vg.run(f"backup vg/db --to {target}")


def test_what_the_list_does_not_let_become_active_stays_inactive(
    vg: UlvmHost, target: Path
) -> None:
    vg.run(f"backup vg/db --to {target}")
    unlisted = "--config 'activation/volume_list=[\"other\"]'"
    for command in (f"restore --force {target} vg/db", f"backup vg/db --to {target}"):
        vg.run("lvchange -an vg/db")
        done = vg.run(f"{command} {unlisted}", rc=5)
        assert "Volume vg/db is not active locally (volume_list" in done.stderr
        assert vg.run("lvs --noheadings -o lv_active,lv_tags vg/db").stdout.strip() == ""
        vg.run(f"{command} {unlisted.replace('other', 'vg/db')}")
    assert lvs(vg) == ["db"]


@needs.root
def test_no_space_in_the_directory(vg: UlvmHost, target: Path, tmp_path: Path) -> None:
    fill(vg, "vg/db", tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", str(target)], check=True)
    try:
        done = vg.run(f"backup vg/db --to {target}", rc=5)
        assert "No space left on device" in done.stderr
        assert names(target) == []
    finally:
        subprocess.run(["umount", str(target)], check=True)
    assert lvs(vg) == ["db"]


# -- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "rc", "says"),
    [
        ("backup vg/db", 3, "One of --to DIR and --exec"),
        ("backup vg/db --to . --exec 'x {nbd}'", 3, "only one"),
        ("backup vg/db --exec 'tar c .'", 3, "none of"),
        ("backup", 3, "volume"),
        ("backup vg/nothing --to .", 5, "Failed to find logical volume"),
        ("backup none/db --to .", 5, '"none" not found'),
        ("backup vg/db --to /nowhere/at/all", 5, "is not a directory"),
        ("backup vg/db --to . --size x", 3, "size"),
        ("verify /nowhere", 5, "does not exist"),
        ("verify etc", 5, "no backup"),
    ],
)
def test_mistakes(vg: UlvmHost, command: str, rc: int, says: str) -> None:
    assert says in vg.run(command, rc=rc).stderr
    assert lvs(vg) == ["db"]


def test_a_snapshot_is_not_backed_up(vg: UlvmHost, target: Path) -> None:
    vg.run("lvcreate -s -n snap -L 8M vg/db")
    done = vg.run(f"backup vg/snap --to {target}", rc=5)
    assert "back up its origin" in done.stderr
    vg.run("lvcreate -s -n thin -V 64M -L 8M vg")
    done = vg.run(f"backup vg/thin --to {target}", rc=5)
    assert done.stderr == (
        "  vg/thin is sparse, a snapshot of nothing, which cannot have snapshots.\n"
    )


def test_what_is_no_backup_is_not_named_as_one(vg: UlvmHost, target: Path) -> None:
    vg.run(f"backup vg/db --to {target}")
    (manifest,) = target.glob("*.json")
    (target / "notes.json").write_text("{}")
    said = vg.run(f"verify {target}", rc=5).stderr
    assert said == f"  {target} holds 2 backups; name one, for instance {manifest}.\n"
