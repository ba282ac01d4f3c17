"""Signatures on a device as util-linux's libblkid knows them, by ctypes.

The library reads files alone, while a new volume lies on extents of several PVs and a command on
trial keeps what it writes in memory. So it is given a sparse file in memory of the device's size,
with the device's first and last bytes in it: its probers look no further (they were traced: 4 MiB,
for LUKS2's second header, and 1.6 MiB from the end, for the metadata of RAID controllers).

Settings and order are those of LVM2's pvcreate: superblocks before partition tables, also with bad
checksums; what was wiped is looked for again, since a backup may then be found in its stead.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import DeviceError

__all__ = ["Probe", "available"]

_LIBRARY = "libblkid.so.1"
_MIB = 1 << 20
_HEAD = 5 * _MIB
_TAIL = 2 * _MIB
_STEP = 1 << 16

# blkid.h: BLKID_SUBLKS_*, BLKID_PARTS_MAGIC.
_LABEL, _UUID, _TYPE, _USAGE, _VERSION, _MAGIC, _BADCSUM = (1 << n for n in (1, 3, 5, 7, 8, 9, 10))
_SUPERBLOCKS = _LABEL | _UUID | _TYPE | _USAGE | _VERSION | _MAGIC | _BADCSUM
_PARTITIONS = 1 << 3


_ARGUMENTS: dict[str, tuple[type, ...]] = {
    "free_probe": (),
    "probe_set_device": (ctypes.c_int, ctypes.c_int64, ctypes.c_int64),
    "probe_set_sectorsize": (ctypes.c_uint,),
    "probe_enable_superblocks": (ctypes.c_int,),
    "probe_set_superblocks_flags": (ctypes.c_int,),
    "probe_enable_partitions": (ctypes.c_int,),
    "probe_set_partitions_flags": (ctypes.c_int,),
    "probe_step_back": (),
    "do_probe": (),
    "probe_lookup_value": (
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_size_t),
    ),
}
"""Of the functions, after the probe. All but `free_probe` return an int."""


def available() -> bool:
    """Whether this system has the library."""
    return _load() is not None


@functools.cache
def _load() -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    found.blkid_new_probe.restype = ctypes.c_void_p
    for name, arguments in _ARGUMENTS.items():
        getattr(found, f"blkid_{name}").argtypes = (ctypes.c_void_p, *arguments)
    found.blkid_free_probe.restype = None
    return found


class Probe:
    """The signatures of one device, one after the other. `close` ends it; it does not close the
    device. DeviceError if the library is not there or fails."""

    def __init__(self, device: BlockDevice) -> None:
        library = _load()
        if library is None:
            raise DeviceError(f"{_LIBRARY} is not there.")
        self._library = library
        self._probe: int | None = None
        self._fd = -1
        try:
            with _in_memory():
                self._fd = os.memfd_create("ulvm-signatures")
                _copy(device, self._fd)
            self._probe = library.blkid_new_probe()
            self._call("probe_set_device", self._fd, 0, 0)
            self._call("probe_set_sectorsize", device.block_size)
            self._call("probe_enable_partitions", 1)
            self._call("probe_set_partitions_flags", _PARTITIONS)
            self._call("probe_enable_superblocks", 1)
            self._call("probe_set_superblocks_flags", _SUPERBLOCKS)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._probe is not None:
            self._library.blkid_free_probe(self._probe)
            self._probe = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _call(self, name: str, *values: int) -> None:
        if getattr(self._library, f"blkid_{name}")(self._probe, *values) < 0:
            raise DeviceError(f"libblkid: {name} failed.")

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        """(type, offset and length of its magic bytes)."""
        while True:
            result = self._library.blkid_do_probe(self._probe)
            if result < 0:
                raise DeviceError("libblkid: the device cannot be probed.")
            if result > 0:
                return
            for kind, prefix in (("TYPE", "SB"), ("PTTYPE", "PT")):
                name = self._value(kind)
                if name is None:
                    continue
                magic, offset = self._value(f"{prefix}MAGIC"), self._value(f"{prefix}MAGIC_OFFSET")
                if not magic or offset is None:
                    raise DeviceError(f"libblkid: where {_text(name)} begins is not known.")
                yield _text(name), int(_text(offset)), len(magic)
                break

    def wiped(self, offset: int, length: int) -> None:
        """The last one is not there any more: look again for what it may have hidden."""
        with _in_memory():
            os.pwrite(self._fd, bytes(length), offset)
        self._call("probe_step_back")

    def _value(self, name: str) -> bytes | None:
        data, length = ctypes.c_void_p(), ctypes.c_size_t()
        failed = self._library.blkid_probe_lookup_value(
            self._probe, name.encode(), ctypes.byref(data), ctypes.byref(length)
        )
        return None if failed else ctypes.string_at(data.value or 0, length.value)


def _text(value: bytes) -> str:
    """Texts come with the NUL that ends them."""
    return value.rstrip(b"\0").decode(errors="replace")


@contextmanager
def _in_memory() -> Iterator[None]:
    """DeviceError if the file cannot be had or written: `ulimit -f` counts for it, too."""
    try:
        yield
    except OSError as error:
        raise DeviceError(
            f"A copy in memory for libblkid cannot be made: {error.strerror}.", errno=error.errno
        ) from None


def _copy(device: BlockDevice, fd: int) -> None:
    """Head and tail of the device, so far as they are not zeros."""
    size = device.size
    os.truncate(fd, size)
    head = min(_HEAD, size)
    for start, end in ((0, head), (max(head, size - _TAIL), size)):
        for extent in device.extents(start, end - start):
            at, stop = extent.offset, extent.offset + extent.length
            while at < stop and not extent.zero:
                data = device.read(at, min(_STEP, stop - at))
                if any(data):
                    os.pwrite(fd, data, at)
                at += len(data)
