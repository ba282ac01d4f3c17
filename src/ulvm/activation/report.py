"""What became of a change: how long writers waited, what was left, what failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ulvm.errors import DaemonGoneError, UlvmError

__all__ = ["SwapReport", "noted", "raise_all"]


@dataclass
class SwapReport:
    """`suspended_seconds`: how long writers of an origin or a volume waited at most.
    `frozen`, `synced`: mount points of the file systems that stood still for it, and of those
    that could not be frozen but were synced before.
    `left`: devices that should have gone but were in use; they now have an error table."""

    suspended_seconds: float = 0.0
    frozen: list[str] = field(default_factory=list)
    synced: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, other: SwapReport) -> None:
        """What was done after this."""
        self.suspended_seconds = max(self.suspended_seconds, other.suspended_seconds)
        self.frozen += other.frozen
        self.synced += other.synced
        self.left += other.left


@contextlib.contextmanager
def noted(failures: list[UlvmError]) -> Iterator[None]:
    """What fails inside must not keep others from going on; a daemon that is gone does."""
    try:
        yield
    except DaemonGoneError:
        raise
    except UlvmError as error:
        failures.append(error)


def raise_all(failures: Sequence[UlvmError]) -> None:
    """The one, or all in one."""
    texts = list(dict.fromkeys(error.message for error in failures))
    if len(texts) > 1:
        raise UlvmError("\n".join(texts), errno=failures[0].errno) from failures[0]
    for error in failures:
        raise error
