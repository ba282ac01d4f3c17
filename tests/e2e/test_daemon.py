"""The daemon: one for a run directory, private, and a survivor of its clients."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import needs
from tests.e2e.host import UlvmHost
from tests.waiting import until
from ulvm.blockdev.nbd import NbdDevice
from ulvm.daemon.client import connect
from ulvm.errors import BusyError
from ulvm.metadata.snapshot_edit import add_snapshot
from ulvm.metadata.uuid import new_uuid
from ulvm.mounts import unmount
from ulvm.vgstore.commit import prepare
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import scan

MIB = 1 << 20


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    """vg/lv of 16 MiB, active."""
    host.run(f"vgcreate vg {host.image('pv.img', '128M')}")
    host.run("lvcreate -L 16M -n lv vg")
    return host


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_first_activation_starts_it_and_stop_ends_it(host: UlvmHost) -> None:
    host.run(f"vgcreate vg {host.image('pv.img', '128M')}")
    assert "does not run" in host.run("daemon status", rc=5).stderr
    host.run("lvs")
    assert not (host.run_dir / "control.sock").exists()
    host.run("lvcreate -L 16M -n lv vg")
    pid = host.daemon_pid()
    status = host.run("daemon status").stdout
    assert f"Process    {pid}" in status
    assert "vg/lv, 16.00 MiB, not open" in status
    host.run("daemon stop")
    assert gone(pid)
    assert host.run("lvs --noheadings -o lv_attr vg").stdout.split() == ["-wi-------"]
    assert sorted(p.name for p in host.run_dir.iterdir()) == [
        *("dev", "lock", "ulvmd.lock", "ulvmd.log")
    ]
    host.run("lvchange -ay vg/lv")
    assert host.daemon_pid() != pid


def test_everything_is_its_owners_alone(vg: UlvmHost) -> None:
    assert vg.run_dir.stat().st_mode & 0o777 == 0o700
    for name in ("control.sock", "nbd.sock", "state.json"):
        assert (vg.run_dir / name).stat().st_mode & 0o777 == 0o600
    assert (vg.run_dir / "dev").stat().st_mode & 0o777 == 0o700
    assert vg.path("vg/lv").stat().st_mode & 0o777 == 0o600


def test_stop_is_refused_while_a_volume_is_open(vg: UlvmHost) -> None:
    with open(vg.path("vg/lv"), "rb"):
        done = vg.run("daemon stop", rc=5)
        assert done.stderr == (
            "  Volumes are in use: vg/lv. Unmount or close them first, or use --force.\n"
        )
        assert vg.run("lvs --noheadings -o lv_attr vg").stdout.split() == ["-wi-ao----"]
        vg.run("daemon stop --force")


@needs.root
@needs.program("unshare")
def test_stop_from_another_pid_namespace(vg: UlvmHost) -> None:
    pid = vg.daemon_pid()
    # Which keeps a copy of the tree, that must not keep the daemon.
    argv = ["unshare", "--pid", "--fork", "--mount-proc", *vg.argv("daemon stop")]
    subprocess.run(argv, env=vg.env, check=True, capture_output=True)
    assert gone(pid)
    assert "did not end" not in vg.log()


@needs.root
@needs.fuse
@needs.program("unshare")
def test_a_tree_in_another_mount_namespace_is_said_to_be_there(vg: UlvmHost) -> None:
    vg.run("daemon stop")
    argv = ["unshare", "--mount", *vg.argv("lvchange -ay vg/lv")]
    subprocess.run(argv, env=vg.env, check=True, capture_output=True)
    assert "in another mount namespace" in vg.run("daemon status").stdout
    where = vg.base / "mnt"
    where.mkdir()
    assert "daemon status" in vg.run(f"mount vg/lv {where}", rc=5).stderr


def test_many_commands_start_one_daemon(vg: UlvmHost) -> None:
    vg.run("daemon stop")
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: vg.run("daemon start"), range(6)))
    assert len({result.stdout for result in done}) == 1


def test_a_second_daemon_on_the_same_pv_is_refused(vg: UlvmHost) -> None:
    other = vg.base / "other"
    other.mkdir()
    second = UlvmHost(other)
    second.run(f"devices add {vg.base}/pv.img")
    try:
        done = second.run("lvchange -ay vg/lv", rc=5)
        assert "in use by" in done.stderr or "is held" in done.stderr, done.stderr
        assert second.run("lvs --noheadings -o lv_attr vg").stdout.split() == ["-wi-------"]
    finally:
        second.close()


@needs.fuse
def test_the_status_knows_of_a_tree_that_was_unmounted(vg: UlvmHost) -> None:
    tree = vg.run_dir / "dev"
    assert f"Volumes    {tree}" in vg.run("daemon status").stdout
    unmount(tree)
    until(lambda: "Volumes    no FUSE: it was unmounted" in vg.run("daemon status").stdout)
    vg.run("daemon stop")
    vg.run("vgchange -ay vg")
    assert f"Volumes    {tree}" in vg.run("daemon status").stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_these_signals_are_a_clean_stop(vg: UlvmHost, number: signal.Signals) -> None:
    vg.run("daemon stop")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # this run may be under nohup
    try:
        vg.run("vgchange -ay vg")
    finally:
        signal.signal(signal.SIGHUP, before)
    pid = vg.daemon_pid()
    os.kill(pid, number)
    until(lambda: gone(pid))
    assert not (vg.run_dir / "state.json").exists()
    assert vg.run("lvs --noheadings -o lv_attr vg").stdout.split() == ["-wi-------"]


def test_a_signal_that_the_starter_had_blocked_stops_it(host: UlvmHost) -> None:
    """A mask goes on to each program that is started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        host.run("daemon start")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    pid = host.daemon_pid()
    os.kill(pid, signal.SIGTERM)
    until(lambda: gone(pid))


def test_the_limits_of_the_starter_are_not_the_daemons(vg: UlvmHost) -> None:
    """With one on the length of files a write failed, and the snapshot was invalid for good."""
    vg.run("lvcreate -s -L 20M -n snap vg/lv")
    vg.run("daemon stop")
    words = shlex.join(vg.argv("vgchange -ay vg"))
    limits = "ulimit -Sf 10240; ulimit -St 99; ulimit -Sn 64"
    argv = ["bash", "-c", f"{limits}; exec nice -n 7 ionice -c 3 {words}"]
    subprocess.run(argv, env=vg.env, check=True, capture_output=True)
    pid = vg.daemon_pid()
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
        hard = resource.getrlimit(limit)[1]
        assert hard in (-1, resource.prlimit(pid, limit)[0])
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] > 64
    if os.geteuid() == 0:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(own, 0)
    told = subprocess.run(["ionice", "-p", str(pid)], check=True, capture_output=True, text=True)
    assert not told.stdout.startswith("idle")
    volume = NbdDevice(str(vg.run_dir / "nbd.sock"), "vg/lv")
    volume.write(0, bytes(16 * MIB))
    volume.flush()
    volume.close()
    assert vg.run("lvs --noheadings -o lv_attr vg/snap").stdout.split() == ["swi-a-s---"]


def test_under_nohup_sighup_is_ignored(host: UlvmHost) -> None:
    subprocess.run(
        ["nohup", *host.argv("daemon start")], env=host.env, check=True, capture_output=True
    )
    pid = host.daemon_pid()
    os.kill(pid, signal.SIGHUP)
    assert host.daemon_pid() == pid
    assert not gone(pid)


def test_after_kill_9_the_next_command_brings_everything_back(vg: UlvmHost) -> None:
    vg.run("lvcreate -s -L 8M -n snap vg/lv")
    vg.run("dmsetup create own --table '0 8 zero' -u MINE")
    vg.run("dmsetup suspend own")
    before = vg.run("dmsetup info -c --noheadings").stdout
    tables = vg.run("dmsetup table").stdout
    os.kill(vg.daemon_pid(), signal.SIGKILL)
    assert vg.run("dmsetup info -c --noheadings").stdout == before
    assert vg.run("dmsetup table").stdout == tables
    assert "the last daemon was killed" in vg.log()


def test_what_cannot_come_back_is_said_and_the_rest_does(vg: UlvmHost) -> None:
    vg.image("own.img", "1M")
    vg.run(f"dmsetup create own --table '0 8 linear {vg.base}/own.img 0'")
    os.kill(vg.daemon_pid(), signal.SIGKILL)
    (vg.base / "own.img").unlink()
    assert vg.run("lvs --noheadings -o lv_attr vg").stdout.split() == ["-wi-a-----"]
    assert "not brought back: own" in vg.log()


def test_after_a_boot_nothing_is_active(vg: UlvmHost) -> None:
    os.kill(vg.daemon_pid(), signal.SIGKILL)
    path = vg.run_dir / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "boot_id": "another"}))
    assert vg.run("lvs --noheadings -o lv_attr vg").stdout.split() == ["-wi-------"]
    unmount(vg.run_dir / "dev", lazy=True)  # a boot would have


CLIENT = """
import os, sys, time
from pathlib import Path
from ulvm.daemon.client import connect
client = connect(Path(sys.argv[1]), start=False)
for device in sys.argv[2:]:
    client.suspend(device, lockfs=False)
print("suspended", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("device", ["vg-lv", "own"])
def test_a_client_that_dies_leaves_nothing_suspended(vg: UlvmHost, device: str) -> None:
    vg.run("dmsetup create own --table '0 8 zero'")
    dying = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(vg.run_dir), device], stdout=subprocess.PIPE, text=True
    )
    assert dying.stdout is not None
    assert dying.stdout.readline() == "suspended\n"
    assert "SUSPENDED" in vg.run(f"dmsetup info {device}").stdout
    dying.kill()
    dying.communicate()
    until(lambda: "ACTIVE" in vg.run(f"dmsetup info {device}").stdout)


def test_a_client_that_dies_leaves_nothing_suspended_that_cannot_be_found_or_resumed(
    vg: UlvmHost,
) -> None:
    """One device that cannot be resumed, and one that has another name by now, before a volume."""
    vg.run("dmsetup create bare --notable")
    vg.run("dmsetup create own --table '0 8 zero'")
    dying = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(vg.run_dir), "bare", "own", "vg-lv"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert dying.stdout is not None
    assert dying.stdout.readline() == "suspended\n"
    vg.run("dmsetup rename own other")
    dying.kill()
    dying.communicate()
    for device in ("other", "vg-lv"):
        until(lambda device=device: "ACTIVE" in vg.run(f"dmsetup info {device}").stdout)
    assert "bare is not resumed" in vg.log()


def test_a_snapshot_half_made_by_a_dead_command_is_finished(vg: UlvmHost) -> None:
    """Its metadata are committed, the origin suspended without the new tables: the moment at
    which a power cut of the command hurts most."""
    with open(vg.path("vg/lv"), "r+b", buffering=0) as stream:
        stream.write(b"old" * 1000)
    dying = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(vg.run_dir), "vg-lv"], stdout=subprocess.PIPE, text=True
    )
    assert dying.stdout is not None
    assert dying.stdout.readline() == "suspended\n"
    # The metadata of the snapshot, without its devices.
    here = Host(vg.system_dir, vg.run_dir)
    found = scan(here)
    old = found.vg("vg")
    new = add_snapshot(
        old,
        "lv",
        "snap",
        2,
        chunk_size=8,
        uuid=new_uuid(),
        snapshot_uuid=new_uuid(),
        now=1,
        host="h",
    )
    prepare(here, found, old, new, command="dies").commit()
    dying.kill()
    dying.communicate()
    until(lambda: "vg-snap:" in vg.run("dmsetup table").stdout)
    until(lambda: "suspended" not in vg.run("lvs --noheadings -o lv_suspended vg").stdout)
    with open(vg.path("vg/lv"), "r+b", buffering=0) as stream:
        stream.write(b"new" * 1000)
    assert vg.path("vg/snap").read_bytes()[:3000] == b"old" * 1000


def test_what_a_dead_command_left_waits_for_the_next_one_whatever_the_settings_say(
    vg: UlvmHost,
) -> None:
    """Nobody else would resume it."""
    (vg.system_dir / "ulvm.conf").write_text("global { wait_for_locks = 0 }\n")
    vg.env["ULVM_FAULT_POINT"] = "at=after suspend"
    assert vg.attempt("lvcreate -s -n s -L 4M vg/lv").rc == -signal.SIGKILL
    del vg.env["ULVM_FAULT_POINT"]
    with (vg.run_dir / "lock/V_vg").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        until(lambda: "left suspended" in vg.log())
        time.sleep(2)
        assert "SUSPENDED" in vg.run("dmsetup info").stdout
    until(lambda: "SUSPENDED" not in vg.run("dmsetup info").stdout)


def test_a_merge_ends_although_all_who_waited_for_it_were_killed(vg: UlvmHost) -> None:
    vg.run("lvcreate -s -l 100%ORIGIN -n snap vg/lv")
    with open(vg.path("vg/lv"), "r+b", buffering=0) as stream:
        for _ in range(16):
            stream.write(os.urandom(MIB))
    command = vg.start("lvconvert --merge vg/snap")
    assert command.stdout is not None
    assert command.stdout.readline() == "  Merging of volume vg/snap started.\n"
    command.kill()
    command.communicate()
    os.kill(vg.daemon_pid(), signal.SIGKILL)
    until(
        lambda: (
            vg.run("lvs --noheadings -o lv_name,lv_attr vg").stdout.split() == ["lv", "-wi-a-----"]
        )
    )
    assert vg.path("vg/lv").read_bytes() == bytes(16 * MIB)


def test_a_merge_under_a_name_that_is_not_lvms_does_not_hinder_a_start(host: UlvmHost) -> None:
    origin, cow = host.image("origin.img", "1M"), host.image("cow.img", "1M")
    table = f"0 2048 snapshot-merge {origin} {cow} P 8"
    host.run(f"dmsetup create nodash -u LVM-{'a' * 64} --table '{table}'")
    os.kill(host.daemon_pid(), signal.SIGKILL)
    assert "ACTIVE" in host.run("dmsetup info nodash").stdout


def test_what_dmsetup_suspends_stays_so(vg: UlvmHost) -> None:
    vg.run("dmsetup suspend vg-lv")
    time.sleep(0.5)
    assert "SUSPENDED" in vg.run("dmsetup info vg-lv").stdout
    vg.run("dmsetup resume vg-lv")


def test_a_suspended_device_does_not_hold_other_requests(vg: UlvmHost) -> None:
    vg.run("dmsetup suspend vg-lv")
    writer = subprocess.Popen(
        ["dd", "if=/dev/zero", f"of={vg.path('vg/lv')}", "bs=4k", "count=1", "conv=notrunc"],
        stderr=subprocess.DEVNULL,
    )
    assert "SUSPENDED" in vg.run("dmsetup info vg-lv").stdout
    vg.run("lvcreate -L 4M -n other vg")
    vg.run("dmsetup resume vg-lv")
    assert writer.wait(30) == 0


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["op", "args", "device", "x"]), inner, max_size=3)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
        st.sampled_from(["load", "create", "wait", "message", "table", "device_name"]).map(
            lambda op: json.dumps({"op": op, "args": {"device": [], "table": {}}}).encode()
        ),
    )
)
def test_nonsense_on_the_control_socket_harms_nobody(vg: UlvmHost, message: bytes) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(vg.run_dir / "control.sock"))
    sock.sendall(message + b"\n")
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(4096):
        pass
    sock.close()
    client = connect(vg.run_dir, start=False)
    assert client is not None
    assert client.info("vg-lv").live_table
    client.close()


def test_growth_by_the_monitor(vg: UlvmHost) -> None:
    """activation/snapshot_autoextend_threshold, as dmeventd would."""
    vg.run("daemon stop")
    (vg.system_dir / "ulvm.conf").write_text(
        "activation { snapshot_autoextend_threshold = 60  snapshot_autoextend_percent = 50 }\n"
    )
    vg.run("lvchange -ay vg/lv")
    vg.run("lvcreate -s -L 8M -n snap vg/lv")
    with open(vg.path("vg/lv"), "r+b", buffering=0) as stream:
        for _ in range(6):
            stream.write(os.urandom(MIB))
    until(lambda: "12.00m" in vg.run("lvs --noheadings -o lv_size vg/snap").stdout)
    assert vg.run("lvs --noheadings -o lv_attr vg/snap").stdout.split() == ["swi-a-s---"]


def test_growth_whatever_profile_the_starter_had(vg: UlvmHost) -> None:
    """What the daemon starts is not that command's business."""
    vg.run("daemon stop")
    settings = "activation { snapshot_autoextend_threshold = 60  snapshot_autoextend_percent = 50 }"
    (vg.system_dir / "ulvm.conf").write_text(settings)
    profile = vg.system_dir / "profile" / "once.profile"
    profile.parent.mkdir()
    profile.write_text("")
    env = {**vg.env, "ULVM_COMMAND_PROFILE": "once"}
    subprocess.run(vg.argv("lvchange -ay vg/lv"), env=env, check=True, capture_output=True)
    profile.unlink()
    vg.run("lvcreate -s -L 8M -n snap vg/lv")
    volume = NbdDevice(str(vg.run_dir / "nbd.sock"), "vg/lv")
    volume.write(0, os.urandom(6 * MIB))
    volume.close()
    until(lambda: "12.00m" in vg.run("lvs --noheadings -o lv_size vg/snap").stdout)


def test_nbd_on_a_tcp_port_of_the_loopback_alone(vg: UlvmHost) -> None:
    said = vg.run("daemon listen --port 0").stdout
    port = int(said.rstrip(".\n").rpartition(" ")[2])
    done = subprocess.run(
        ["nbdinfo", "--size", f"nbd://127.0.0.1:{port}/vg/lv"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(16 * MIB)
    assert (
        "whoever reaches it could read and write all volumes"
        in vg.run("daemon listen --address 0.0.0.0", rc=5).stderr
    )


def test_busy_is_an_error_of_our_own(vg: UlvmHost) -> None:
    client = connect(vg.run_dir, start=False)
    assert client is not None
    with open(vg.path("vg/lv"), "rb"), pytest.raises(BusyError):
        client.stop()
    client.close()


def test_a_state_that_cannot_be_written_leaves_no_older_one(vg: UlvmHost) -> None:
    """Its tables would lead to where another volume lies by now."""
    vg.run("lvcreate -s -n snap -L 8M vg/lv")
    (vg.run_dir / "state.new").mkdir()  # where the next state is written
    vg.run("lvremove -y vg/snap")
    vg.run("lvcreate -y -n new -L 8M vg")
    with vg.path("vg/new").open("r+b", buffering=0) as file:
        file.write(b"mine" * 1024)
    assert "cannot write the state file" in vg.log()
    os.kill(vg.daemon_pid(), signal.SIGKILL)
    (vg.run_dir / "state.new").rmdir()
    vg.run("vgchange -ay vg")
    with vg.path("vg/lv").open("r+b", buffering=0) as file:
        file.write(bytes(MIB))
    with vg.path("vg/new").open("rb", buffering=0) as file:
        assert file.read(4096) == b"mine" * 1024


def test_an_origin_does_not_come_back_without_its_snapshot(host: UlvmHost) -> None:
    """What is written to it meanwhile would be missing in the snapshot."""
    first, second = host.image("a.img", "64M"), host.image("b.img", "64M")
    host.run(f"vgcreate vg {first} {second}")
    host.run(f"lvcreate -n base -L 8M vg {first}")
    with host.path("vg/base").open("r+b", buffering=0) as file:
        file.write(b"old" * 1024)
    host.run(f"lvcreate -s -n snap -L 4M vg/base {second}")
    os.kill(host.daemon_pid(), signal.SIGKILL)
    second.rename(host.base / "away")
    host.attempt("lvs vg")
    assert "vg-base: a snapshot of its origin could not be brought back" in host.log()
    with pytest.raises(OSError, match=r"Input/output error|No such file"):
        host.path("vg/base").open("r+b", buffering=0).write(b"new" * 1024)
    host.attempt("vgchange --refresh vg")
    with pytest.raises(OSError, match=r"Input/output error|No such file"):
        host.path("vg/base").open("r+b", buffering=0).write(b"new" * 1024)
    (host.base / "away").rename(second)
    host.run("vgchange --refresh vg")
    with host.path("vg/base").open("r+b", buffering=0) as file:
        assert file.read(3072) == b"old" * 1024
        file.seek(0)
        file.write(b"new" * 1024)
    with host.path("vg/snap").open("rb", buffering=0) as file:
        assert file.read(3072) == b"old" * 1024


def test_sigusr1_writes_the_stacks_to_the_log_and_ends_nothing(vg: UlvmHost) -> None:
    pid = vg.daemon_pid()
    os.kill(pid, signal.SIGUSR1)
    until(lambda: "wait_for_stop" in vg.log())
    assert vg.daemon_pid() == pid


STOPPED = """
import os, signal, sys
import ulvm.daemon.client
def reach(point):
    if point == "after suspend":
        ulvm.daemon.client.reach = lambda point: None
        os.kill(os.getpid(), signal.SIGSTOP)
ulvm.daemon.client.reach = reach
from ulvm.cli.start import main
sys.exit(main())
"""
"""`ulvm`, which stops when it has suspended a device, as one that waits for the processor."""


def test_a_report_shows_nothing_that_another_command_has_half_way(vg: UlvmHost) -> None:
    stopped = subprocess.Popen(
        [sys.executable, "-c", STOPPED, "lvcreate", "-s", "-n", "s", "-L4M", "vg/lv"],
        env=vg.env,
        stdout=subprocess.DEVNULL,
    )
    os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
    report = vg.start("lvs --noheadings -o lv_name,lv_attr vg")
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            report.wait(timeout=3)
    finally:
        stopped.send_signal(signal.SIGCONT)
    assert stopped.wait() == 0
    shown, _ = report.communicate()
    assert shown.split() == ["lv", "owi-a-s---", "s", "swi-a-s---"]


def test_a_report_shows_at_once_what_nobody_is_at(vg: UlvmHost) -> None:
    vg.run("dmsetup suspend vg-lv")
    began = time.monotonic()
    assert vg.run("lvs --noheadings -o lv_attr vg").stdout.split() == ["-wi-s-----"]
    assert time.monotonic() - began < 9, "nobody was waited for"
