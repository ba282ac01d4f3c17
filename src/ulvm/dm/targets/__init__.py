"""The targets by their names in a table line."""

from __future__ import annotations

from typing import Protocol

from ulvm.dm.targets.base import Target, TargetContext
from ulvm.dm.targets.error import ErrorTarget
from ulvm.dm.targets.linear import LinearTarget
from ulvm.dm.targets.merge import MergeTarget
from ulvm.dm.targets.mirror import MirrorTarget
from ulvm.dm.targets.origin import OriginTarget
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.dm.targets.striped import StripedTarget
from ulvm.dm.targets.zero import ZeroTarget

__all__ = ["TARGETS", "TargetType"]


class TargetType(Protocol):
    """A target's class: its constructor and version."""

    version: tuple[int, int, int]

    def __call__(
        self, context: TargetContext, begin: int, length: int, args: list[str]
    ) -> Target: ...


TARGETS: dict[str, TargetType] = {
    "mirror": MirrorTarget,
    "zero": ZeroTarget,
    "snapshot-merge": MergeTarget,
    "snapshot-origin": OriginTarget,
    "snapshot": SnapshotTarget,
    "striped": StripedTarget,
    "linear": LinearTarget,
    "error": ErrorTarget,
}
"""In the order in which the kernel lists them: the last registered first."""
