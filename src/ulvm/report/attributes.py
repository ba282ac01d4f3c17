"""The attribute letters of lvs, vgs and pvs (lvs(8), vgs(8), pvs(8)), and the per cent of a COW."""

from __future__ import annotations

import struct

from ulvm.activation.states import LvState
from ulvm.activation.status import SnapshotStatus
from ulvm.metadata.model import (
    LogicalVolume,
    SimpleSegment,
    UnknownSegment,
    VolumeGroup,
)

__all__ = ["lv_attr", "percent", "percent_of", "pv_attr", "vg_attr"]

_FLOAT = struct.Struct("f")

_POLICY = {"contiguous": "c", "cling": "l", "normal": "n", "anywhere": "a", "inherit": "i"}


def lv_attr(
    vg: VolumeGroup, lv: LogicalVolume, state: LvState | None, *, asked: bool = True
) -> str:
    """The ten places of lv_attr. `asked`: whether it is known what is active."""
    snap = vg.snapshot_of(lv.name)
    origin = vg.is_origin(lv.name)
    return "".join(
        (
            _kind(vg, lv),
            _permission(lv, state),
            _policy(lv),
            "m" if lv.minor is not None else "-",
            _state(state, is_snapshot=snap is not None) if asked else "X",
            _open(state) if asked else "X",
            _target(vg, lv, snapshot=snap is not None or origin),
            "-",
            "p" if vg.is_partial(lv) else "-",
            "k" if "ACTIVATION_SKIP" in lv.flags else "-",
        )
    )


def _open(state: LvState | None) -> str:
    return "o" if state is not None and state.open_count else "-"


def _policy(lv: LogicalVolume) -> str:
    """Large while extents of it are moved."""
    letter = _POLICY.get(lv.allocation_policy, "i")
    return letter.upper() if lv.locked else letter


def _kind(vg: VolumeGroup, lv: LogicalVolume) -> str:
    if lv.is_pvmove:
        return "p"
    if vg.pvmove_image_of(lv.name) is not None:
        return "I"
    snap = vg.snapshot_of(lv.name)
    if snap is not None:
        return "S" if snap.merging else "s"
    if vg.merging_snapshot_of(lv.name) is not None:
        return "O"
    if vg.is_origin(lv.name):
        return "o"
    if all(isinstance(s, SimpleSegment | UnknownSegment) for s in lv.segments):
        return "v"
    return "-"


def _target(vg: VolumeGroup, lv: LogicalVolume, *, snapshot: bool) -> str:
    if lv.is_pvmove or vg.pvmove_image_of(lv.name) is not None:
        return "m"
    if any(isinstance(s, UnknownSegment) for s in lv.segments):
        return "u"
    if snapshot:
        return "s"
    return "v" if any(isinstance(s, SimpleSegment) for s in lv.segments) else "-"


def _permission(lv: LogicalVolume, state: LvState | None) -> str:
    if lv.is_pvmove:
        return "-"
    if not lv.writable:
        return "r"
    return "R" if state is not None and state.info.read_only else "w"


def _state(state: LvState | None, *, is_snapshot: bool) -> str:
    if state is None:
        return "-"
    info, status = state.info, state.status
    if status is not None and status.merge_failed:
        return "M" if info.suspended else "m"
    if is_snapshot and status is not None and (status.invalid or status.overflow):
        return "S" if info.suspended else "I"
    if info.suspended:
        return "s"
    if info.live_table:
        return "a"
    return "i" if info.inactive_table else "d"


def percent(status: SnapshotStatus) -> str | None:
    """Two digits; 0.00 only when empty, 100.00 only when full or invalid (dm_percent_t)."""
    fraction = status.fraction
    return None if fraction is None else percent_of(fraction)


def percent_of(fraction: float) -> str:
    """A share of 1, the same way."""
    if fraction in (0.0, 1.0):
        return f"{fraction * 100:.2f}"
    # Millionths of a percent, cut off, then a float in C: it decides how a tie is rounded.
    (shown,) = _FLOAT.unpack(_FLOAT.pack(int(fraction * 100_000_000)))
    (shown,) = _FLOAT.unpack(_FLOAT.pack(shown / 1_000_000))
    return f"{min(max(shown, 0.01), 99.99):.2f}"


def vg_attr(vg: VolumeGroup) -> str:
    """The six places of vg_attr."""
    return "".join(
        (
            "w" if "WRITE" in vg.status else "r",
            "z" if "RESIZEABLE" in vg.status else "-",
            "x" if "EXPORTED" in vg.status else "-",
            "p" if vg.partial else "-",
            _POLICY.get(vg.allocation_policy, "-"),
            "-",
        )
    )


def pv_attr(vg: VolumeGroup | None, pv_uuid: str, *, missing: bool = False) -> str:
    """The three places of pv_attr."""
    member = vg.pv(pv_uuid) if vg is not None else None
    if vg is None or member is None:
        return "---"
    return "".join(
        (
            "a" if member.allocatable else "u",
            "x" if "EXPORTED" in vg.status else "-",
            "m" if missing or member.missing else "-",
        )
    )
