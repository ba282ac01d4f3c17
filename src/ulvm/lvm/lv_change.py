"""What lvchange does to one volume: its properties in one commit, and activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ulvm.activation.names import dm_uuid, volume_of
from ulvm.activation.plan import root_of, tree_members
from ulvm.activation.states import LvState
from ulvm.errors import RefusedError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import merge as lvm_merge
from ulvm.lvm import move as lvm_move
from ulvm.lvm.session import Session
from ulvm.lvm.volume_lists import may_activate, unlisted_words
from ulvm.metadata import lv_edit
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.vgstore.checks import check_settled, check_single

__all__ = ["Changes", "change", "monitor", "poll", "refresh", "set_minor", "switch", "use"]


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be changed; None and () for what is not. `read_ahead` in sectors, or one of the
    constants of metadata.lv_edit."""

    writable: bool | None = None
    policy: str | None = None
    read_ahead: int | None = None
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    skip_activation: bool | None = None
    autoactivation: bool | None = None
    no_minor: bool = False
    profile: str | None = None
    """Empty to have none."""

    def edits(self, name: str) -> list[Callable[[VolumeGroup], VolumeGroup]]:
        """Each wish as a change of the VG, in the order in which LVM2 takes them."""
        found: list[Callable[[VolumeGroup], VolumeGroup]] = []
        if self.writable is not None:
            writable = self.writable
            found.append(lambda vg: lv_edit.set_writable(vg, name, writable))
        if self.policy is not None:
            policy = self.policy
            found.append(lambda vg: lv_edit.set_policy(vg, name, policy))
        if self.read_ahead is not None:
            sectors = self.read_ahead
            found.append(lambda vg: lv_edit.set_read_ahead(vg, name, sectors))
        if self.no_minor:
            found.append(lambda vg: lv_edit.set_minor(vg, name, None))
        if self.add_tags or self.remove_tags:
            found.append(
                lambda vg: lv_edit.set_tags(vg, name, add=self.add_tags, remove=self.remove_tags)
            )
        if self.skip_activation is not None:
            skip = self.skip_activation
            found.append(lambda vg: lv_edit.set_skip(vg, name, skip))
        if self.autoactivation is not None:
            auto = self.autoactivation
            found.append(lambda vg: lv_edit.set_autoactivation(vg, name, auto))
        if self.profile is not None:
            profile = self.profile or None
            found.append(lambda vg: lv_edit.set_profile(vg, name, profile))
        return found

    @property
    def any(self) -> bool:
        return bool(self.edits(""))


def change(session: Session, vg_name: str, name: str, wanted: Changes) -> bool:
    """Make the changes; those that are refused are warned of, and the others made. Whether any was
    refused. Says so when something was changed."""
    refused: list[str] = []

    def edit(vg: VolumeGroup) -> VolumeGroup:
        _check_own(vg, lvm_lv.get(vg, name))
        fixed = wanted.read_ahead is not None or wanted.policy is not None or wanted.no_minor
        if fixed and vg.is_origin(name):
            raise RefusedError(
                f"Command on LV {vg_name}/{name} uses options that are invalid with LV "
                f"properties: lv_is_thick_origin .\nCommand not permitted on LV {vg_name}/{name}."
            )
        edits = wanted.edits(name)
        for each in edits:
            try:
                vg = each(vg)
            except RefusedError as error:
                refused.append(error.message)
        if len(refused) == len(edits):
            raise RefusedError("\n".join(refused))
        return vg

    if wanted == Changes(autoactivation=wanted.autoactivation):
        auto = "NOAUTOACTIVATE" not in lvm_lv.get(session.find_vg(vg_name), name).flags
        if auto == wanted.autoactivation:  # LVM2 says that it is changed, and writes nothing.
            session.say(f"Logical volume {vg_name}/{name} changed.")
            return False
    if wanted.writable is not None:
        mode = "read/write" if wanted.writable else "read-only"
        session.verbose(f"Setting logical volume {vg_name}/{name} {mode}.")
    if wanted.writable is not None and _refreshed(session, vg_name, name, wanted.writable):
        wanted = replace(wanted, writable=None)
    if wanted.any:
        session.change_vg(vg_name, edit, allow_missing=True)
    for sentence in refused:
        session.warn(sentence)
    session.say(f"Logical volume {vg_name}/{name} changed.")
    return bool(refused)


def _check_own(vg: VolumeGroup, lv: LogicalVolume) -> None:
    """RefusedError for what belongs to a move."""
    if lv.is_pvmove or vg.pvmove_image_of(lv.name) is not None:
        kind = "lv_is_pvmove" if lv.is_pvmove else "lv_is_mirror_image"
        raise RefusedError(
            f"Command on LV {vg.name}/{lv.name} is invalid on LV with properties: {kind} .\n"
            f"Command not permitted on LV {vg.name}/{lv.name}."
        )


def _refreshed(session: Session, vg_name: str, name: str, writable: bool) -> bool:
    """Whether the volume has been what is wanted, and its device has not, which is mended. The
    settings may have it read-only all the same (activation/read_only_volume_list)."""
    with session.lock(vg_name):
        vg = session.find_vg(vg_name)
        if lvm_lv.get(vg, name).writable != writable:
            return False
        state = lvm_lv.states(session, vg).get(name)
        if state is None or state.info.read_only != writable:
            return False
        mode = "writable" if writable else "read-only"
        session.say(f"Logical volume {vg_name}/{name} is already {mode}.  Refreshing kernel state.")
        refresh(session, vg_name, [name])
        return True


def switch(
    session: Session,
    vg_name: str,
    name: str,
    active: bool,
    *,
    auto: bool = False,
    ignore_skip: bool = False,
    partial: bool = False,
    polling: bool = True,
    named: bool = True,
) -> None:
    """Activate or deactivate the volume, with its origin and all snapshots, which is asked about
    for a snapshot that was `named` itself; else it goes with its origin. What is marked to be left
    out by plain activation, or (`auto`) at start-up, is left out."""
    vg = session.find_vg(vg_name)
    lv = lvm_lv.get(vg, name)
    snap = vg.snapshot_of(name)
    origin = vg.lv(snap.origin) if snap is not None else None
    if snap is not None and origin is not None and not vg.is_virtual_origin(origin):
        if not named:
            return
        others = len(vg.snapshots_of_origin(snap.origin)) - 1
        more = f" and {others} other snapshot(s)" if others else ""
        if not session.ask(
            f"Change of snapshot {vg_name}/{name} will also change its origin "
            f"{vg_name}/{snap.origin}{more}. Proceed?"
        ):
            raise RefusedError(f"Logical volume {vg_name}/{name} not changed.")
    if not active:
        lvm_lv.deactivate(session, vg_name, name)
        return
    if vg.is_component(lv) and not session.ask(
        "Do you want to activate component LV in read-only mode?"
    ):
        raise RefusedError(f"Operation not permitted on hidden LV {vg_name}/{name}.")
    marked = "ACTIVATION_SKIP" in root_of(vg, name).flags | lv.flags and not ignore_skip
    if marked:
        return
    if not may_activate(session.host.config, vg, name, auto=auto):
        for text in unlisted_words(session.host.config, f"{vg_name}/{name}"):
            session.verbose(text)
        return
    if polling:
        _activate(session, vg, name, partial=partial)
    else:
        lvm_lv.activate(session, vg_name, name, partial=partial)


def use(session: Session, vg_name: str, name: str) -> LvState | None:
    """The volume's device, for who is about to mount it: an inactive one is activated as by
    `switch`. None on trial; RefusedError if the lists do not have it, or a move is made of it."""
    vg = session.find_vg(vg_name)
    lvm_lv.check_usable(vg, name)
    active = lvm_lv.states(session, vg)
    if name not in active:
        lvm_lv.check_listed(session, vg, name)
        _activate(session, vg, name)
        active = lvm_lv.states(session, session.last_scan.vg(vg_name))
    return active.get(name)


def _activate(session: Session, vg: VolumeGroup, name: str, *, partial: bool = False) -> None:
    """The volume, with whoever sees to the end of the merges and moves that this sets going."""
    lvm_lv.activate(session, vg.name, name, partial=partial)
    _resume_polling(session, vg, name)


def _resume_polling(session: Session, vg: VolumeGroup, name: str) -> None:
    """Of a volume that is active again."""
    now = session.scan().vg(vg.name)
    lvm_merge.resume_polling(session, now)
    if any(vg.lower_lvs(lv) for lv in tree_members(vg, name)):
        lvm_move.resume_polling(session, now)


def set_minor(
    session: Session,
    vg_name: str,
    name: str,
    minor: int,
    *,
    major: int | None = None,
    force: int = 0,
) -> None:
    """The volume has this minor number from now on. One that is active is taken down for it, which
    is asked about unless by `force`, and comes back with the new number: refused if another device
    has that."""
    taken_down = False
    try:
        with session.lock(vg_name):
            vg = session.vg_for_change(vg_name)
            lv = lvm_lv.get(vg, name)
            volume = f"{vg_name}/{name}"
            if not vg.is_visible(lv):
                raise RefusedError(f"Operation not permitted on hidden LV {volume}.")
            active = name in lvm_lv.states(session, vg)
            if active:
                for info in session.dm.devices():
                    if info.minor == minor and volume_of(info.uuid) != dm_uuid(vg.uuid, lv.uuid):
                        raise RefusedError(
                            f"Minor number {minor} is that of {info.name}: "
                            f"take another for {volume}."
                        )
                if not force and not session.ask(
                    f"Logical volume {volume} will be deactivated temporarily. Continue?"
                ):
                    raise RefusedError(f"{volume} device number not changed.")
                session.hold_signals()
                lvm_lv.deactivate(session, vg_name, name)
                taken_down = True
            try:
                session.change_vg(
                    vg_name, lambda vg: lv_edit.set_minor(vg, name, minor, major=major)
                )
            finally:
                if active:
                    lvm_lv.activate(session, vg_name, name)
    finally:
        if taken_down:  # Not under the lock: what is started would hold signals back for good.
            _resume_polling(session, vg, name)


def refresh(session: Session, vg_name: str, names: Sequence[str], *, partial: bool = False) -> None:
    """Bring the VG's devices to the metadata, resume what is suspended, and begin the merges of
    these volumes that waited for them to be closed."""
    with session.lock(vg_name):
        vg = session.find_vg(vg_name)
        check_settled(session.last_scan, vg)
        check_single(session.last_scan, vg)
        activator = session.activator_if_running
        if activator is None:
            return
        for name in names:
            lv = lvm_lv.get(vg, name)
            if not partial:
                lvm_lv.check_whole(vg, lv, "refresh")
            session.verbose(f"Refreshing logical volume {vg_name}/{name} (if active).")
        merging = [s for s in vg.snapshot_segments() if s.merging and {s.origin, s.cow} & {*names}]
        lvm_lv.states_at_rest(session, vg, [n for s in merging for n in (s.origin, s.cow)])
        activator.refresh(vg, start_merges=names)
        lvm_merge.resume_polling(session, vg)


def poll(session: Session, vg_name: str, name: str, wanted: bool) -> None:
    """See to the end of what is merged into the volume. RefusedError for one that is inactive."""
    vg = session.find_vg(vg_name)
    lvm_lv.get(vg, name)
    if name not in lvm_lv.states(session, vg):
        raise RefusedError(f"Logical volume {vg_name}/{name} is not active.")
    if wanted:
        lvm_merge.resume_polling(session, vg)


def monitor(session: Session, vg_name: str, name: str, wanted: bool) -> None:
    """Watch how full a snapshot is, or leave it alone, as long as it is active."""
    vg = session.find_vg(vg_name)
    lvm_lv.get(vg, name)
    dm = session.dm_if_running
    state = lvm_lv.states(session, vg).get(name)
    if dm is not None and state is not None and vg.is_cow(name) and not session.host.trial:
        dm.monitor(state.info.uuid, wanted)
