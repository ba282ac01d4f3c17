"""What is frozen for a snapshot is the volume's file system, and it is thawed whatever comes."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.waiting import until
from ulvm.errors import DeviceError
from ulvm.mounts import FrozenMounts, Mount, mount_at, table

pytestmark = [
    needs.root,
    needs.fuse,
    needs.loop,
    needs.program("mkfs.ext4"),
    needs.program("fsfreeze"),
]


def ext4(path: Path, size: int = 16 << 20) -> Path:
    with path.open("xb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


@contextmanager
def mounted(image: Path, directory: Path) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def test_what_lies_over_a_volume_is_not_frozen_in_its_place(host: UlvmHost, tmp_path: Path) -> None:
    host.run(f"pvcreate {host.image('pv', '128M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n db -L 32M vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/db")], check=True)
    directory, target = tmp_path / "mnt", tmp_path / "backups"
    target.mkdir()
    with mounted(host.path("vg/db"), directory), mounted(ext4(tmp_path / "over"), directory):
        said = host.run(f"backup vg/db --to {target}").stdout
    assert f"ms; synced, but could not be frozen: {directory}." in said


def test_what_no_path_leads_to_is_frozen_at_another_place_or_synced(
    host: UlvmHost, tmp_path: Path
) -> None:
    host.run(f"pvcreate {host.image('pv', '128M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n db -L 32M vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/db")], check=True)
    above, bound, target = tmp_path / "above", tmp_path / "bound", tmp_path / "backups"
    for directory in (above / "db", bound, target):
        directory.mkdir(parents=True)
    with mounted(host.path("vg/db"), above / "db"), mounted(ext4(tmp_path / "over"), above):
        said = host.run("backup vg/db --exec 'true {nbd}'").stdout
    assert f"ms; synced, but could not be frozen: {above}/db." in said
    with mounted(host.path("vg/db"), above / "db"):
        subprocess.run(["mount", "--bind", above / "db", bound], check=True)
        try:
            with mounted(tmp_path / "over", above):
                said = host.run(f"backup vg/db --to {target}").stdout
        finally:
            subprocess.run(["umount", bound], check=True)
    assert f"ms; frozen: {bound}." in said


@pytest.mark.parametrize(
    "setting",
    [
        'backup {{ backup_dir="{0}/b" archive_dir="{0}/a" }}',
        'log {{ file="{0}/log" level=7 }}',
        "log {{ level=0 }}",
    ],
)
def test_what_a_command_writes_beside_may_lie_on_what_is_frozen(
    host: UlvmHost, tmp_path: Path, setting: str
) -> None:
    """Metadata backups, the log, standard output and error: it would wait for itself."""
    host.run(f"pvcreate {host.image('pv', '128M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n db -L 32M vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/db")], check=True)
    directory = tmp_path / "mnt"
    with mounted(host.path("vg/db"), directory):
        for name in "ab":
            (directory / name).mkdir()
        argv = host.argv(
            f"lvcreate -vvvv -s -n s -L 8M vg/db --config '{setting.format(directory)}'"
        )
        with (directory / "out" if "level=0" in setting else tmp_path / "out").open("wb") as out:
            command = subprocess.Popen(argv, env=host.env, stdout=out, stderr=out)
        try:
            assert command.wait(60) == 0
        except subprocess.TimeoutExpired:
            for name in ("vg-db-real", "vg-db"):
                host.run(f"dmsetup resume {name}")
            raise
        finally:
            command.wait()
        if "backup" in setting:
            assert "s {" in (directory / "b/vg").read_text()
        else:
            told = (directory / ("log" if "file" in setting else "out")).read_text()
            assert "Suspending vg-db" in told
            assert "Resuming vg-db" in told
            assert 'Logical volume "s" created.' in told


def test_a_btrfs_is_found_by_whatever_name_its_device_was_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount table has no device's number for it; on LUKS its source is /dev/mapper/X."""
    loop, node = tmp_path / "block/loop99", tmp_path / "X"
    texts = {
        "dev": "7:99",
        "ro": "0",
        "loop/backing_file": "/volume",
        "loop/autoclear": "1",
        "loop/offset": "0",
        "loop/sizelimit": "0",
    }
    (loop / "holders").mkdir(parents=True)
    (loop / "loop").mkdir()
    for name, text in texts.items():
        (loop / name).write_text(f"{text}\n")
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(7, 99))
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"47 27 0:41 / /mnt rw,relatime - btrfs {node} rw,ssd\n")
    monkeypatch.setattr(table, "_MOUNTINFO", mountinfo)
    found = table.mounts_of("/volume", sys_block=tmp_path / "block")
    assert [mount.mount_point for mount in found] == ["/mnt"]


def test_a_name_may_hold_a_carriage_return(host: UlvmHost, tmp_path: Path) -> None:
    """Of anything that is mounted on the machine: mountinfo has it as it is."""
    host.run(f"vgcreate vg {host.image('pv', '128M')}")
    host.run("lvcreate -n db -L 32M vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/db")], check=True)
    odd, where = tmp_path / "a\rb", tmp_path / "mnt"
    odd.mkdir()
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", odd], check=True)
    try:
        host.run(f"mount vg/db {where}")
        host.run("lvcreate -s -n snap -L 8M vg/db")
        host.run(f"vgcreate other {host.image('other', '32M')}")
        host.run("lvcreate -n lv -L 4M other")  # beside the loop device of the mount
        host.run(f"umount {where}")
    finally:
        subprocess.run(["umount", odd], check=True)


def test_a_command_is_not_stopped_while_something_is_frozen(host: UlvmHost, tmp_path: Path) -> None:
    """Ctrl-Z waits for the thaw."""
    host.run(f"pvcreate {host.image('pv', '128M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n db -L 32M vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/db")], check=True)
    daemon = host.daemon_pid()

    def freezes() -> bool:
        """Whether the daemon has started what guards a freeze."""
        children = Path(f"/proc/{daemon}/task").glob("*/children")
        return any(path.read_text() for path in children)

    directory = tmp_path / "mnt"
    with mounted(host.path("vg/db"), directory):
        mount = mount_at(directory)
        assert mount is not None
        argv = host.argv("lvcreate -s -n s -L 8M vg/db")
        command = subprocess.Popen(
            ["env", "--default-signal=TSTP", *argv],
            env=host.env,
            process_group=0,  # that of an orphan is never stopped from a terminal
        )
        try:
            while not freezes():
                assert command.poll() is None
            command.send_signal(signal.SIGTSTP)
            assert os.waitpid(command.pid, os.WUNTRACED)[1] & 0xFF == 0x7F
            time.sleep(1)
            assert writes(mount)
        finally:
            command.send_signal(signal.SIGCONT)
            assert command.wait() == 0


def test_what_was_frozen_is_thawed_though_something_lies_over_it(tmp_path: Path) -> None:
    directory = tmp_path / "mnt"
    with mounted(ext4(tmp_path / "image"), directory):
        mount = mount_at(directory)
        assert mount is not None
        with FrozenMounts([mount]) as frozen, mounted(ext4(tmp_path / "over"), directory):
            assert frozen.frozen == (mount,)
            frozen.__exit__(None, None, None)
        again = subprocess.run(["fsfreeze", "--freeze", directory], check=False)
        subprocess.run(["fsfreeze", "--unfreeze", directory], check=True)
        assert again.returncode == 0  # EBUSY if it is frozen


def writes(mount: Mount) -> bool:
    """Whether a writer gets on within a moment."""
    touch = subprocess.Popen(["touch", f"{mount.mount_point}/written"])
    try:
        return touch.wait(1) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        touch.terminate()


def test_what_was_frozen_is_thawed_with_no_descriptor_left(tmp_path: Path) -> None:
    with mounted(ext4(tmp_path / "image"), tmp_path / "mnt"):
        mount = mount_at(tmp_path / "mnt")
        assert mount is not None
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        frozen = FrozenMounts([mount]).__enter__()
        try:
            assert not writes(mount)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            with pytest.raises(OSError, match="Too many open files"):
                os.open("/", os.O_RDONLY)
        finally:
            frozen.__exit__(None, None, None)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert writes(mount)


def killed_frozen(mounts: list[Mount], before: Callable[[], object] = lambda: None) -> None:
    """A process freezes these, does what is wanted, and is killed."""
    child = os.fork()
    if not child:
        FrozenMounts(mounts).__enter__()
        before()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)


@pytest.mark.parametrize("path", ["/usr/sbin:/usr/bin:/sbin:/bin", "/usr/bin:/bin"])
def test_who_is_killed_without_thawing_has_it_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """With the PATH of cron(8) as well."""
    with mounted(ext4(tmp_path / "image"), tmp_path / "mnt"):
        mount = mount_at(tmp_path / "mnt")
        assert mount is not None
        monkeypatch.setenv("PATH", path)
        killed_frozen([mount])
        until(lambda: writes(mount))


def test_who_is_killed_has_his_own_thawed_and_nobody_elses(tmp_path: Path) -> None:
    one, two, over = tmp_path / "one", tmp_path / "two", ext4(tmp_path / "over")
    with mounted(ext4(tmp_path / "a"), one), mounted(ext4(tmp_path / "b"), two):
        first, second = mount_at(one), mount_at(two)
        assert first is not None
        assert second is not None
        subprocess.run(["fsfreeze", "--freeze", two], check=True)
        hide = ["mount", "-o", "loop", over, one]
        try:
            killed_frozen([first, second], lambda: subprocess.run(hide, check=True))
            subprocess.run(["umount", one], check=True)
            until(lambda: writes(first))
            assert not writes(second)
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", two], check=True)
            subprocess.run(["fsfreeze", "--unfreeze", one], check=False)


def test_what_cannot_be_looked_at_is_not_held(tmp_path: Path) -> None:
    """It would be in use for good."""
    with mounted(ext4(tmp_path / "image"), tmp_path / "mnt"):
        mount = mount_at(tmp_path / "mnt")
        assert mount is not None
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.open("/", os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limits[1]))
        try:
            with pytest.raises(DeviceError, match="Too many open files"):
                FrozenMounts([mount]).__enter__()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
