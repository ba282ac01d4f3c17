"""`ulvm verify` and `ulvm restore` as whole programs over backups that somebody else made.

Each runs with little memory and time. It ends with an exit code that is documented and a sentence;
what it refuses changes no volume and leaves none behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import effort
from tests.e2e.host import Result, UlvmHost
from tests.fuzz.mutate import mutate, mutate_values

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

MEMORY = 640 << 20
"""Bytes of address space; the programs and their libraries take half of it."""
SECONDS = 60
SIZE = 4 << 20
DATA = slice(1 << 20, (1 << 20) + SIZE)
"""Where the only volume lies on its disk."""


class Vault:
    """A host with a volume, and a good backup of it. Cases are folders of their own."""

    def __init__(self, base: Path) -> None:
        self.host = UlvmHost(base)
        self.disk = self.host.image("disk", "32M")
        self.host.run("vgcreate vg disk")
        self.host.run(f"lvcreate -y -an -n db -L {SIZE}b vg")
        with self.disk.open("r+b") as file:
            file.seek(DATA.start)
            file.write(b"what the volume holds" * 20_000)
        folder = base / "good"
        folder.mkdir()
        self.host.run("lvchange -ay vg/db")
        self.host.run(f"backup vg/db --to {folder}")
        (manifest,) = folder.glob("*.json")
        self.manifest = json.loads(manifest.read_text())
        self.image = folder.joinpath(self.manifest["image"]["file"]).read_bytes()
        self.content = self.volume()
        self.lvs = self.host.run("lvs -a --noheadings vg").stdout
        self.cases = 0

    def volume(self) -> bytes:
        return self.disk.read_bytes()[DATA]

    def case(self) -> Path:
        self.cases += 1
        folder = self.host.base / f"case{self.cases}"
        folder.mkdir()
        return folder

    def put(self, manifest: Any, image: bytes) -> Path:
        """A backup of this content; the path of its manifest."""
        path = self.case() / "b.json"
        path.write_text(json.dumps(manifest))
        path.with_name(self.manifest["image"]["file"]).write_bytes(image)
        return path

    def framed(self, frames: list[bytes], size: int, frame_size: int = 65536) -> Path:
        """A backup whose manifest fits the frames, whatever these hold."""
        image = b"".join(frames)
        return self.put(
            changed(
                self.manifest,
                size=size,
                frame_size=frame_size,
                frames=[len(frame) for frame in frames],
                compressed_size=len(image),
                compressed_sha256=hashlib.sha256(image).hexdigest(),
            ),
            image,
        )

    def attempt(self, command: str) -> Result:
        """The program in little memory; never a traceback, and an exit code that is documented."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

        done = subprocess.run(
            self.host.argv(command),
            cwd=self.host.base,
            # A library's threads would take address space for their stacks.
            env={**self.host.env, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            preexec_fn=limit,
            timeout=SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, (command, done.stderr)
        assert done.returncode in (0, 2, 3, 5), (command, done)
        assert bool(done.returncode) == bool(done.stderr.strip()), (command, done)
        effort.tally("programs over hostile backups")
        return Result(done.stdout, done.stderr, done.returncode)

    def refused(self, path: Path) -> None:
        """Neither whole nor restored; nothing is changed, nothing is left."""
        assert self.attempt(f"verify {path}").rc == 5
        assert self.attempt(f"restore {path} vg/new").rc == 5
        self.unchanged()

    def unchanged(self) -> None:
        assert self.volume() == self.content, "the volume was written to"
        assert self.host.run("lvs -a --noheadings vg").stdout == self.lvs


@pytest.fixture(scope="module")
def vault(short_base: Path) -> Iterator[Vault]:
    base = Path(tempfile.mkdtemp(dir=short_base))
    vault = Vault(base)
    yield vault
    vault.host.close()
    shutil.rmtree(base)


def changed(manifest: Any, **image: Any) -> Any:
    return {**manifest, "image": {**manifest["image"], **image}}


def bomb(claimed: int, blocks: int) -> bytes:
    """A zstd frame (RFC 8878) that claims `claimed` bytes and holds `blocks` times 128 KiB."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0b11 << 6, 0x50]) + struct.pack("<Q", claimed)
    size = 128 << 10
    block = (size << 3 | 1 << 1).to_bytes(3, "little") + b"x"
    last = (size << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"x"
    return header + block * (blocks - 1) + last


def test_the_good_one(vault: Vault) -> None:
    """What is refused below is refused for what was done to it."""
    path = vault.put(vault.manifest, vault.image)
    assert vault.attempt(f"verify {path}").rc == 0
    assert vault.attempt(f"restore {path} vg/db").rc == 5, "without --force"
    assert vault.attempt(f"restore {path} vg/copy").rc == 0
    assert vault.attempt(f"restore --force {path} vg/db").rc == 0
    vault.host.run("lvremove -f vg/copy")
    vault.unchanged()


BAD_MANIFESTS: dict[str, Callable[[Any], Any]] = {
    "a name outside": lambda m: changed(m, file="../b.raw.zst"),
    "a great size": lambda m: changed(m, size=1 << 60, frames=[{"zero": 1 << 44, "length": 1}]),
    "a size beyond all": lambda m: changed(m, size=1 << 64),
    "frames of frames": lambda m: changed(m, frames=[[[]]]),
}


@pytest.mark.parametrize("what", BAD_MANIFESTS)
def test_manifests(vault: Vault, what: str) -> None:
    path = vault.put(BAD_MANIFESTS[what](vault.manifest), vault.image)
    assert vault.attempt(f"verify {path}").rc == 5
    assert vault.attempt(f"restore --force {path} vg/db").rc == 5
    vault.unchanged()


def test_a_manifest_that_takes_all_memory(vault: Vault) -> None:
    path = vault.put(vault.manifest, vault.image)
    text = json.dumps(changed(vault.manifest, frames=["FRAMES"]))
    path.write_text(text.replace('"FRAMES"', "[{}]," * 8_000_000 + "1"))
    assert vault.attempt(f"verify {path}").rc == 5
    vault.unchanged()


def test_a_volume_larger_than_all(vault: Vault) -> None:
    """A file of holes and a manifest that agree on 2^60 bytes."""
    path = vault.put(vault.manifest, b"")
    frames = (1 << 60) // (64 << 20)
    image = path.with_name(vault.manifest["image"]["file"])
    os.truncate(image, frames)
    manifest = changed(
        vault.manifest,
        size=1 << 60,
        frame_size=64 << 20,
        compressed_size=frames,
        frames=[{"zero": frames, "length": 1}],
    )
    path.write_text(json.dumps(manifest))
    vault.refused(path)


@pytest.mark.parametrize("claimed", [65536, 1 << 60])
def test_frames_that_hold_more_than_they_say(vault: Vault, claimed: int) -> None:
    """64 GiB in 2 MiB."""
    vault.refused(vault.framed([bomb(claimed, 1 << 19)], 65536))


def test_an_image_that_is_no_file(vault: Vault) -> None:
    path = vault.put(vault.manifest, vault.image)
    image = path.with_name(vault.manifest["image"]["file"])
    image.unlink()
    os.mkfifo(image)
    vault.refused(path)
    image.unlink()
    image.symlink_to("/dev/zero")
    vault.refused(path)


@pytest.mark.parametrize("part", [0.5, 0.99])
def test_an_image_damaged_in_the_midst(vault: Vault, part: float) -> None:
    """By force over a volume: it is left with the tag that says that it is not whole, or untouched
    and without it."""
    at = int(len(vault.image) * part)
    image = vault.image[:at] + b"\0\0\0\0" + vault.image[at + 4 :]
    path = vault.put(vault.manifest, image)
    vault.refused(path)
    assert vault.attempt(f"restore --force {path} vg/db").rc == 5
    if "ulvm_restoring" in vault.host.run("lvs --noheadings -o lv_tags vg/db").stdout:
        good = vault.put(vault.manifest, vault.image)
        assert vault.attempt(f"restore {good} vg/db").rc == 0
    vault.unchanged()


def test_mutations(vault: Vault) -> None:
    """At random: of the manifest, of the image, of both. What is taken for whole is whole."""
    choose = effort.rng("backup programs")
    text = json.dumps(vault.manifest, indent=2).encode()
    for number in range(effort.amount(3, 60)):
        manifest, image = text, vault.image
        if choose.random() < 0.6:
            manifest = (mutate_values if choose.random() < 0.7 else mutate)(choose, text)
        if choose.random() < 0.5:
            image = mutate(choose, image)
        path = vault.put({}, image)
        path.write_bytes(manifest)
        try:
            if vault.attempt(f"verify {path}").rc == 0:
                assert image == vault.image, "damage was not found"
            if vault.attempt(f"restore {path} vg/new{number}").rc == 0:
                vault.host.run(f"lvremove -f vg/new{number}")
            vault.unchanged()
        except BaseException as error:
            raise AssertionError(
                f"ULVM_SEED={effort.SEED} backup {number}: {error!r}: {manifest[:3000]!r}"
            ) from error
