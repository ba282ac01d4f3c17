"""Logical volumes: made, activated, resized, renamed, removed (lvcreate(8) and its like).

Functions take names that exist (`Session.resolve_lv`) and extents that were computed; what LVM
would refuse raises with its sentence and changes nothing. They say nothing on success: the commands
do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from ulvm.activation.activate import SwapReport
from ulvm.activation.plan import root_of, tree_members
from ulvm.errors import BusyError, NotFoundError, RefusedError, UlvmError
from ulvm.lvm.extents import ZEROED, wipe_new
from ulvm.lvm.names import look_for
from ulvm.lvm.places import places_of
from ulvm.lvm.session import Change, Session
from ulvm.lvm.states import get, monitored, states, states_at_rest
from ulvm.lvm.volume_lists import list_words, may_activate
from ulvm.metadata import edit, lv_edit, snapshot_edit
from ulvm.metadata.lv_edit import PLAIN, Properties, with_properties
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.metadata.uuid import new_uuid
from ulvm.units import display_size
from ulvm.vgstore.checks import check_single

__all__ = [
    "activate",
    "activate_locked",
    "activate_new",
    "change_tags",
    "check_listed",
    "check_usable",
    "check_whole",
    "check_wipable",
    "create",
    "create_virtual",
    "deactivate",
    "extend",
    "get",
    "monitored",
    "reduce",
    "remove",
    "rename",
    "size_words",
    "states",
    "states_at_rest",
]


def create(
    session: Session,
    vg_name: str,
    name: str | None,
    *,
    extents: int | Callable[[VolumeGroup], int],
    pv_paths: Sequence[str] = (),
    properties: Properties = PLAIN,
    active: bool = True,
    auto: bool = False,
    zero: bool = True,
    wipe_signatures: bool = True,
    stripes: int = 1,
    stripe_size: int = 0,
    approximate: bool = False,
) -> str:
    """A new linear or striped volume, wiped and activated; its name. `extents` may depend on the VG
    as it is found under the lock; `approximate`: as many of them as the policy lets it have.
    `stripe_size` in sectors. `auto`: active if the lists for `-aay` have it. What is not active or
    read only is not wiped, and that is said. RefusedError, and nothing is made, when the user wants
    to keep a signature that is there."""
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        chosen = name or edit.auto_name(vg)
        count = extents if isinstance(extents, int) else extents(vg)

        def add(vg: VolumeGroup) -> VolumeGroup:
            made = edit.add_linear(
                vg,
                chosen,
                count,
                uuid=new_uuid(),
                now=int(time.time()),
                host=os.uname().nodename,
                places=places_of(session, vg, pv_paths),
                policy=properties.policy,
                stripes=stripes,
                stripe_size=min(stripe_size, vg.extent_size),
                approximate=approximate,
            )
            session.verbose(f"Creating logical volume {chosen}")
            return with_properties(made, chosen, properties)

        wiped = active and not properties.read_only and (zero or wipe_signatures)

        def wipe(vg: VolumeGroup) -> None:
            if wiped:
                check_wipable(session, vg, chosen, "start of new LV")
                zero_bytes = ZEROED if zero else 0
                wipe_new(
                    session,
                    vg,
                    get(vg, chosen),
                    zero_bytes=zero_bytes,
                    signatures=wipe_signatures,
                )
            if not active:
                session.verbose(f"Deactivating logical volume {vg_name}/{chosen}.")
            if not wipe_signatures or not active:
                volume = f"logical volume {vg_name}/{chosen}"
                session.verbose(f"Signature wiping on {volume} not requested.")

        changed = session.change_vg(vg_name, add, before_commit=wipe)
        if not wiped:
            session.warn(f"WARNING: Logical volume {vg_name}/{chosen} not zeroed.")
        if active:
            activate_new(session, changed.vg, chosen, auto=auto)
    return chosen


def check_whole(vg: VolumeGroup, lv: LogicalVolume, what: str) -> None:
    """RefusedError for a partial volume; `what` is refused."""
    if vg.is_partial(lv):
        raise RefusedError(
            f"Refusing {what} of partial LV {vg.name}/{lv.name}.  "
            "Use '--activationmode partial' to override."
        )


def check_usable(vg: VolumeGroup, name: str) -> None:
    """RefusedError for what a move is made of: its copy writes over what anybody else writes there,
    or leaves that to the volumes on it. NotFoundError."""
    if get(vg, name).is_pvmove or vg.pvmove_image_of(name) is not None:
        raise RefusedError(f"Operation not permitted on hidden LV {vg.name}/{name}.")


def check_listed(session: Session, vg: VolumeGroup, name: str) -> None:
    """RefusedError, as in LVM2, for an inactive volume that activation/volume_list has not."""
    if not may_activate(session.host.config, vg, name):
        raise RefusedError(
            f"Volume {vg.name}/{name} is not active locally (volume_list activation filter?)."
        )


def check_wipable(session: Session, vg: VolumeGroup, name: str, what: str) -> None:
    """RefusedError, as in LVM2, for a new volume that activation/volume_list has not, and so could
    not be wiped there."""
    try:
        check_listed(session, vg, name)
    except RefusedError as error:
        raise RefusedError(f"{error.message}\nAborting. Failed to wipe {what}.") from None


def activate_new(session: Session, vg: VolumeGroup, name: str, *, auto: bool = False) -> None:
    """Activate a volume that was just made, if the lists have it; remove it if that fails."""
    if not may_activate(session.host.config, vg, name, auto=auto):
        return
    _tell_activation(session, vg, name)
    try:
        session.activator.activate(vg, name)
    except UlvmError:
        session.change_vg(vg.name, lambda vg: edit.remove_lv(vg, name))
        raise


def create_virtual(
    session: Session,
    vg_name: str,
    name: str | None,
    *,
    type_name: str,
    extents: Callable[[VolumeGroup], int],
    properties: Properties = PLAIN,
    active: bool = True,
) -> str:
    """A new volume of `type_name` error or zero; its name."""
    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        chosen = name or edit.auto_name(vg)
        count = extents(vg)

        def add(vg: VolumeGroup) -> VolumeGroup:
            made = snapshot_edit.add_virtual(
                vg,
                chosen,
                count,
                type_name=type_name,
                uuid=new_uuid(),
                now=int(time.time()),
                host=os.uname().nodename,
            )
            session.verbose(f"Creating logical volume {chosen}")
            return with_properties(made, chosen, properties)

        changed = session.change_vg(vg_name, add)
        if active:
            activate_new(session, changed.vg, chosen)
    return chosen


def activate(session: Session, vg_name: str, lv_name: str, *, partial: bool = False) -> None:
    """Make the devices of the volume, with its origin and snapshots. RefusedError while two
    devices claim to be one PV, since a write might go to the wrong one, and unless `partial` if it
    is partial: also of a PV that is back and holds what was then."""
    with session.lock(vg_name, for_devices=True):
        activate_locked(session, session.vg_for_change(vg_name), lv_name, partial=partial)


def activate_locked(
    session: Session, vg: VolumeGroup, lv_name: str, *, partial: bool = False
) -> None:
    """As `activate`, of a VG that was read under its lock, which is held."""
    check_usable(vg, lv_name)
    check_single(session.last_scan, vg)
    if not partial:
        check_whole(vg, root_of(vg, lv_name), "activation")
    _tell_activation(session, vg, lv_name)
    session.activator.activate(vg, lv_name, partial=partial)


def _tell_activation(session: Session, vg: VolumeGroup, lv_name: str) -> None:
    session.verbose(f"Activating logical volume {vg.name}/{lv_name}.")
    for text in list_words(session.host.config, f"{vg.name}/{lv_name}"):
        session.verbose(text)


def deactivate(session: Session, vg_name: str, lv_name: str, *, retry: bool = False) -> None:
    """Remove the devices of the volume, with its origin and snapshots; BusyError if one is open,
    with `retry` after some seconds."""
    with session.lock(vg_name, for_devices=True):
        vg = session.scan().vg(vg_name)
        get(vg, lv_name)
        session.verbose(f"Deactivating logical volume {vg_name}/{lv_name}.")
        activator = session.activator_if_running
        if activator is not None:
            names = [lv.name for lv in tree_members(vg, lv_name)]
            states_at_rest(session, vg, names, retry=retry)
            activator.deactivate(vg, lv_name)


def extend(
    session: Session,
    vg_name: str,
    lv_name: str,
    extents: int,
    *,
    pv_paths: Sequence[str] = (),
    stripes: int | None = None,
    stripe_size: int | None = None,
    policy: str | None = None,
    approximate: bool = False,
) -> Change:
    """Grow to `extents`; active or not. An origin only while it is inactive. Stripes as the last
    segment's, and the policy as the volume's, unless given; `stripe_size` in sectors.
    `approximate`: as far as the policy lets it grow."""

    def grow(vg: VolumeGroup) -> VolumeGroup:
        _check_resizable(session, vg, lv_name)
        return edit.extend_lv(
            vg,
            lv_name,
            extents,
            places=places_of(session, vg, pv_paths),
            stripes=stripes,
            stripe_size=stripe_size,
            policy=policy,
            approximate=approximate,
        )

    with session.lock(vg_name):
        vg = session.vg_for_change(vg_name)
        if grow(vg) is vg:
            return Change(vg, SwapReport())  # Nothing was to be had where anything would do.
        return session.change_vg(vg_name, grow)


def reduce(session: Session, vg_name: str, lv_name: str, extents: int) -> Change:
    """Cut to `extents`. The caller has asked."""

    def cut(vg: VolumeGroup) -> VolumeGroup:
        return edit.reduce_lv(vg, lv_name, extents)

    return session.change_vg(vg_name, cut)


def _check_resizable(session: Session, vg: VolumeGroup, lv_name: str) -> None:
    get(vg, lv_name)
    snap = vg.snapshot_of(lv_name)
    if snap is not None and snap.merging:
        # One that waits still fills, and would be lost, and the merge with it.
        origin = states(session, vg).get(snap.origin)
        if origin is None or (origin.status is not None and origin.status.merging):
            raise RefusedError(f"Cannot resize merging snapshot {vg.name}/{lv_name}.")
    if vg.is_origin(lv_name) and lv_name in states(session, vg):
        raise RefusedError(
            "Snapshot origin volumes can be resized only while inactive: try lvchange -an."
        )


def rename(session: Session, vg_name: str, old: str, new: str) -> Change:
    """Rename, also while in use: the devices are renamed under their users."""

    def change(vg: VolumeGroup) -> VolumeGroup:
        if vg.lv(old) is None:
            raise NotFoundError(
                f'Existing logical volume "{old}" not found in volume group "{vg_name}"'
            )
        return edit.rename_lv(vg, old, new)

    changed = session.change_vg(vg_name, change)
    look_for(session.host.run_dir, vg_name, [old])
    return changed


def remove(session: Session, vg_name: str, lv_name: str) -> Change:
    """Remove a volume that nobody has open: a plain one, a snapshot, or an origin without
    snapshots. One that is being merged, or waits for it, goes only if nothing can come of that.
    BusyError, RefusedError."""

    def drop(vg: VolumeGroup) -> VolumeGroup:
        get(vg, lv_name)
        state = states_at_rest(session, vg, [lv_name]).get(lv_name)
        if state is not None and state.open_count:
            raise BusyError(f"Logical volume {vg_name}/{lv_name} in use.")
        own = vg.snapshot_of(lv_name)
        hopeless = state is not None and state.merge_is_hopeless
        if own is not None and own.merging and own.origin in states(session, vg) and not hopeless:
            raise RefusedError(f"Can't remove merging snapshot logical volume {vg_name}/{lv_name}.")
        if own is not None:
            session.verbose(f"Removing snapshot volume {vg_name}/{lv_name}.")
        session.verbose(f'Releasing logical volume "{lv_name}"')
        return edit.remove_lv(vg, lv_name)

    return session.change_vg(vg_name, drop, allow_missing=True)


def change_tags(
    session: Session,
    vg_name: str,
    lv_name: str,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
) -> Change:
    """Add and remove tags of a volume."""

    def change(vg: VolumeGroup) -> VolumeGroup:
        return lv_edit.set_tags(vg, lv_name, add=add, remove=remove)

    return session.change_vg(vg_name, change, allow_missing=True)


def size_words(vg: VolumeGroup, extents: int) -> str:
    """`8.00 MiB (2 extents)`"""
    return f"{display_size(extents * vg.extent_size)} ({extents} extents)"
