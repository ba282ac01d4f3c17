"""The manifest beside a backup image: a small JSON file that says what the image is.

    {
      "format": "ulvm-backup", "version": 2, "tool": "ulvm 0.1.0",
      "time": "2024-05-01T12:00:00Z",               the instant the snapshot was taken, UTC
      "volume": {"vg": "vg0", "lv": "db", "vg_uuid": "...", "lv_uuid": "..."},
      "image": {
        "file": "vg0-db-20240501T120000Z.raw.zst",  beside the manifest
        "size": 1073741824, "xxh128": "...",        the raw volume
        "compressed_size": 1234, "compressed_sha256": "...",
        "frame_size": 4194304,
        "frames": [91023, 90211, {"zero": 200, "length": 151}, ...]
      },
      "snapshot": {"cow_size": 161061273, "cow_peak": 81920, "writers_waited_ms": 12.5,
                   "quiesced": false, "frozen": ["/mnt"], "synced": []},
      "verified": true
    }

`frozen` and `synced` are where the volume's file systems were mounted: those that stood still for
the snapshot, and those that could not be frozen and were only synced before it. Both are missing
in manifests of programs that did not tell them apart. Version 1 has the volume's "sha256" instead
of its "xxh128" (`ulvm.backup.digest`).

`frames` lists the frames in order: a number is one frame of that many compressed bytes; an
object is a run of frames of zeros, each `length` bytes. Offsets are the running sum. Sizes are
bytes. A manifest may come from anywhere, so all of it is checked in `parse_manifest`, and what
comes out can be trusted except for what only the image can show.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ulvm.backup.digest import OLD_DIGEST, VOLUME_DIGEST, Digest
from ulvm.backup.frames import MAX_FRAME_SIZE, MIN_FRAME_SIZE, FrameIndex, FrameRun
from ulvm.errors import FormatError

__all__ = [
    "FORMAT",
    "IMAGE_SUFFIX",
    "MANIFEST_SUFFIX",
    "MAX_MANIFEST_SIZE",
    "VERSION",
    "ImageInfo",
    "Manifest",
    "SnapshotInfo",
    "VolumeInfo",
    "parse_manifest",
]

FORMAT = "ulvm-backup"
VERSION = 2
IMAGE_SUFFIX = ".raw.zst"
MANIFEST_SUFFIX = ".json"
MAX_MANIFEST_SIZE = 256 << 20
"""Bytes; the index of 100 TiB of incompressible data fits."""

_MAX_SIZE = 1 << 63
_MAX_COMPRESSED_FRAME = MAX_FRAME_SIZE + (MAX_FRAME_SIZE >> 7) + 1024
_NAME = re.compile(r"[A-Za-z0-9+_.-]{1,127}\Z")
_FILE = re.compile(r"[A-Za-z0-9+_.-]{1,255}\Z")
_UUID = re.compile(r"[A-Za-z0-9]{6}(-[A-Za-z0-9]{4}){5}-[A-Za-z0-9]{6}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_DIGESTS = {1: (OLD_DIGEST, _SHA256), VERSION: (VOLUME_DIGEST, re.compile(r"[0-9a-f]{32}\Z"))}
"""Of a volume, by the manifest's version."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class VolumeInfo(NamedTuple):
    """The volume that was backed up; UUIDs as LVM writes them."""

    vg: str
    lv: str
    vg_uuid: str
    lv_uuid: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The image file; the raw and compressed sizes are the index's."""

    file: str
    digest: Digest
    compressed_sha256: str
    index: FrameIndex

    @property
    def size(self) -> int:
        """Bytes of the volume."""
        return self.index.raw_size

    @property
    def compressed_size(self) -> int:
        """Bytes of the file."""
        return self.index.compressed_size


class SnapshotInfo(NamedTuple):
    """How the backup was taken; sizes in bytes."""

    cow_size: int
    cow_peak: int
    writers_waited_ms: float
    quiesced: bool
    frozen: tuple[str, ...] = ()
    """Mount points of the file systems that stood still for the snapshot."""
    synced: tuple[str, ...] = ()
    """Of those that could not be frozen, only synced."""


class Manifest(NamedTuple):
    """A whole manifest."""

    tool: str
    time: datetime
    volume: VolumeInfo
    image: ImageInfo
    snapshot: SnapshotInfo | None
    verified: bool

    def to_json(self) -> str:
        """The file's text. The frames stand on one line, all else on lines of its own."""
        index = self.image.index
        (version,) = (v for v, (kind, _) in _DIGESTS.items() if kind == self.image.digest.kind)
        document: dict[str, Any] = {
            "format": FORMAT,
            "version": version,
            "tool": self.tool,
            "time": self.time.astimezone(UTC).strftime(_TIME),
            "volume": {
                "vg": self.volume.vg,
                "lv": self.volume.lv,
                "vg_uuid": self.volume.vg_uuid,
                "lv_uuid": self.volume.lv_uuid,
            },
            "image": {
                "file": self.image.file,
                "size": self.image.size,
                self.image.digest.kind: self.image.digest.value,
                "compressed_size": self.image.compressed_size,
                "compressed_sha256": self.image.compressed_sha256,
                "frame_size": index.frame_size,
                "frames": [],
            },
        }
        if self.snapshot is not None:
            document["snapshot"] = {
                "cow_size": self.snapshot.cow_size,
                "cow_peak": self.snapshot.cow_peak,
                "writers_waited_ms": round(self.snapshot.writers_waited_ms, 3),
                "quiesced": self.snapshot.quiesced,
                "frozen": list(self.snapshot.frozen),
                "synced": list(self.snapshot.synced),
            }
        document["verified"] = self.verified
        frames = json.dumps(
            [
                {"zero": run.count, "length": run.length} if run.zero else run.length
                for run in index.runs
            ]
        )
        text = json.dumps(document, indent=2)
        return text.replace('"frames": []', f'"frames": {frames}', 1) + "\n"


def parse_manifest(text: str | bytes) -> Manifest:
    """The manifest, wholly checked; FormatError with what is wrong."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the manifest is not JSON ({error})") from None
    top = _Object(document, "")
    if top.text("format") != FORMAT:
        raise FormatError(f"this is not a manifest of a backup: format is {top.text('format')!r}")
    version = top.number("version", 1, _MAX_SIZE)
    if version not in _DIGESTS:
        raise FormatError(f"the manifest has version {version}, this program knows 1 to {VERSION}")
    return Manifest(
        tool=top.text("tool"),
        time=_time(top.text("time")),
        volume=_volume(top.object("volume")),
        image=_image(top.object("image"), *_DIGESTS[version]),
        snapshot=_snapshot(top.object("snapshot")) if top.has("snapshot") else None,
        verified=top.flag("verified"),
    )


def _volume(item: _Object) -> VolumeInfo:
    return VolumeInfo(
        vg=item.matching("vg", _NAME),
        lv=item.matching("lv", _NAME),
        vg_uuid=item.matching("vg_uuid", _UUID),
        lv_uuid=item.matching("lv_uuid", _UUID),
    )


def _snapshot(item: _Object) -> SnapshotInfo:
    return SnapshotInfo(
        cow_size=item.number("cow_size", 0, _MAX_SIZE),
        cow_peak=item.number("cow_peak", 0, _MAX_SIZE),
        writers_waited_ms=item.real("writers_waited_ms"),
        quiesced=item.flag("quiesced"),
        frozen=item.texts("frozen") if item.has("frozen") else (),
        synced=item.texts("synced") if item.has("synced") else (),
    )


def _image(item: _Object, kind: str, digest: re.Pattern[str]) -> ImageInfo:
    name = item.matching("file", _FILE)
    if name.startswith(".") or not name.endswith(IMAGE_SUFFIX):
        raise FormatError(f"the manifest names {name!r}, which is not an image beside it")
    size = item.number("size", 512, _MAX_SIZE)
    if size % 512:
        raise FormatError(f"the manifest says {size} bytes, which is not whole sectors")
    frame_size = item.number("frame_size", MIN_FRAME_SIZE, MAX_FRAME_SIZE)
    if frame_size & (frame_size - 1):
        raise FormatError(f"the manifest's frame_size {frame_size} is not a power of two")
    index = FrameIndex(size, frame_size, _runs(item.items("frames")))
    claimed = item.number("compressed_size", 0, _MAX_SIZE)
    if claimed != index.compressed_size:
        raise FormatError(
            f"the manifest says {claimed} compressed bytes, its frames make {index.compressed_size}"
        )
    return ImageInfo(
        name,
        Digest(kind, item.matching(kind, digest)),
        item.matching("compressed_sha256", _SHA256),
        index,
    )


def _runs(frames: list[Any]) -> list[FrameRun]:
    runs: list[FrameRun] = []
    for number, entry in enumerate(frames):
        if isinstance(entry, dict):
            run = _Object(entry, f"image.frames[{number}]")
            runs.append(
                FrameRun(
                    run.number("zero", 1, _MAX_SIZE),
                    run.number("length", 1, _MAX_COMPRESSED_FRAME),
                    True,
                )
            )
        elif type(entry) is int and 0 < entry <= _MAX_COMPRESSED_FRAME:
            runs.append(FrameRun(1, entry, False))
        else:
            raise FormatError(f"the manifest's image.frames[{number}] is {str(entry)[:40]!r}")
    return runs


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise FormatError(f"the manifest's time is {text[:40]!r}") from None


class _Object:
    """A JSON object whose members are fetched by type; `path` is for messages."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"the manifest's {path or 'text'} is not an object")
        self._value: dict[str, Any] = value
        self._path = path

    def _where(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _get(self, key: str) -> Any:
        if key not in self._value:
            raise FormatError(f"the manifest has no {self._where(key)}")
        return self._value[key]

    def _wrong(self, key: str) -> FormatError:
        return FormatError(f"the manifest's {self._where(key)} is {str(self._get(key))[:40]!r}")

    def has(self, key: str) -> bool:
        return key in self._value

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or len(value) > 255:
            raise self._wrong(key)
        return value

    def matching(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.text(key)
        if pattern.match(value) is None:
            raise self._wrong(key)
        return value

    def number(self, key: str, least: int, most: int) -> int:
        value = self._get(key)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(key)
        return value

    def real(self, key: str) -> float:
        value = self._get(key)
        if type(value) not in (int, float) or not 0 <= value < 1e15:
            raise self._wrong(key)
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if type(value) is not bool:
            raise self._wrong(key)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.items(key)
        if any(type(text) is not str for text in value):
            raise self._wrong(key)
        return tuple(value)

    def object(self, key: str) -> _Object:
        return _Object(self._get(key), self._where(key))

    def items(self, key: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self._wrong(key)
        return value
