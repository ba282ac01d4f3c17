"""`dmsetup ls --tree`: every device that no other uses, and what it stands on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ulvm.dm_ioctl import DM_MAJOR, DeviceInfo, DeviceMapper

__all__ = ["tree_lines"]


def tree_lines(dm: DeviceMapper, devices: Sequence[DeviceInfo]) -> Iterator[str]:
    """The lines as dmsetup prints them; `devices` by name."""
    deps = {info.minor: dm.deps(info.name) for info in devices}
    names = {info.minor: info.name for info in devices}
    used = {minor for lower in deps.values() for major, minor in lower if major == DM_MAJOR}
    for info in devices:
        if info.minor not in used:
            yield f"{info.name} ({info.major}:{info.minor})"
            yield from _below(deps, names, deps[info.minor], "")


def _below(
    deps: dict[int, list[tuple[int, int]]],
    names: dict[int, str],
    lower: Sequence[tuple[int, int]],
    indent: str,
) -> Iterator[str]:
    for number, (major, minor) in enumerate(lower):
        last = number == len(lower) - 1
        name = names.get(minor, "") if major == DM_MAJOR else ""
        yield f"{indent} {'`-' if last else '|-'}{name} ({major}:{minor})"
        if major == DM_MAJOR:
            below = indent + ("   " if last else " | ")
            yield from _below(deps, names, deps.get(minor, []), below)
