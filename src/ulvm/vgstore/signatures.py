"""What other programs know a device by: file systems, partition tables, RAID and the like
(pvcreate(8), lvcreate(8) -W).

util-linux's libblkid knows them best, and LVM2 asks it; where it is not there, or
`allocation/use_blkid_wiping` is 0, the table here counts, which has the common ones.

Of what is wiped only the magic bytes are overwritten, as wipefs(8) does; the caller flushes. A
signature that was wiped may have hidden another one (the backup of a GPT).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ulvm.blockdev.base import BlockDevice

if TYPE_CHECKING:
    from ulvm.vgstore.blkid import Probe

__all__ = ["LVM_MEMBER", "Signature", "probe_signatures", "wipe_signatures"]

LVM_MEMBER = frozenset({"LVM1_member", "LVM2_member"})
"""Types of PVs, about which LVM asks in its own way."""


class Signature(NamedTuple):
    """`name` is libblkid's; offset and length, in bytes, of the magic bytes."""

    name: str
    offset: int
    length: int


_KNOWN: tuple[tuple[str, int, bytes], ...] = (
    ("xfs", 0, b"XFSB"),
    ("btrfs", 65600, b"_BHRfS_M"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("crypto_LUKS", 0, b"LUKS\xba\xbe"),
    ("crypto_LUKS", 16384, b"SKUL\xba\xbe"),
    ("gpt", 512, b"EFI PART"),
    ("gpt", -512, b"EFI PART"),
    ("squashfs", 0, b"hsqs"),
    ("iso9660", 32769, b"CD001"),
    ("linux_raid_member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("bcachefs/bcache", 4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    ("zfs_member", 128 << 10, b"\x0c\xb1\xba\x00"),
    ("dos", 510, b"\x55\xaa"),
)
"""Offsets and magic bytes as blkid(8) and the kernel's superblocks have them; a negative offset
is from the end. The ext family is told apart in `_ext`."""

_EXT_SUPERBLOCK = 1024
_EXT_MAGIC = b"\x53\xef"


def wipe_signatures(
    device: BlockDevice,
    decide: Callable[[Signature], bool],
    *,
    library: bool = True,
    passed_over: frozenset[str] = frozenset(),
) -> int:
    """Wipe each signature that `decide` says yes to; how many are left. Types in `passed_over` are
    neither asked about nor counted. `library`: ask libblkid, if it is there."""
    from ulvm.vgstore import blkid

    if library and blkid.available():
        return _wipe_by_library(blkid.Probe(device), device, decide, passed_over)
    kept: list[str] = []
    for found in probe_signatures(device):
        # One answer is for both copies of a table, and for what protects it.
        if found.name in kept or (found.name == "PMBR" and "gpt" in kept):
            continue
        if decide(found):
            device.write(found.offset, bytes(found.length))
        else:
            kept.append(found.name)
    device.flush()
    return len(kept)


def _wipe_by_library(
    probe: Probe,
    device: BlockDevice,
    decide: Callable[[Signature], bool],
    passed_over: frozenset[str],
) -> int:
    left = 0
    try:
        for name, offset, length in probe:
            if name in passed_over:
                continue
            if decide(Signature(name, offset, length)):
                device.write(offset, bytes(length))
                probe.wiped(offset, length)
            else:
                left += 1
    finally:
        probe.close()
    device.flush()
    return left


def probe_signatures(device: BlockDevice) -> list[Signature]:
    """File systems, partition tables and the like on a device, other than LVM's own label."""
    found = []
    ext = _ext(device)
    if ext is not None:
        found.append(ext)
    for name, place, magic in _KNOWN:
        offset = place + (device.size if place < 0 else 0)
        if 0 <= offset <= device.size - len(magic):
            data = device.read(offset, len(magic))
            if data == magic and (name != "xfs" or _is_xfs(device)):
                found.append(Signature(name, offset, len(magic)))
    if any(s.name == "gpt" for s in found):
        found = [s._replace(name="PMBR") if s.name == "dos" else s for s in found]
    return found


def _is_xfs(device: BlockDevice) -> bool:
    """Sizes of blocks and sectors that XFS can have (sb_blocksize, sb_sectsize), as libblkid has
    it; the magic alone is four letters."""
    start = device.read(0, 512)
    block, sector = struct.unpack_from(">L", start, 4)[0], struct.unpack_from(">H", start, 102)[0]
    return all(
        least <= size <= 65536 and size & (size - 1) == 0
        for least, size in ((512, block), (512, sector))
    )


def _ext(device: BlockDevice) -> Signature | None:
    """ext2, ext3 or ext4, by the features that only the later ones have (ext4's ext4.h)."""
    if device.size < 2 * _EXT_SUPERBLOCK:
        return None
    block = device.read(_EXT_SUPERBLOCK, _EXT_SUPERBLOCK)
    if block[56:58] != _EXT_MAGIC:
        return None
    compat, incompat, ro_compat = struct.unpack_from("<LLL", block, 92)
    has_journal, journal_device = compat & 0x4, incompat & 0x8
    # Of what may not be ignored, ext2 and ext3 know file types, recovery and meta block groups;
    # for writing, sparse superblocks, large files and btree directories.
    if incompat & ~0x1E or ro_compat & ~0x7:
        name = "ext4"
    elif journal_device:
        name = "jbd"
    else:
        name = "ext3" if has_journal else "ext2"
    return Signature(name, _EXT_SUPERBLOCK + 56, len(_EXT_MAGIC))
