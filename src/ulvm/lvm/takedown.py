"""Deactivate what is active, with what is mounted on it (blkdeactivate(8)).

Each volume goes with its snapshots: first the file systems on any of them are unmounted, if that is
wanted, then the devices are removed. What holds another one open goes first: a volume on which a PV
lies is free once the volumes of that PV's group are gone, so what is busy is tried again as long as
anything else could be removed. What stays is told of and is no failure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulvm.activation.compare import visible_roots
from ulvm.activation.names import LVM_UUID_PREFIX, dm_name
from ulvm.activation.plan import tree_members
from ulvm.dm_ioctl import DeviceInfo
from ulvm.errors import BusyError, NotFoundError, UlvmError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import split_volume
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.mounts import Mount, loops_over, mount_table, mounts_of, unmount_volume

__all__ = ["TakeDown", "mounted_on", "take_down"]


@dataclass(frozen=True, slots=True)
class TakeDown:
    """What is wanted: `unmount` what is mounted; try again for a while with volumes (`retry`);
    `whole_vg` at once; `force`, and `retry_devices`, for devices that are no volumes; `explain` why
    something is skipped."""

    unmount: bool = False
    retry: bool = False
    whole_vg: bool = False
    force: bool = False
    retry_devices: bool = False
    explain: bool = False


class _MountedError(BusyError):
    """Something is mounted, and is to stay."""


@dataclass(frozen=True, slots=True)
class _Step:
    """`what` is said, `names` are the dm devices whose mounts are in the way, `remove` does it."""

    what: str
    names: tuple[str, ...]
    remove: Callable[[], None]


def take_down(session: Session, words: Sequence[str], wanted: TakeDown) -> None:
    """Deactivate the volumes, groups and mapped devices that are named, or all. NotFoundError for a
    name that is none, before anything is done."""
    chosen = _chosen(session, words) if words else None
    steps = list(_steps(session, wanted, chosen))
    session.say("Deactivating block devices:")
    reasons: dict[str, UlvmError] = {}
    while steps:
        left = []
        for step in steps:
            problem = _try(session, step, wanted)
            if problem is None:
                continue
            left.append(step)
            reasons[step.what] = problem
        if len(left) == len(steps):
            break
        steps = left
    for step in steps:
        reason = reasons[step.what]
        if isinstance(reason, _MountedError):
            session.say(f"  {reason.message}")
            continue
        session.say(f"  {step.what}... skipping")
        if wanted.explain:
            session.warn(f"    {reason.message}")


def _try(session: Session, step: _Step, wanted: TakeDown) -> UlvmError | None:
    """What keeps a step from being done, or None."""
    try:
        for name in step.names:
            _clear(session, name, wanted)
        step.remove()
    except NotFoundError:
        return None  # gone with another one
    except UlvmError as error:
        return error
    session.say(f"  {step.what}... done")
    return None


def _clear(session: Session, name: str, wanted: TakeDown) -> None:
    """Unmount what stands on a dm device; BusyError if that is not wanted."""
    path = session.host.run_dir / "dev" / "mapper" / name
    for mount in mounted_on(session, name):
        where = f"{name} mounted on {mount.mount_point}"
        if not wanted.unmount:
            raise _MountedError(f"[SKIP]: unmount of {where}")
        unmount_volume(mount)
        session.say(f"  [UMOUNT]: unmounting {where}... done")
    if mounted_on(session, name):
        raise BusyError(f"{path} is mounted again.")


def mounted_on(session: Session, name: str, *, look: bool = True) -> list[Mount]:
    """The mounts on a dm device, by any of its files, the last one first; with `look` also those
    that were mounted when it had other names, for which the daemon has to answer."""
    tree, links = session.host.run_dir / "dev", session.host.dev_dir
    files = [Path("mapper", name)]
    try:
        vg_name, lv_name = split_volume(f"/dev/mapper/{name}", session.host.run_dir)
        files.append(Path(vg_name, lv_name or ""))
    except UsageError:
        pass  # not a volume's name
    found: set[Mount] = set()
    for file in files:
        loops = loops_over(tree / file) if look and (tree / file).exists() else None
        found.update(mounts_of(tree / file, every=True, loops=loops, names=[links / file]))
    return [mount for mount in reversed(mount_table()) if mount in found]


def _chosen(session: Session, words: Sequence[str]) -> set[str]:
    """The dm names of what is named: of all volumes of a group that is."""
    dm = session.dm_if_running
    devices = {info.name for info in dm.devices()} if dm is not None else set()
    found = set()
    for word in words:
        name = word.removeprefix("/dev/mapper/")
        if name in devices:
            found.add(name)
            continue
        try:
            vg_name, lv_name = split_volume(word, session.host.run_dir)
            vg = session.scan().vg(vg_name)
        except UlvmError:
            raise NotFoundError(f"{word}: device not found") from None
        if lv_name is None:
            found.update(dm_name(vg.name, lv.name) for lv in vg.visible_lvs())
        elif vg.lv(lv_name) is None:
            raise NotFoundError(f"{word}: device not found")
        else:
            found.add(dm_name(vg.name, lv_name))
    return found


def _steps(session: Session, wanted: TakeDown, chosen: Collection[str] | None) -> Iterator[_Step]:
    dm = session.dm_if_running
    if dm is None:
        return
    for vg in session.scan().vgs:
        yield from _vg_steps(session, vg, wanted, chosen)
    for info in dm.devices():
        if info.uuid.startswith(LVM_UUID_PREFIX) or not _wants((info.name,), chosen):
            continue
        yield _device_step(session, info, wanted)


def _vg_steps(
    session: Session, vg: VolumeGroup, wanted: TakeDown, chosen: Collection[str] | None
) -> Iterator[_Step]:
    active = lvm_lv.states(session, vg)
    families = []
    for lv in visible_roots(vg):
        members = [member.name for member in tree_members(vg, lv.name)]
        names = tuple(dm_name(vg.name, member) for member in members if member in active)
        if names and _wants(names, chosen):
            families.append((lv.name, names))
    if wanted.whole_vg and families:
        yield _Step(
            f"[LVM]: deactivating Volume Group {vg.name}",
            tuple(name for _, names in families for name in names),
            _deactivation(session, vg, [lv_name for lv_name, _ in families], wanted),
        )
        return
    for lv_name, names in families:
        yield _Step(
            f"[LVM]: deactivating Logical Volume {vg.name}/{lv_name}",
            names,
            _deactivation(session, vg, [lv_name], wanted),
        )


def _deactivation(
    session: Session, vg: VolumeGroup, lv_names: Sequence[str], wanted: TakeDown
) -> Callable[[], None]:
    def deactivate() -> None:
        session.mean(vg.uuid)
        for lv_name in lv_names:
            lvm_lv.deactivate(session, vg.name, lv_name, retry=wanted.retry)

    return deactivate


def _device_step(session: Session, info: DeviceInfo, wanted: TakeDown) -> _Step:
    dm = session.dm
    table = dm.table(info.name) if info.live_table else []
    kind = table[0].target_type if table else "empty"
    return _Step(
        f"[DM]: deactivating {kind} device {info.name} (dm-{info.minor})",
        (info.name,),
        lambda: dm.remove(info.name, force=wanted.force, retry=wanted.retry_devices),
    )


def _wants(names: Sequence[str], chosen: Collection[str] | None) -> bool:
    return chosen is None or any(name in chosen for name in names)
