"""Manifests: round trip, and nothing hostile gets through."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm.backup.digest import Digest
from ulvm.backup.frames import FrameIndex, FrameRun
from ulvm.backup.manifest import (
    ImageInfo,
    Manifest,
    SnapshotInfo,
    VolumeInfo,
    parse_manifest,
)
from ulvm.errors import FormatError

UUID = "AAAAAA-bbbb-1111-cccc-2222-dddd-333333"
FRAME = 1 << 20


def manifest() -> Manifest:
    runs = [FrameRun(1, 500, False), FrameRun(3, 151, True), FrameRun(1, 77, False)]
    return Manifest(
        tool="ulvm 0.1.0",
        time=datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC),
        volume=VolumeInfo("vg0", "db", UUID, UUID),
        image=ImageInfo(
            "vg0-db-20240501T120000Z.raw.zst",
            Digest("xxh128", "0" * 32),
            "f" * 64,
            FrameIndex(4 * FRAME + 512, FRAME, runs),
        ),
        snapshot=SnapshotInfo(1 << 24, 8192, 12.5, True, ("/mnt", "/a \\udcff"), ("/fuse",)),
        verified=True,
    )


def test_text_and_back_is_the_same() -> None:
    text = manifest().to_json()
    again = parse_manifest(text)
    assert again.to_json() == text
    assert again.volume == manifest().volume
    assert again.snapshot == manifest().snapshot
    assert list(again.image.index) == list(manifest().image.index)
    assert again.time == manifest().time


def test_a_manifest_that_does_not_tell_what_was_frozen() -> None:
    document = json.loads(manifest().to_json())
    del document["snapshot"]["frozen"], document["snapshot"]["synced"]
    snapshot = parse_manifest(json.dumps(document)).snapshot
    assert snapshot == SnapshotInfo(1 << 24, 8192, 12.5, True, (), ())


def test_frames_take_one_line() -> None:
    lines = [x for x in manifest().to_json().splitlines() if '"frames"' in x]
    assert lines == ['    "frames": [500, {"zero": 3, "length": 151}, 77]']


def test_index_gives_offsets() -> None:
    index = manifest().image.index
    assert [(f.raw_offset, f.raw_length, f.offset, f.length, f.zero) for f in index] == [
        (0, FRAME, 0, 500, False),
        (FRAME, FRAME, 500, 151, True),
        (2 * FRAME, FRAME, 651, 151, True),
        (3 * FRAME, FRAME, 802, 151, True),
        (4 * FRAME, 512, 953, 77, False),
    ]
    assert index.compressed_size == 1030


def changed(path: str, value: Any) -> str:
    """The good manifest with one member replaced."""
    document = json.loads(manifest().to_json())
    at = document
    *parents, last = path.split(".")
    for name in parents:
        at = at[name]
    at[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("format", "tar", "not a manifest"),
        ("version", 3, "version 3"),
        ("version", True, "version"),
        ("time", "yesterday", "time"),
        ("volume.vg", "../vg", "volume.vg"),
        ("volume.lv", "", "volume.lv"),
        ("volume.lv", "a" * 128, "volume.lv"),
        ("volume.vg_uuid", "x", "vg_uuid"),
        ("image.file", "../../etc/passwd.raw.zst", "image.file"),
        ("image.file", "/etc/x.raw.zst", "image.file"),
        ("image.file", ".hidden.raw.zst", "not an image beside it"),
        ("image.file", "passwd", "not an image beside it"),
        ("image.file", "a\n.raw.zst", "image.file"),
        ("image.size", 0, "image.size"),
        ("image.size", -512, "image.size"),
        ("image.size", 4 * FRAME + 511, "whole sectors"),
        ("image.size", 1 << 64, "image.size"),
        ("image.size", 1.0, "image.size"),
        ("image.size", 9 * FRAME, "5 frames"),
        ("image.frame_size", 3 << 20, "power of two"),
        ("image.frame_size", 1 << 40, "frame_size"),
        ("image.frame_size", 512, "frame_size"),
        ("image.frames", {}, "frames"),
        ("image.frames", [500, {"zero": 1 << 60, "length": 151}, 77], "frames"),
        ("image.frames", [500, {"zero": 0, "length": 151}, 77], r"frames\[1\].zero"),
        ("image.frames", [500, {"zero": 3}, 77], r"no image.frames\[1\].length"),
        ("image.frames", [-1] * 5, r"frames\[0\]"),
        ("image.frames", [True] * 5, r"frames\[0\]"),
        ("image.frames", ["1"] * 5, r"frames\[0\]"),
        ("image.compressed_size", 1031, "1031 compressed bytes, its frames make 1030"),
        ("image.xxh128", "0" * 31, "xxh128"),
        ("image.xxh128", "Z" * 32, "xxh128"),
        ("image.compressed_sha256", None, "compressed_sha256"),
        ("snapshot.writers_waited_ms", -1, "writers_waited_ms"),
        ("snapshot.writers_waited_ms", float("nan"), "writers_waited_ms"),
        ("snapshot.quiesced", "no", "quiesced"),
        ("snapshot.frozen", "/mnt", "frozen"),
        ("snapshot.synced", ["/mnt", 1], "synced"),
        ("snapshot", [], "snapshot"),
        ("verified", 1, "verified"),
    ],
)
def test_a_wrong_member_is_refused(path: str, value: Any, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        parse_manifest(changed(path, value))


@pytest.mark.parametrize("path", ["format", "volume", "image", "verified", "tool", "time"])
def test_a_missing_member_is_refused(path: str) -> None:
    document = json.loads(manifest().to_json())
    del document[path]
    with pytest.raises(FormatError, match=f"no {path}"):
        parse_manifest(json.dumps(document))


def test_a_huge_claim_costs_nothing() -> None:
    document = json.loads(manifest().to_json())
    frames = (1 << 62) // FRAME
    document["image"] |= {
        "size": 1 << 62,
        "frames": [{"zero": frames, "length": 151}],
        "compressed_size": frames * 151,
    }
    index = parse_manifest(json.dumps(document)).image.index
    assert len(index) == frames
    assert index[frames - 1].offset == (frames - 1) * 151


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 200_000, b"\xff\xfe{}", '"x"'])
def test_not_a_manifest_at_all(text: str | bytes) -> None:
    with pytest.raises(FormatError):
        parse_manifest(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
MEMBERS = [
    "format",
    "version",
    "tool",
    "time",
    "volume",
    "volume.vg",
    "volume.lv_uuid",
    "image",
    "image.file",
    "image.size",
    "image.xxh128",
    "image.compressed_size",
    "image.frame_size",
    "image.frames",
    "snapshot",
    "snapshot.cow_size",
    "snapshot.frozen",
    "verified",
]


@given(st.sampled_from(MEMBERS), JSON)
def test_any_value_anywhere_is_taken_whole_or_refused(path: str, value: Any) -> None:
    try:
        parsed = parse_manifest(changed(path, value))
    except FormatError:
        return
    assert parse_manifest(parsed.to_json()).to_json() == parsed.to_json()
