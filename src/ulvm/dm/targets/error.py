"""error: every request fails with EIO; arguments are ignored (drivers/md/dm-target.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import ClassVar, NoReturn

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.dm.targets.base import Target, TargetContext
from ulvm.errors import DeviceError

__all__ = ["ErrorTarget"]


class ErrorTarget(Target):
    type_name: ClassVar[str] = "error"
    version: ClassVar[tuple[int, int, int]] = (1, 5, 0)

    def __init__(self, context: TargetContext, begin: int, length: int, args: list[str]) -> None:
        super().__init__(begin, length)

    def _fail(self) -> NoReturn:
        raise DeviceError("error target", errno=errno.EIO)

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self._fail()

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self._fail()

    def discard(self, offset: int, length: int) -> None:
        self._fail()

    def table(self, number: Callable[[BlockDevice], str]) -> str:
        return ""
