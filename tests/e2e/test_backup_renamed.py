"""Volumes that are renamed while a backup or a restore has them in hand."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import xxhash

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.test_backup_interrupts import Heard
from ulvm.backup import in_hand
from ulvm.backup.job import BackupRequest, backup
from ulvm.backup.leftovers import TAG
from ulvm.backup.pipeline import Progress, Stage
from ulvm.backup.restoring import restore
from ulvm.errors import DeviceError
from ulvm.lvm.session import Session
from ulvm.vgstore.host import Host

pytestmark = needs.fuse

MIB = 1 << 20


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    """A host with vg/db and vg/two of 8 MiB, both with data, and a backup of the first in b."""
    host.run(f"pvcreate {host.image('pv', '64M')}")
    host.run("vgcreate vg pv")
    for name in ("db", "two"):
        host.run(f"lvcreate -n {name} -L 8M vg")
        with host.path(f"vg/{name}").open("r+b", buffering=0) as file:
            file.write(random.Random(name).randbytes(8 * MIB))
    (host.base / "b").mkdir()
    host.run("backup vg/db --to b")
    return host


def session(host: UlvmHost) -> Session:
    return Session(Host.from_environment(host.env), Heard())


def volumes(host: UlvmHost) -> dict[str, str]:
    """Tags by name."""
    lines = host.run("lvs --noheadings --separator : -o lv_name,lv_tags vg").stdout.split()
    return dict(line.split(":") for line in lines)


def at(name: str, host: UlvmHost, *commands: str) -> Stage:
    """A stage at whose beginning commands are run."""

    @contextmanager
    def stage(begun: str) -> Iterator[Progress]:
        if begun == name:
            for command in commands:
                host.run(command)
        yield lambda done, total: None

    return stage


def test_a_restore_writes_to_no_other_volume_that_got_the_name(vg: UlvmHost) -> None:
    two = vg.path("vg/two").read_bytes()
    raw = vg.path("vg/db").read_bytes()
    with vg.path("vg/db").open("r+b", buffering=0) as file:
        file.write(bytes(8 * MIB))
    stage = at("Restoring", vg, "lvrename vg db old", "lvrename vg two db")
    with closing(session(vg)) as found:
        restore(found, vg.base / "b", "vg/db", force=True, stage=stage)
    assert vg.path("vg/db").read_bytes() == two
    assert vg.path("vg/old").read_bytes() == raw
    assert volumes(vg) == {"old": "", "db": ""}


def test_a_restore_reads_back_what_it_wrote_whatever_its_name(vg: UlvmHost) -> None:
    stage = at("Reading back", vg, "lvrename vg new old", "lvrename vg two new")
    with closing(session(vg)) as found:
        restore(found, vg.base / "b", "vg/new", stage=stage)
    assert vg.path("vg/old").read_bytes() == vg.path("vg/db").read_bytes()
    assert volumes(vg) == {"db": "", "old": "", "new": ""}


def test_a_restore_that_fails_takes_its_volume_back_whatever_its_name(vg: UlvmHost) -> None:
    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        vg.run("lvrename vg new other")
        raise DeviceError("no")
        yield

    with closing(session(vg)) as found, pytest.raises(DeviceError, match="no"):
        restore(found, vg.base / "b", "vg/new", stage=stage)
    assert volumes(vg) == {"db": "", "two": ""}


@pytest.mark.parametrize("volume", ["db", "new"])
@pytest.mark.parametrize("when", ["Restoring", "Reading back"])
def test_a_restore_goes_on_whatever_the_name_of_the_group(
    vg: UlvmHost, volume: str, when: str
) -> None:
    raw = vg.path("vg/db").read_bytes()
    stage = at(when, vg, "vgrename vg other", f"vgcreate vg {vg.image('new', '32M')}")
    with closing(session(vg)) as found:
        restore(found, vg.base / "b", f"vg/{volume}", force=True, stage=stage)
    assert vg.path(f"other/{volume}").read_bytes() == raw
    assert vg.run("lvs --noheadings -o lv_tags other").stdout.split() == []


def test_a_restore_that_fails_takes_its_volume_back_whatever_the_name_of_the_group(
    vg: UlvmHost,
) -> None:
    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        vg.run("vgrename vg other")
        raise DeviceError("no")
        yield

    with closing(session(vg)) as found, pytest.raises(DeviceError, match="no"):
        restore(found, vg.base / "b", "vg/new", stage=stage)
    assert vg.run("lvs --noheadings -o lv_name other").stdout.split() == ["db", "two"]


@pytest.mark.parametrize("volume", ["db", "new"])
def test_a_renamed_volume_is_in_hand_of_one_restore(vg: UlvmHost, volume: str) -> None:
    """The second comes when the first has no connection open, between writing and reading back."""
    refused: list[str] = []

    @contextmanager
    def stage(name: str) -> Iterator[Progress]:
        if name == "Reading back":
            vg.run(f"lvrename vg {volume} other")
            refused.append(vg.run("restore b vg/other --force", rc=5).stderr)
            refused.append(vg.run(f"restore b vg/{volume} --force", rc=5).stderr)
        yield lambda done, total: None

    with closing(session(vg)) as found:
        restore(found, vg.base / "b", f"vg/{volume}", force=True, stage=stage)
    assert refused == [
        "  Another command is restoring to vg/other: wait for its end.\n",
        f"  Another command is restoring to vg/{volume}: wait for its end.\n",
    ]
    assert volumes(vg)["other"] == ""
    locks = {path.name[:2] for path in (vg.run_dir / "lock").iterdir()}
    assert locks == {"P_", "V_"}


def test_a_volume_in_hand_is_refused_before_the_backup_is_looked_for(
    vg: UlvmHost, tmp_path: Path
) -> None:
    refused: list[str] = []

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        refused.append(vg.run(f"restore {tmp_path}/nothing vg/db --force", rc=5).stderr)
        yield lambda done, total: None

    with closing(session(vg)) as found:
        restore(found, vg.base / "b", "vg/db", force=True, stage=stage)
    assert refused == ["  Another command is restoring to vg/db: wait for its end.\n"] * 2


# -- backups ------------------------------------------------------------------------------------


def words(host: UlvmHost, *commands: str) -> str:
    """The commands for a shell."""
    return " && ".join(shlex.join(host.argv(command)) for command in commands)


def test_a_backup_is_of_the_volume_that_had_the_name(vg: UlvmHost, tmp_path: Path) -> None:
    """A quiesce command may take minutes."""
    uuid = vg.run("lvs --noheadings -o lv_uuid vg/db").stdout.strip()
    raw = vg.path("vg/db").read_bytes()
    renamed = words(vg, "lvrename vg db old", "lvrename vg two db")
    vg.run(f"backup vg/db --to {tmp_path} --quiesce {shlex.quote(renamed)}")
    (manifest,) = tmp_path.glob("*.json")
    found = json.loads(manifest.read_bytes())
    assert found["volume"]["lv"] == "old"
    assert found["volume"]["lv_uuid"] == uuid
    assert found["image"]["xxh128"] == xxhash.xxh3_128(raw).hexdigest()


def test_a_backup_goes_on_whatever_the_name_of_the_group(vg: UlvmHost, tmp_path: Path) -> None:
    """Another may have got its name."""
    raw = vg.path("vg/db").read_bytes()
    vg.image("new", "32M")
    renamed = words(vg, "vgrename vg other", f"vgcreate vg {vg.base}/new")
    vg.run(f"backup vg/db --to {tmp_path} --quiesce {shlex.quote(renamed)}")
    (manifest,) = tmp_path.glob("*.json")
    found = json.loads(manifest.read_bytes())
    assert found["volume"]["vg"] == "other"
    assert found["image"]["xxh128"] == xxhash.xxh3_128(raw).hexdigest()
    assert vg.run("lvs --noheadings -o lv_name other").stdout.split() == ["db", "two"]


def test_what_was_inactive_becomes_so_again_whatever_the_name_of_the_group(
    vg: UlvmHost, tmp_path: Path
) -> None:
    vg.run("lvchange -an vg/db")
    with closing(session(vg)) as found:
        stage = at("Copying", vg, "vgrename vg other")
        backup(found, BackupRequest("vg/db", directory=tmp_path), stage=stage)
    assert vg.run("lvs --noheadings -o lv_active other/db").stdout.split() == []


def test_what_is_copied_is_the_snapshot_whoever_got_its_name(vg: UlvmHost, tmp_path: Path) -> None:
    raw = vg.path("vg/db").read_bytes()

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        (name,) = volumes(vg).keys() - {"db", "two"}
        vg.run(f"lvrename vg {name} mine")
        vg.run(f"lvrename vg two {name}")
        yield lambda done, total: None

    with closing(session(vg)) as found:
        manifest = backup(found, BackupRequest("vg/db", directory=tmp_path), stage=stage)
    assert manifest is not None
    found_digest = json.loads(manifest.read_bytes())["image"]["xxh128"]
    assert found_digest == xxhash.xxh3_128(raw).hexdigest()


def test_what_is_left_behind_is_told_by_the_names_that_it_has(
    vg: UlvmHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_hand, "_RELEASE_SECONDS", 0)

    with closing(session(vg)) as found, ExitStack() as stack:

        @contextmanager
        def stage(_name: str) -> Iterator[Progress]:
            (name,) = volumes(vg).keys() - {"db", "two"}
            vg.run("vgrename vg other")
            stack.enter_context(vg.path(f"other/{name}").open("rb"))
            yield lambda done, total: None

        backup(found, BackupRequest("vg/db", directory=tmp_path), stage=stage)
        assert isinstance(found.messages, Heard)
        (warned,) = found.messages.warned
    assert '"ulvm backup --clean other" removes it.' in warned


@pytest.mark.parametrize("group", ["vg", "other"])
def test_a_snapshot_is_removed_whatever_its_name(vg: UlvmHost, tmp_path: Path, group: str) -> None:
    """Nobody says that it is left, nor that nothing is."""

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        (name,) = volumes(vg).keys() - {"db", "two"}
        vg.run(f"lvrename vg {name} mine")
        if group != "vg":
            vg.run(f"vgrename vg {group}")
        yield lambda done, total: None

    request = BackupRequest("vg/db", directory=tmp_path)
    with closing(session(vg)) as found:
        backup(found, request, stage=stage)
        assert isinstance(found.messages, Heard)
        assert found.messages.warned == []
    assert vg.run(f"lvs --noheadings -o lv_name {group}").stdout.split() == ["db", "two"]


@pytest.mark.parametrize("renamed", ["lvrename vg {} mine", "vgrename vg other"])
def test_a_snapshot_in_use_is_not_left_behind_whatever_its_name(
    vg: UlvmHost, renamed: str, tmp_path: Path
) -> None:
    """Neither for `--clean` nor for another backup."""
    said: list[str] = []

    @contextmanager
    def stage(_name: str) -> Iterator[Progress]:
        (name,) = volumes(vg).keys() - {"db", "two"}
        vg.run(renamed.format(name))
        group = "other" if "vgrename" in renamed else "vg"
        said.append(vg.run("backup --clean -y").stdout)
        said.append(vg.run(f"backup {group}/two --to {tmp_path} -y").stderr)
        said.append(vg.run(f"lvs --noheadings -o lv_tags {group}").stdout.strip())
        yield lambda done, total: None

    with closing(session(vg)) as found:
        backup(found, BackupRequest("vg/db", directory=tmp_path), stage=stage)
    assert said == ["  Nothing was left behind.\n", "", TAG]
    assert {path.name[:2] for path in (vg.run_dir / "lock").iterdir()} == {"P_", "V_"}
