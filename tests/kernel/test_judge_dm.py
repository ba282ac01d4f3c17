"""dm-snapshot's format and status against the kernel's, in both directions, in one boot.

Four sets of images, each an origin with exception stores:

    ours     written by our targets, then read, and written on, by the kernel, then read by ours
    theirs   written by the kernel's targets, then read by ours
    merge    written by ours, merged by the kernel
    back     written by the kernel, merged by ours
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.kernel import vm
from tests.unit.dm.lab import SECTOR, Lab

pytestmark = needs.qemu

ORIGIN = 8192
"""Sectors of every origin."""

STORES = {"s8": (8, 4096), "s32": (32, 9000), "full": (16, 144)}
"""Snapshot: chunk size and sectors of its COW device. The last one overflows."""


def tables(origin: str, stores: dict[str, str]) -> dict[str, str]:
    """dm device: its table. The paths are files or drives."""
    found = {"org": f"0 {ORIGIN} snapshot-origin {origin}"}
    for name, path in stores.items():
        found[name] = f"0 {ORIGIN} snapshot {origin} {path} P {STORES[name][0]}"
    return found


def places(seed: int) -> list[tuple[str, int, int]]:
    """(device, sector, sectors) of writes. They leave room in all stores but `full`."""
    dice = random.Random(seed)
    found = []
    for _ in range(25):
        name = dice.choice(["org", "org", "s8", "s32"])
        found.append((name, dice.randrange(ORIGIN - 64), dice.randrange(1, 64)))
    return found


class Images:
    """An origin full of noise and empty stores, as files."""

    def __init__(self, folder: Path, stores: list[str], seed: int) -> None:
        folder.mkdir()
        self.lab = Lab(folder)
        self.origin = self.lab.file("origin", ORIGIN)
        Path(self.origin).write_bytes(random.Random(seed).randbytes(ORIGIN * SECTOR))
        self.stores = {name: self.lab.file(name, STORES[name][1]) for name in stores}

    @property
    def drives(self) -> list[Path]:
        return [Path(self.origin), *map(Path, self.stores.values())]

    def open(self) -> None:
        for name, table in tables(self.origin, self.stores).items():
            self.lab.device(name, table)

    def write(self, seed: int) -> None:
        dice = random.Random(seed)
        for name, sector, sectors in places(seed):
            if name in ("org", *self.stores):
                data = dice.randbytes(sectors * SECTOR)
                self.lab.dm.mapped(name).write(sector * SECTOR, data)

    def close(self) -> None:
        for name in (*self.stores, "org"):
            self.lab.dm.remove(name)

    def digest(self, name: str) -> str:
        return hashlib.sha256(self.lab.read(name, 0, ORIGIN)).hexdigest()

    def seen(self) -> dict[str, str]:
        """Of each device: status and content."""
        found = {f"status {name}": self.lab.status(name) for name in self.stores}
        for name in ("org", *self.stores):
            if name != "full":
                found[f"sha256 {name}"] = self.digest(name)
        return found


class Script:
    """Commands for the machine, and the drives they work on."""

    def __init__(self) -> None:
        self.commands: dict[str, str] = {}
        self.drives: list[Path] = []

    def attach(self, images: Images) -> tuple[str, dict[str, str]]:
        names = [f"/dev/vd{chr(ord('a') + len(self.drives) + n)}" for n in range(9)]
        self.drives += images.drives
        return names[0], dict(zip(images.stores, names[1:], strict=False))

    def open(self, key: str, origin: str, stores: dict[str, str]) -> None:
        for name, table in tables(origin, stores).items():
            self.commands[f"{key} create {name}"] = f"echo '{table}' | dmsetup create {name}"

    def write(self, key: str, seed: int, present: tuple[str, ...]) -> None:
        for number, (name, sector, sectors) in enumerate(places(seed)):
            if name in present:
                self.commands[f"{key} write {number}"] = (
                    f"dd if=/dev/urandom of=/dev/mapper/{name} bs=512 seek={sector}"
                    f" count={sectors} conv=notrunc,fsync"
                )

    def look(self, key: str, stores: dict[str, str]) -> None:
        for name in stores:
            self.commands[f"{key} status {name}"] = f"dmsetup status {name}"
        for name in ("org", *stores):
            if name != "full":
                self.commands[f"{key} sha256 {name}"] = f"sha256sum </dev/mapper/{name}"

    def close(self, key: str, stores: dict[str, str]) -> None:
        for name in (*stores, "org"):
            self.commands[f"{key} remove {name}"] = f"dmsetup remove {name}"


class Judged:
    """What came of it all."""

    def __init__(self, folder: Path) -> None:
        self.ours = Images(folder / "ours", ["s8", "s32", "full"], 1)
        self.theirs = Images(folder / "theirs", ["s8", "s32", "full"], 2)
        self.merge = Images(folder / "merge", ["s8"], 3)
        self.back = Images(folder / "back", ["s32"], 4)
        self.before = {}
        for key, images in (("ours", self.ours), ("merge", self.merge)):
            images.open()
            images.write(10)
            self.before[key] = images.seen()
            images.close()

        script = Script()
        origin, stores = script.attach(self.ours)
        script.open("ours", origin, stores)
        script.look("ours", stores)
        script.write("ours", 11, ("org", *stores))
        script.look("ours again", stores)
        script.close("ours", stores)

        origin, stores = script.attach(self.theirs)
        script.open("theirs", origin, stores)
        script.write("theirs", 12, ("org", *stores))
        script.look("theirs", stores)
        script.close("theirs", stores)

        origin, stores = script.attach(self.merge)
        table = f"0 {ORIGIN} snapshot-merge {origin} {stores['s8']} P 8"
        script.commands["merge create"] = f"echo '{table}' | dmsetup create org"
        script.commands["merge wait"] = (
            "for i in $(seq 100); do set -- $(dmsetup status org);"
            ' [ "${4%/*}" = "$5" ] && break; sleep 0.1; done; echo $4 $5'
        )
        script.commands["merge sha256"] = "sha256sum </dev/mapper/org"
        script.commands["merge remove"] = "dmsetup remove org"

        origin, stores = script.attach(self.back)
        script.open("back", origin, stores)
        script.write("back", 13, ("org", *stores))
        script.look("back", stores)
        script.close("back", stores)

        self.outcomes = vm.run(script.commands, script.drives)

    def seen(self, key: str) -> dict[str, str]:
        """As `Images.seen`, by the kernel."""
        found = {}
        for name, outcome in self.outcomes.items():
            kind = name.removeprefix(f"{key} ")
            if kind.startswith("status ") and name == f"{key} {kind}":
                found[kind] = " ".join(outcome.stdout.split()[3:])
            elif kind.startswith("sha256 ") and name == f"{key} {kind}":
                found[kind] = outcome.stdout.split()[0]
        return found


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return Judged(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def opened(request: pytest.FixtureRequest, judged: Judged) -> Iterator[Images]:
    images: Images = getattr(judged, request.param)
    images.open()
    yield images
    images.close()


def test_the_kernel_took_every_command(judged: Judged) -> None:
    failed = [outcome for outcome in judged.outcomes.values() if outcome.rc]
    assert not failed


def test_the_kernel_sees_what_we_saw(judged: Judged) -> None:
    assert judged.seen("ours") == judged.before["ours"]
    assert judged.before["ours"]["status full"] == "Invalid"
    used = [judged.before["ours"][f"status {name}"].split("/")[0] for name in ("s8", "s32")]
    assert all(int(sectors) > 500 for sectors in used)


@pytest.mark.parametrize("opened", ["ours"], indirect=True)
def test_we_see_what_the_kernel_wrote_on_our_stores(judged: Judged, opened: Images) -> None:
    assert opened.seen() == judged.seen("ours again")
    assert judged.seen("ours again") != judged.seen("ours")


@pytest.mark.parametrize("opened", ["theirs"], indirect=True)
def test_we_see_what_the_kernel_wrote(judged: Judged, opened: Images) -> None:
    assert opened.seen() == judged.seen("theirs")
    assert judged.seen("theirs")["status full"] == "Invalid"


def test_the_kernel_merges_our_store(judged: Judged) -> None:
    assert judged.outcomes["merge wait"].stdout == "16/4096 16\n"
    digest = judged.outcomes["merge sha256"].stdout.split()[0]
    assert digest == judged.before["merge"]["sha256 s8"]
    assert digest != judged.before["merge"]["sha256 org"]


def test_we_merge_the_kernels_store(judged: Judged) -> None:
    images = judged.back
    table = f"0 {ORIGIN} snapshot-merge {images.origin} {images.stores['s32']} P 32"
    images.lab.device("org", table)
    deadline = time.monotonic() + 30
    while images.lab.status("org") != "64/9000 64" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert images.lab.status("org") == "64/9000 64"
    assert images.digest("org") == judged.seen("back")["sha256 s32"]
    images.lab.dm.remove("org")
