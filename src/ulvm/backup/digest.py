"""Digests of a whole volume, which tell that it came back as it was read.

XXH3 with 128 bits, as `xxh128sum` prints it. It tells accidents, which is what may happen to the
bytes between the reading of a volume and its restore; that nobody has altered the image is for the
SHA-256 of its file, from which all of the volume follows. A SHA-256 of the volume as well, which
the first version of the manifest has, took a sixth of a backup's processor time, and being of one
piece held all cores to the speed of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import xxhash

from ulvm.blockdev.base import Buffer

__all__ = ["OLD_DIGEST", "VOLUME_DIGEST", "Digest", "Hash", "new_hash"]

OLD_DIGEST = "sha256"
VOLUME_DIGEST = "xxh128"


class Hash(Protocol):
    """What is fed with a volume's bytes, from the first to the last."""

    def update(self, data: Buffer, /) -> None: ...

    def hexdigest(self) -> str: ...


_HASHES: dict[str, Callable[[], Hash]] = {
    OLD_DIGEST: hashlib.sha256,
    VOLUME_DIGEST: xxhash.xxh3_128,
}


class Digest(NamedTuple):
    """`kind` is a manifest's word for it, `value` hexadecimal."""

    kind: str
    value: str


def new_hash(kind: str = VOLUME_DIGEST) -> Hash:
    return _HASHES[kind]()
