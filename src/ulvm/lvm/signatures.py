"""Asking about what other programs know a device by, and wiping it: for pvcreate and lvcreate."""

from __future__ import annotations

from ulvm.blockdev.base import BlockDevice
from ulvm.lvm.session import Session
from ulvm.vgstore.signatures import LVM_MEMBER, Signature, wipe_signatures

__all__ = ["ask_and_wipe", "left_words"]

_STORE = "DM_snapshot_cow"
"""What a snapshot that was removed leaves on its extents."""
_OWN_WORDS = {
    "swap": "swap signature",
    "crypto_LUKS": "LUKS signature",
    "linux_raid_member": "software RAID md superblock",
}
"""LVM's, where libblkid is not to be asked."""


def ask_and_wipe(
    session: Session,
    device: BlockDevice,
    path: str,
    *,
    without_asking: bool = False,
    of_volume: bool = False,
) -> int:
    """Wipe the signatures that the user says yes to, in LVM's words; how many are left. Of a
    volume, a PV's label is one, too, and the store of a snapshot is wiped without a question."""

    library = _by_library(session)

    def decide(found: Signature) -> bool:
        what = f"{found.name} signature"
        if not library:
            what = _OWN_WORDS.get(found.name, what)
        where = f"{path} at offset {found.offset}" if library else path
        if of_volume and found.name == _STORE:
            session.verbose(f"Wiping {what} on {path}.")
            return True
        question = f"WARNING: {what} detected on {where}. Wipe it?"
        if not without_asking and not session.ask(question):
            session.warn(f"Aborted wiping of {found.name if library else what}.")
            return False
        session.say(f"Wiping {what} on {path}.")
        return True

    return wipe_signatures(
        device,
        decide,
        library=library,
        passed_over=frozenset() if of_volume else LVM_MEMBER,
    )


def _by_library(session: Session) -> bool:
    return session.host.config.get_bool("allocation/use_blkid_wiping", True)


def left_words(session: Session, left: int) -> str:
    """What is said of those; nothing where libblkid is not to be asked."""
    if not _by_library(session):
        return ""
    return f"{left} existing signature{'s' * (left > 1)} left on the device."
