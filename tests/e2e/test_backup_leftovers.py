"""What killed backups left, or backups whose daemon was killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.test_backup_interrupts import Heard
from tests.waiting import until
from ulvm.backup.job import BackupRequest, backup, clean
from ulvm.backup.leftovers import TAG
from ulvm.backup.pipeline import Progress, Stage
from ulvm.backup.restoring import restore
from ulvm.errors import UlvmError
from ulvm.lvm.session import Session
from ulvm.vgstore.host import Host

pytestmark = needs.fuse


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    """A host with vg/db and its snapshots l1, l2 and l3, left behind."""
    host.run(f"pvcreate {host.image('pv', '64M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n db -L 4M vg")
    for name in ("l1", "l2", "l3"):
        host.run(f"lvcreate -s -n {name} -L 4M --addtag {TAG} vg/db")
    return host


def lvs(host: UlvmHost) -> list[str]:
    return host.run("lvs --noheadings -o lv_name vg").stdout.split()


def test_one_in_use_hinders_no_backup(vg: UlvmHost, tmp_path: Path) -> None:
    with vg.path("vg/l1").open("rb"):
        done = vg.run(f"backup vg/db --to {tmp_path} --yes")
    assert "Logical volume vg/l1 in use." in done.stderr
    assert lvs(vg) == ["db", "l1"]


def test_one_in_use_is_passed_over_by_clean(vg: UlvmHost) -> None:
    with vg.path("vg/l1").open("rb"), vg.path("vg/l3").open("rb"):
        done = vg.run("backup --clean vg --yes", rc=5)
    assert done.stderr.splitlines() == [
        "  Logical volume vg/l1 in use.",
        "  Logical volume vg/l3 in use.",
    ]
    assert lvs(vg) == ["db", "l1", "l3"]


def test_one_that_is_gone_since_the_look_is_not_left(
    vg: UlvmHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    resolve = Session.resolve_lv

    def late(session: Session, text: str) -> tuple[str, str]:
        found = resolve(session, text)
        if len(lvs(vg)) > 1:
            vg.run("lvremove -f vg/l1 vg/l2 vg/l3")
        return found

    monkeypatch.setattr(Session, "resolve_lv", late)
    with closing(Session(Host.from_environment(vg.env), heard)) as session:
        backup(session, BackupRequest("vg/db", directory=tmp_path))
    assert heard.warned == []


# -- the daemon is killed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("lvremove -f vg/l1", []),  # by its backup, which has ended well
        (f"lvchange --deltag {TAG} vg/l1", ["l1"]),
    ],
)
def test_what_is_not_left_any_more_behind_the_question_is_let_be(
    vg: UlvmHost, command: str, left: list[str]
) -> None:
    class Slow(Heard):
        def ask(self, question: str) -> bool:
            if "vg/l1" in question:
                vg.run(command)
            return True

    with closing(Session(Host.from_environment(vg.env), Slow())) as session:
        clean(session, "vg")
    assert lvs(vg) == ["db", *left]


def killing(host: UlvmHost) -> Stage:
    """A stage in which the daemon is killed."""

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        pid = host.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists())
        yield lambda done, total: None

    return stage


def test_a_backup_whose_daemon_was_killed_leaves_no_snapshot(vg: UlvmHost, tmp_path: Path) -> None:
    vg.run("lvremove -f vg/l1 vg/l2 vg/l3")
    heard = Heard()
    session = Session(Host.from_environment(vg.env), heard)
    with closing(session), pytest.raises(UlvmError):
        backup(session, BackupRequest("vg/db", directory=tmp_path), stage=killing(vg))
    assert heard.warned == []
    assert lvs(vg) == ["db"]


@pytest.mark.parametrize("volume", ["db", "new"])
def test_a_restore_whose_daemon_was_killed_takes_all_back(
    vg: UlvmHost, tmp_path: Path, volume: str
) -> None:
    vg.run("lvremove -f vg/l1 vg/l2 vg/l3")
    vg.run(f"backup vg/db --to {tmp_path}")
    heard = Heard()
    session = Session(Host.from_environment(vg.env), heard)
    with closing(session), pytest.raises(UlvmError):
        restore(session, tmp_path, f"vg/{volume}", force=True, stage=killing(vg))
    assert heard.warned == []
    assert vg.run("lvs --noheadings -o lv_name,lv_tags vg").stdout.split() == ["db"]
