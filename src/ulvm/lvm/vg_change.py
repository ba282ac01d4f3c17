"""A volume group's attributes changed (vgchange(8)): all that is asked for in one commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ulvm.errors import RefusedError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.session import Change, Session
from ulvm.metadata import vg_edit
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.uuid import new_uuid
from ulvm.units import display_size
from ulvm.vgstore.system_id import checked_system_id

__all__ = ["Wanted", "change", "set_system_id"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to change; None and empty for what stays. `extent_size` in sectors; `metadata_copies`
    0 for unmanaged, -1 for all areas."""

    max_lv: int | None = None
    max_pv: int | None = None
    resizeable: bool | None = None
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    extent_size: int | None = None
    uuid: bool = False
    policy: str | None = None
    metadata_copies: int | None = None
    autoactivation: bool | None = None
    profile: str | None = None
    """Empty to have none."""

    @property
    def only_tags(self) -> bool:
        """LVM2 lets these change while PVs are missing."""
        return replace(self, add_tags=(), remove_tags=()) == Wanted()


def change(session: Session, name: str, wanted: Wanted) -> Change:
    """RefusedError, and nothing changed, if one of them cannot be."""

    def edit(vg: VolumeGroup) -> VolumeGroup:
        for step in _steps(session, wanted):
            vg = step(vg)
        return vg

    return session.change_vg(name, edit, allow_missing=wanted.only_tags)


_Step = Callable[[VolumeGroup], VolumeGroup]


def _steps(session: Session, wanted: Wanted) -> list[_Step]:
    """In LVM2's order, which decides what is refused first."""
    steps: list[_Step] = []
    if wanted.max_lv is not None:
        steps.append(lambda vg: vg_edit.set_max_lv(vg, wanted.max_lv or 0))
    if wanted.max_pv is not None:
        steps.append(lambda vg: vg_edit.set_max_pv(vg, wanted.max_pv or 0))
    if wanted.resizeable is not None:
        steps.append(lambda vg: vg_edit.set_resizeable(vg, bool(wanted.resizeable)))
    if wanted.add_tags or wanted.remove_tags:
        steps.append(
            lambda vg: vg_edit.set_tags(vg, add=wanted.add_tags, remove=wanted.remove_tags)
        )
    if wanted.extent_size is not None:
        steps.append(lambda vg: _set_extent_size(session, vg, wanted.extent_size or 0))
    if wanted.uuid:
        steps.append(lambda vg: _new_uuid(session, vg))
    if wanted.policy is not None:
        steps.append(lambda vg: vg_edit.set_policy(vg, wanted.policy or ""))
    if wanted.metadata_copies is not None:
        steps.append(lambda vg: _set_copies(session, vg, wanted.metadata_copies or 0))
    if wanted.autoactivation is not None:
        steps.append(lambda vg: vg_edit.set_autoactivation(vg, bool(wanted.autoactivation)))
    if wanted.profile is not None:
        steps.append(lambda vg: vg._replace(profile=wanted.profile or None))
    return steps


def _set_extent_size(session: Session, vg: VolumeGroup, sectors: int) -> VolumeGroup:
    if sectors == vg.extent_size and "RESIZEABLE" in vg.status:
        size = display_size(sectors)
        session.warn(f"Physical extent size of VG {vg.name} is already {size}.")
    return vg_edit.set_extent_size(vg, sectors)


def _new_uuid(session: Session, vg: VolumeGroup) -> VolumeGroup:
    if lvm_lv.states(session, vg):
        raise RefusedError("Volume group has active logical volumes")
    return vg._replace(uuid=new_uuid())


def _set_copies(session: Session, vg: VolumeGroup, copies: int) -> VolumeGroup:
    if copies == vg.metadata_copies:
        word = str(copies) if copies else "unmanaged"
        session.warn(f"Number of metadata copies for VG {vg.name} is already {word}.")
    return vg._replace(metadata_copies=copies)


def set_system_id(session: Session, name: str, system_id: str) -> None:
    """Give the VG to another host, or to none (""). The user is asked; RefusedError."""
    local = session.host.system_id
    if system_id:
        system_id = checked_system_id(system_id, session.warn)
        if not system_id:
            raise RefusedError("Unable to set system ID.")

    def give(vg: VolumeGroup) -> VolumeGroup:
        old = vg.system_id or ""
        if system_id == old:
            raise RefusedError(f'Volume Group system ID is already "{old}".')
        if lvm_lv.states(session, vg):
            raise RefusedError(
                f"Logical Volumes in VG {name} must be deactivated before system ID can be changed."
            )
        if not system_id:
            session.warn(
                "WARNING: Empty system ID supplied.\n"
                "WARNING: Removing the system ID allows unsafe access from other hosts."
            )
            if not session.ask(f"Remove system ID {old} from volume group {name}?"):
                raise RefusedError(f"System ID of volume group {name} not changed.")
        elif system_id != local:
            session.warn(
                f"WARNING: Requested system ID {system_id} does not match local system ID {local}."
                if local
                else "WARNING: No local system ID is set."
            )
            session.warn(
                f"WARNING: Volume group {name} might become inaccessible from this machine."
            )
            if not session.ask(f"Set foreign system ID {system_id} on volume group {name}?"):
                raise RefusedError(f"Volume group {name} system ID not changed.")
        return vg._replace(system_id=system_id or None)

    session.change_vg(name, give)
