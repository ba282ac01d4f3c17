"""Changes of what a volume has beside its extents: policy, permission, read-ahead, flags, minor.

Pure, as `metadata.edit`; the sentences are those of LVM2's lvchange. Each function returns the VG
with one volume changed; RefusedError where LVM2 refuses a change to what is already so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ulvm.errors import RefusedError
from ulvm.metadata.model import VolumeGroup

__all__ = [
    "AUTO_READ_AHEAD",
    "NO_READ_AHEAD",
    "PLAIN",
    "Properties",
    "set_autoactivation",
    "set_minor",
    "set_policy",
    "set_profile",
    "set_read_ahead",
    "set_skip",
    "set_tags",
    "set_writable",
    "with_properties",
]

AUTO_READ_AHEAD = 0
NO_READ_AHEAD = -1

_SKIP = "ACTIVATION_SKIP"
_NO_AUTO = "NOAUTOACTIVATE"
_FIXED_MINOR = "FIXED_MINOR"


class Properties(NamedTuple):
    """Of a volume that is to be made. `read_ahead` in sectors, or one of the constants above."""

    tags: tuple[str, ...] = ()
    read_only: bool = False
    policy: str | None = None
    read_ahead: int = AUTO_READ_AHEAD
    skip_activation: bool = False
    autoactivation: bool = True
    major: int | None = None
    minor: int | None = None
    profile: str | None = None


PLAIN = Properties()
"""What a volume is like of which nothing was said."""


def with_properties(vg: VolumeGroup, name: str, wanted: Properties) -> VolumeGroup:
    """A new volume, or the COW of a new snapshot, with all that was asked for."""
    lv = vg.volume(name)
    flags = set(lv.flags)
    if wanted.skip_activation:
        flags.add(_SKIP)
    if not wanted.autoactivation:
        flags.add(_NO_AUTO)
    status = lv.status - {"WRITE"} if wanted.read_only else lv.status
    if wanted.minor is not None:
        status |= {_FIXED_MINOR}
    return vg.with_lv(
        lv._replace(
            tags=tuple(dict.fromkeys(wanted.tags)),
            status=status,
            flags=frozenset(flags),
            allocation_policy=wanted.policy or "inherit",
            read_ahead=wanted.read_ahead or None,
            major=wanted.major,
            minor=wanted.minor,
            profile=wanted.profile,
        )
    )


def set_policy(vg: VolumeGroup, name: str, policy: str) -> VolumeGroup:
    """One of metadata.allocate.POLICIES, or inherit."""
    lv = vg.volume(name)
    if lv.allocation_policy == policy:
        raise RefusedError(
            f"Allocation policy of logical volume {vg.name}/{name} is already {policy}."
        )
    return vg.with_lv(lv._replace(allocation_policy=policy))


def set_read_ahead(vg: VolumeGroup, name: str, sectors: int) -> VolumeGroup:
    lv = vg.volume(name)
    if (lv.read_ahead or AUTO_READ_AHEAD) == sectors:
        shown = {AUTO_READ_AHEAD: "auto", NO_READ_AHEAD: "0"}.get(sectors, str(sectors))
        raise RefusedError(f"Read ahead is already {shown} for {vg.name}/{name}.")
    return vg.with_lv(lv._replace(read_ahead=sectors or None))


def set_writable(vg: VolumeGroup, name: str, writable: bool) -> VolumeGroup:
    lv = vg.volume(name)
    if lv.writable == writable:
        volume = f"{vg.name}/{name}"
        if writable:
            raise RefusedError(f"Logical volume {volume} is already writable.")
        raise RefusedError(f'Logical volume "{volume}" is already read only.')
    status = lv.status | {"WRITE"} if writable else lv.status - {"WRITE"}
    return vg.with_lv(lv._replace(status=status))


def _set_flag(vg: VolumeGroup, name: str, flag: str, wanted: bool) -> VolumeGroup:
    lv = vg.volume(name)
    return vg.with_lv(lv._replace(flags=lv.flags | {flag} if wanted else lv.flags - {flag}))


def set_skip(vg: VolumeGroup, name: str, wanted: bool) -> VolumeGroup:
    """Whether plain activation leaves the volume out."""
    return _set_flag(vg, name, _SKIP, wanted)


def set_autoactivation(vg: VolumeGroup, name: str, wanted: bool) -> VolumeGroup:
    """Whether activation at start-up (-aay) takes the volume."""
    return _set_flag(vg, name, _NO_AUTO, not wanted)


def set_profile(vg: VolumeGroup, name: str, profile: str | None) -> VolumeGroup:
    """The name of a metadata profile."""
    return vg.with_lv(vg.volume(name)._replace(profile=profile))


def set_tags(
    vg: VolumeGroup, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> VolumeGroup:
    lv = vg.volume(name)
    gone = set(remove)
    kept = [tag for tag in lv.tags if tag not in gone]
    return vg.with_lv(lv._replace(tags=tuple(dict.fromkeys([*kept, *add]))))


def set_minor(
    vg: VolumeGroup, name: str, minor: int | None, *, major: int | None = None
) -> VolumeGroup:
    """The device number that an activation gives the volume; None: any that is free."""
    lv = vg.volume(name)
    if minor is None:
        if _FIXED_MINOR not in lv.status:
            raise RefusedError(f"Minor number is already not persistent for {vg.name}/{name}.")
        return vg.with_lv(lv._replace(status=lv.status - {_FIXED_MINOR}, major=None, minor=None))
    return vg.with_lv(lv._replace(status=lv.status | {_FIXED_MINOR}, major=major, minor=minor))
