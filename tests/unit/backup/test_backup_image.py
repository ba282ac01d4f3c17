"""Images: what is written is the volume, damage is found wherever it is, restore gives it back."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import xxhash

from ulvm.backup import restore
from ulvm.backup.frames import Compressor
from ulvm.backup.image import write_image
from ulvm.backup.manifest import ImageInfo, Manifest, VolumeInfo
from ulvm.backup.reader import Backup
from ulvm.backup.restore import check_device, write_device
from ulvm.backup.verify import verify
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.errors import DeviceError, FormatError, NotFoundError

FRAME = 64 << 10
UUID = "AAAAAA-bbbb-1111-cccc-2222-dddd-333333"
SIZE = 21 * FRAME + 5 * 512


def volume(path: Path, seed: int = 1) -> bytes:
    """A sparse file: holes, zeros that are written, data that compresses and data that does not."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.seek(2 * FRAME + 4096)
        file.write(rng.randbytes(FRAME))
        file.seek(6 * FRAME)
        file.write(bytes(FRAME) + b"abcdefgh" * (FRAME // 4))
        file.seek(SIZE - 512)
        file.write(rng.randbytes(512))
    return path.read_bytes()


def opener(path: Path, *, writable: bool = False) -> Callable[[], BlockDevice]:
    return lambda: FileDevice(path, writable=writable, claim=False)


@pytest.fixture
def backup(tmp_path: Path) -> tuple[Path, bytes]:
    """A complete backup (path of the manifest) and the volume's bytes."""
    raw = volume(tmp_path / "volume")
    image = tmp_path / "b.raw.zst"
    fd = os.open(image, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        summary = write_image(
            opener(tmp_path / "volume"), fd, image.name, threads=2, frame_size=FRAME
        )
    finally:
        os.close(fd)
    manifest = Manifest(
        "ulvm",
        datetime(2024, 5, 1, tzinfo=UTC),
        VolumeInfo("vg", "db", UUID, UUID),
        ImageInfo(image.name, summary.digest, summary.compressed_sha256, summary.index),
        None,
        True,
    )
    path = tmp_path / "b.json"
    path.write_text(manifest.to_json())
    return path, raw


def test_the_file_is_plain_zstd_of_the_volume(backup: tuple[Path, bytes]) -> None:
    path, raw = backup
    done = subprocess.run(
        ["zstd", "-dc", path.with_name("b.raw.zst")], capture_output=True, check=True
    )
    assert done.stdout == raw


def test_the_digests_are_those_of_volume_and_file(backup: tuple[Path, bytes]) -> None:
    assert xxhash.xxh3_128(b"").hexdigest() == "99aa06d3014798d86001c324468d497f"  # XXH3's own
    path, raw = backup
    image = json.loads(path.read_text())["image"]
    assert image["xxh128"] == xxhash.xxh3_128(raw).hexdigest()
    file = path.with_name("b.raw.zst").read_bytes()
    assert image["compressed_sha256"] == hashlib.sha256(file).hexdigest()


def old_manifest(backup: tuple[Path, bytes], digest: str) -> Path:
    """As it was in version 1."""
    path, _ = backup
    document = json.loads(path.read_text())
    document["version"] = 1
    del document["image"]["xxh128"]
    document["image"]["sha256"] = digest
    path.write_text(json.dumps(document))
    return path


def test_a_backup_of_the_first_version(backup: tuple[Path, bytes], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(SIZE))
    with Backup(old_manifest(backup, hashlib.sha256(backup[1]).hexdigest())) as opened:
        verify(opened)
        write_device(opened, opener(target, writable=True))
        check_device(opened, opener(target))
        assert json.loads(opened.manifest.to_json())["version"] == 1
    assert target.read_bytes() == backup[1]


def test_the_digest_of_the_first_version_counts(backup: tuple[Path, bytes], tmp_path: Path) -> None:
    with Backup(old_manifest(backup, "0" * 64)) as opened:
        with pytest.raises(FormatError, match="The sha256 of the volume in"):
            verify(opened)
        with pytest.raises(FormatError, match="reads back with the sha256"):
            check_device(opened, opener(tmp_path / "volume"))


def test_holes_are_not_stored(backup: tuple[Path, bytes]) -> None:
    with Backup(backup[0]) as opened:
        index = opened.manifest.image.index
        assert sum(frame.zero for frame in index) == 17  # of 22: the data touch 2, 3, 7, 8 and 21
        assert index.compressed_size < 4 * FRAME


@pytest.mark.parametrize("name", ["b.json", "b.raw.zst"])
def test_verify_by_either_name(backup: tuple[Path, bytes], name: str) -> None:
    seen: list[tuple[int, int]] = []
    with Backup(backup[0].with_name(name)) as opened:
        verify(opened, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (SIZE, SIZE)


def test_the_manifest_of_another_image_is_none_of_this(backup: tuple[Path, bytes]) -> None:
    """The other is whole, so nothing else would tell."""
    backup[0].with_name("a.json").write_bytes(backup[0].read_bytes())
    named = backup[0].with_name("a.raw.zst")
    named.write_bytes(b"garbage")
    with pytest.raises(FormatError, match=r"b\.raw\.zst, not of .*/a\.raw\.zst"):
        Backup(named)


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("place", ["first", "middle", "zero", "last"])
def test_any_flipped_bit_is_found(backup: tuple[Path, bytes], place: str, bit: int) -> None:
    image = backup[0].with_name("b.raw.zst")
    data = bytearray(image.read_bytes())
    with Backup(backup[0]) as opened:
        index = opened.manifest.image.index
        zero = next(frame for frame in index if frame.zero)
    at = {"first": 5, "middle": len(data) // 2, "zero": zero.offset + 7, "last": len(data) - 1}
    data[at[place]] ^= 1 << bit
    image.write_bytes(data)
    with Backup(backup[0]) as opened, pytest.raises(FormatError, match=r"damaged|SHA-256"):
        verify(opened)


def test_damage_says_where(backup: tuple[Path, bytes]) -> None:
    image = backup[0].with_name("b.raw.zst")
    with Backup(backup[0]) as opened:
        frame = next(frame for frame in opened.manifest.image.index if not frame.zero)
    data = bytearray(image.read_bytes())
    data[frame.offset + frame.length // 2] ^= 0x55
    image.write_bytes(data)
    where = f"bytes {frame.raw_offset} to {frame.raw_offset + frame.raw_length} of the volume"
    with Backup(backup[0]) as opened, pytest.raises(FormatError, match=where):
        verify(opened)


@pytest.mark.parametrize(("change", "says"), [(-1, "cut off"), (1, "too long")])
def test_another_length_is_refused_at_once(
    backup: tuple[Path, bytes], change: int, says: str
) -> None:
    image = backup[0].with_name("b.raw.zst")
    data = image.read_bytes()
    image.write_bytes(data[:change] if change < 0 else data + b"x")
    with pytest.raises(FormatError, match=says):
        Backup(backup[0])


@pytest.mark.parametrize("name", ["b.json", "b.raw.zst"])
def test_a_missing_half_is_refused(backup: tuple[Path, bytes], name: str) -> None:
    backup[0].with_name(name).unlink()
    with pytest.raises(NotFoundError, match=name):
        Backup(backup[0])


def test_restore_overwrites_all_and_reads_back(backup: tuple[Path, bytes], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(os.urandom(SIZE) + b"behind")
    with Backup(backup[0]) as opened:
        write_device(opened, opener(target, writable=True))
        check_device(opened, opener(target))
    assert target.read_bytes() == backup[1] + b"behind"


def test_restore_keeps_holes(backup: tuple[Path, bytes], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    os.truncate(target, SIZE)
    with Backup(backup[0]) as opened:
        write_device(opened, opener(target, writable=True))
    assert target.read_bytes() == backup[1]
    assert target.stat().st_blocks * 512 < SIZE // 2


def test_a_device_that_lies_is_caught(backup: tuple[Path, bytes], tmp_path: Path) -> None:
    target = tmp_path / "target"
    data = bytearray(backup[1])
    data[SIZE // 2] ^= 1
    target.write_bytes(data)
    with Backup(backup[0]) as opened, pytest.raises(FormatError, match="reads back"):
        check_device(opened, opener(target))


def test_restore_of_a_damaged_backup_fails(backup: tuple[Path, bytes], tmp_path: Path) -> None:
    image = backup[0].with_name("b.raw.zst")
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    image.write_bytes(data)
    target = tmp_path / "target"
    target.touch()
    os.truncate(target, SIZE)
    with Backup(backup[0]) as opened, pytest.raises(FormatError):
        write_device(opened, opener(target, writable=True))


def test_a_device_that_cannot_be_read_fails_the_image(tmp_path: Path) -> None:
    class Broken(FileDevice):
        def readinto(self, offset: int, buffer: bytearray | memoryview) -> None:
            if offset + len(buffer) > 3 * FRAME:
                raise DeviceError("input/output error")
            super().readinto(offset, buffer)

    volume(tmp_path / "volume")
    with (tmp_path / "image").open("wb+") as file, pytest.raises(DeviceError, match="input/output"):
        write_image(
            lambda: Broken(tmp_path / "volume", writable=False, claim=False),
            file.fileno(),
            "image",
            frame_size=FRAME,
        )


def test_a_frame_of_other_bytes_fails_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad memory, say: what was compressed is not what was read; it is the last byte of a frame."""
    real = Compressor.frame

    def frame(self: Compressor, raw: memoryview) -> bytes:
        changed = bytearray(raw)
        changed[-1] ^= 1
        return real(self, memoryview(changed))

    monkeypatch.setattr(Compressor, "frame", frame)
    volume(tmp_path / "volume")
    with (
        (tmp_path / "image").open("wb+") as file,
        pytest.raises(DeviceError, match="does not decompress"),
    ):
        write_image(opener(tmp_path / "volume"), file.fileno(), "image", frame_size=FRAME)


class Flushed(FileDevice):
    """Fails at the flush of the number `fails`, of all that there are."""

    count = 0
    fails = 0

    def flush(self) -> None:
        Flushed.count += 1
        if Flushed.count == Flushed.fails:
            raise DeviceError("input/output error")
        super().flush()


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_restore_flushes_as_it_goes(
    backup: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    path, data = backup
    monkeypatch.setattr(restore, "_FLUSH_BYTES", FRAME)
    monkeypatch.setattr(Flushed, "count", 0)
    monkeypatch.setattr(Flushed, "fails", fails)
    target = tmp_path / "target"
    target.write_bytes(bytes(len(data)))
    with Backup(path) as opened:
        if fails:
            with pytest.raises(DeviceError, match="input/output"):
                write_device(opened, lambda: Flushed(str(target), claim=False))
            return
        write_device(opened, lambda: Flushed(str(target), claim=False), threads=2)
    frames = -(-len(data) // FRAME)
    assert frames < Flushed.count <= frames + 2 + 2
    assert target.read_bytes() == data
