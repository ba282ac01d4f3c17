"""One command at work on one host: scans, locks, the daemon, and the one way to change a VG.

Locks. A change holds the volume group's lock from its scan to the last resume (`change_vg`), so
what it read cannot change under it. `lock` may be taken again by the same session.

Signals. From the first step that changes metadata until the last lock is let go those of a terminal
and SIGTERM are held back (`hold_signals`), as in LVM2: neither devices nor metadata are left
half-way. A kill -9 there is repaired by the daemon (daemon.service) from the committed metadata.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from ulvm.activation.names import dm_name, dm_uuid, strays, volume_of
from ulvm.blockdev.base import BlockDevice
from ulvm.daemon.client import NBD_SOCKET, DaemonClient, connect
from ulvm.dm_ioctl import DeviceInfo, DeviceMapper
from ulvm.errors import NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.lvm.names import split_known
from ulvm.lvm.settled import SettledScans, what_is_odd
from ulvm.lvm.signals import HeldSignals
from ulvm.lvm.words import Messages, Words
from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore.candidates import is_volume
from ulvm.vgstore.host import Host
from ulvm.vgstore.locks import global_lock, vg_lock
from ulvm.vgstore.scan import PvDevice, Scan

if TYPE_CHECKING:
    from ulvm.activation.activate import Activator, SwapReport

__all__ = ["Change", "Session"]

_READ_ONLY = "Operation prohibited while --readonly is set."


class Change(NamedTuple):
    """What became of a VG; `report` tells how long its writers waited."""

    vg: VolumeGroup
    report: SwapReport


class Session:
    """For one thread. `command_line`: what the metadata will say made the change."""

    def __init__(self, host: Host, messages: Messages, *, command_line: str = "ulvm") -> None:
        self.host = host
        self.command_line = command_line
        self.messages = messages
        self.group: VolumeGroup | None = None
        """The first that was to be changed, as it was."""
        self._words = Words(messages)
        self.say = self._words.say
        self.warn = self._words.warn
        self.verbose = self._words.verbose
        self._dm: DaemonClient | None = None
        self._scan: Scan | None = None
        self._said: set[str] = set()
        self._held: dict[str, int] = {}
        self._scans = SettledScans(host, self._held.keys(), self._said, self._in_use)
        self.quiet = self._scans.quiet
        self._signals = HeldSignals()
        self._meant = ""

    def another(self) -> Session:
        """A session of its own, for another thread."""
        return Session(self.host, self.messages, command_line=self.command_line)

    def warn_once(self, text: str) -> None:
        """A warning that a session gives once, however often it comes upon its reason."""
        if text not in self._said:
            self._said.add(text)
            self.warn(text)

    def ask(self, question: str) -> bool:
        """As `Messages.ask`; whoever is asked may interrupt."""
        with self._signals.let_through():
            return self.messages.ask(question)

    def close(self) -> None:
        if self._dm is not None:
            self._dm.close()
            self._dm = None

    # -- reading ----------------------------------------------------------------------------

    def scan(
        self, extra_paths: Iterable[str] = (), *, labels_only: bool = False, unowned: bool = False
    ) -> Scan:
        """Look at all devices afresh. Each warning is given once in a session; `labels_only`: not
        those about VGs, for a command that is about none; `unowned`: also about PVs that are in use
        by nobody knows what, for a command that is about PVs."""
        if self.host.config.get_bool("devices/scan_lvs", False):
            # A daemon that was killed comes back first: volumes are among what is looked at.
            _ = self.dm_if_running
        found = self._scans.scan(extra_paths)
        for text in found.warnings[: found.label_warnings if labels_only else None]:
            what = what_is_odd(text)
            if what not in self._said:
                self._said.add(what)
                self.warn(text)
        for pv in found.pvs if unowned else ():
            if pv.unowned:
                self.warn_once(
                    f"WARNING: PV {pv.path} is marked in use but no VG was found using it.\n"
                    f"WARNING: PV {pv.path} might need repairing."
                )
        for name, why in found.broken.items() if unowned else ():
            owned = ", ".join(pv.path for pv in found.pvs if pv.vg_name == name)
            self.warn_once(f"WARNING: VG {name} on {owned} is not understood: {why}")
        self._scan = found._replace(meant=self._meant)
        return self._scan

    def mean(self, vg_uuid: str) -> None:
        """From now on the name of this VG means it, and not another one of that name."""
        self._meant = vg_uuid
        if self._scan is not None:
            self._scan = self._scan._replace(meant=vg_uuid)

    def _in_use(self) -> frozenset[str]:
        """The real paths of the disks and files that dm devices stand on."""
        dm = self.dm_if_running
        if dm is None:
            return frozenset()
        numbers: set[tuple[int, int]] = set()
        for info in dm.devices():
            with suppress(NotFoundError):  # It was removed since.
                numbers.update(dm.deps(info.name))
        names = (dm.device_name(major, minor) for major, minor in numbers)
        return frozenset(os.path.realpath(name) for name in names if name is not None)

    @property
    def last_scan(self) -> Scan:
        """The last one, or a first."""
        return self._scan if self._scan is not None else self.scan()

    def find_vg(self, vg_name: str) -> VolumeGroup:
        """The VG as it is now. NotFoundError, FormatError for one that cannot be read."""
        try:
            return self.scan().vg(vg_name)
        except NotFoundError as error:
            sentence = f"{error.message}\nCannot process volume group {vg_name}"
            raise NotFoundError(sentence) from None

    def resolve_lv(self, text: str) -> tuple[str, str]:
        """(VG, LV) of an existing volume; see `lvm.names`. NotFoundError."""
        vg_name, lv_name = split_known(text, self.host.run_dir, self.host.default_vg)
        if lv_name is None:
            raise UsageError("Please specify a logical volume path.")
        vg = self.find_vg(vg_name)
        lv = vg.lv(lv_name)
        if lv is None or lv.snapshot_segment is not None:
            raise NotFoundError(f'Failed to find logical volume "{vg_name}/{lv_name}"')
        return vg_name, lv_name

    # -- devices ----------------------------------------------------------------------------

    @property
    def dm(self) -> DaemonClient:
        """The daemon; started if none runs."""
        if self._dm is None:
            self._dm = connect(self.host.run_dir, start=True, system_dir=self.host.system_dir)
            assert self._dm is not None
        return self._dm

    @property
    def dm_if_running(self) -> DaemonClient | None:
        """The daemon, or None if nothing is active; one that was killed is started anew."""
        if not self.host.activation:
            return None
        if self._dm is None:
            self._dm = connect(self.host.run_dir, start=False, system_dir=self.host.system_dir)
        return self._dm

    def holds(self, vg: VolumeGroup) -> bool:
        """Whether our daemon may have disks of the VG open. Where it does not and they are in use,
        another host has the VG active, another user's perhaps, and would not hear of a change."""
        dm = self.dm_if_running
        if dm is None:
            return False
        if any(info.uuid.startswith(dm_uuid(vg.uuid, "")) for info in dm.devices()):
            return True
        disks = self._in_use()
        return any(os.path.realpath(pv.path) in disks for pv in self.last_scan.pvs_of(vg))

    @property
    def activator(self) -> Activator:
        still = self.host.trial or not self.host.activation
        return self._activator(self.dm_if_running if still else self.dm)

    @property
    def activator_if_running(self) -> Activator | None:
        dm = self.dm_if_running
        return None if dm is None else self._activator(dm)

    def _activator(self, dm: DaemonClient | None) -> Activator:
        # Not for those who only look.
        from ulvm.lvm.still import StillActivator
        from ulvm.lvm.undisturbed import UndisturbedActivator
        from ulvm.lvm.volume_lists import as_activated

        if dm is None or self.host.trial:
            return StillActivator(dm, self._path_of)
        filler = self.host.config.get_str("activation/missing_stripe_filler", "error")
        return UndisturbedActivator(
            self._told(dm),
            self._path_of,
            view=lambda vg: as_activated(self.host.config, vg),
            filler=filler,
            kept=self._words.kept,
        )

    def _told(self, dm: DaemonClient) -> DeviceMapper:
        """Changes of devices are told with -v."""
        if not self.messages.verbosity:
            return dm
        from ulvm.activation.told import ToldMapper

        return ToldMapper(dm, self.verbose)

    def _path_of(self, pv_uuid: str) -> str | None:
        """How a table names the PV. A PV that is a volume of ours is named as a dm device: the
        daemon must not come back to itself through its own file system, which is not yet there
        when it brings devices back. None for one that is on two devices, as for a missing one: what
        is active keeps to the device that it has."""
        found = self.last_scan
        if pv_uuid in found.duplicates and not found.duplicates_allowed:
            return None
        path = found.path_of(pv_uuid)
        if path is None or not is_volume(self.host, path):
            return path
        folder, name = os.path.split(path)
        return f"/dev/mapper/{dm_name(os.path.basename(folder), name)}"

    def check_touches(self) -> None:
        """RefusedError on trial, and without device-mapper: who writes a volume's bytes, or has
        them read or mounted, cannot stand still, nor know who else uses them."""
        if self.host.trial:
            raise RefusedError("What volumes hold is not used in test mode.")
        if not self.host.activation:
            raise RefusedError("What volumes hold is not used while activation is disabled.")

    def device_for(self, vg_name: str, lv_name: str, *, write: bool) -> BlockDevice:
        """An active volume's bytes, through the daemon. RefusedError as `check_touches`."""
        self.check_touches()
        address = str(self.host.run_dir / NBD_SOCKET)
        # Commands that open no volume start without it.
        from ulvm.blockdev.nbd import NbdDevice

        return NbdDevice(address, f"{vg_name}/{lv_name}", read_only=not write)

    # -- changing ---------------------------------------------------------------------------

    @contextmanager
    def lock(
        self, vg_name: str, *, for_devices: bool = False, patience: float | None = None
    ) -> Iterator[None]:
        """The volume group's exclusive lock; the session may take it again inside. RefusedError on
        a host that may only look, or (`for_devices`) only make devices active or not. BusyError
        behind `patience` in seconds, if it is given."""
        if self._held.get(vg_name):
            yield
            return
        if self.host.read_only:
            if not (for_devices and self.host.activates):
                raise RefusedError(
                    f"{_READ_ONLY}\nCan't get lock for {vg_name}.\n"
                    f"Cannot process volume group {vg_name}"
                )
            self.warn("Allowing activation with --readonly --sysinit.")
        with vg_lock(self.host, vg_name, exclusive=True, patience=patience):
            self._held[vg_name] = 1
            try:
                yield
            finally:
                self._let_go(vg_name)

    @contextmanager
    def lock_global(self) -> Iterator[None]:
        """The lock over the devices file and the PVs in no VG; before any VG's."""
        if self._held.get(""):
            yield
            return
        if self.host.read_only:
            raise RefusedError(_READ_ONLY)
        with global_lock(self.host, exclusive=True):
            self._held[""] = 1
            try:
                yield
            finally:
                self._let_go("")

    def _let_go(self, name: str) -> None:
        """Behind the last of the locks a signal that was held back takes effect."""
        del self._held[name]
        if not self._held:
            self._signals.let_go()

    def hold_signals(self) -> None:
        """What comes now is not to be cut short, nor what follows under the locks that are held."""
        assert self._held
        self._signals.hold()

    def vg_for_change(
        self, vg_name: str, *, exported: bool = False, settle: bool = False
    ) -> VolumeGroup:
        """The VG as it is now; its lock is held. What a command that died left suspended is
        brought to the metadata first. RefusedError for an exported VG unless that is wanted, and
        for one of which PVs have different metadata unless `settle`."""
        from ulvm.vgstore.checks import check_settled

        vg = self.find_vg(vg_name)
        if not settle:
            check_settled(self.last_scan, vg)
        if "EXPORTED" in vg.status and not exported:
            raise RefusedError(f"Volume group {vg_name} is exported")
        self.group = self.group or vg
        self.repair(vg)
        return vg

    def repair(self, vg: VolumeGroup) -> None:
        """Finish what a command that died began. The VG's lock is held, so none is at work. A
        snapshot that the metadata do not know any more still writes to its extents, which are
        free. On trial the devices are not those of the metadata; and where PVs have different
        metadata they may be those of the other."""
        dm = self.dm_if_running
        if dm is None or self.host.trial or vg.uuid in self.last_scan.differing:
            return
        devices = dm.devices()
        if self._half_way(vg, devices) or strays(vg, devices):
            self.warn(f"Volumes of {vg.name} were left half-way; bringing them to the metadata.")
            try:
                self.activator.refresh(vg)
            except UlvmError as error:
                # Through one without a table nothing is written, and a change of its tree loads it,
                # or is refused.
                if any(info.live_table for info in self._half_way(vg, dm.devices())):
                    raise
                self.warn(error.message)

    @staticmethod
    def _half_way(vg: VolumeGroup, devices: Iterable[DeviceInfo]) -> list[DeviceInfo]:
        """Those of the VG that are not as a command leaves them."""
        prefix, known = dm_uuid(vg.uuid, ""), {dm_uuid(vg.uuid, lv.uuid) for lv in vg.lvs}
        return [
            info
            for info in devices
            if info.uuid.startswith(prefix)
            and (info.suspended or not info.live_table or volume_of(info.uuid) not in known)
        ]

    def change_vg(
        self,
        vg_name: str,
        edit: Callable[[VolumeGroup], VolumeGroup],
        *,
        start_merge: bool = False,
        allow_missing: bool = False,
        exported: bool = False,
        mend: bool = False,
        settle: bool = False,
        ignore: Mapping[str, bool] | None = None,
        relabel: Mapping[str, str] | None = None,
        frees: bool = True,
        take_back: bool = False,
        before_commit: Callable[[VolumeGroup], None] = lambda vg: None,
        when_suspended: Callable[[], None] = lambda: None,
    ) -> Change:
        """Lock, scan, edit, commit around the swap of tables.

        `before_commit` gets the new VG when nothing counts yet (to wipe extents, say). Whatever
        is raised up to the commit has changed nothing. `when_suspended` is called right before it,
        when what changes rests, and may refuse. `exported`: the VG may be exported.
        `mend`: damaged metadata areas are written anew. `settle`: PVs may have different metadata.
        `ignore`: by PV, whether its metadata areas are out of use from now on; `relabel`: new UUIDs
        of PVs by the old ones, which `edit` has put in the VG. `frees` False: extents that the new
        VG does not use keep what is in them, whatever the settings say. `take_back`: the new VG may
        have PVs that the VG has gone on without.
        """
        # Not for those who only look.
        from ulvm.activation.activate import SwapReport
        from ulvm.vgstore.checks import check_change, check_complete
        from ulvm.vgstore.commit import prepare

        with self.lock(vg_name):
            old = self.vg_for_change(vg_name, exported=exported, settle=settle)
            if not allow_missing:
                check_complete(old)
            new = edit(old)
            if take_back:
                self._scan = self.last_scan.with_outdated(new)
            found = self.last_scan
            check_change(
                found, old, new, allow_missing=allow_missing, exported=exported, settle=settle
            )
            before_commit(new)
            renamed: list[tuple[PvDevice, PvDevice]] = []
            if relabel:
                before, found = found, found.relabelled(relabel)
                renamed = [
                    (pv, after)
                    for pv, after in zip(before.pvs, found.pvs, strict=True)
                    if pv.uuid != after.uuid
                ]
                self._scan = found
            self.hold_signals()
            pending = prepare(
                self.host,
                found,
                old,
                new,
                command=self.command_line,
                allow_missing=allow_missing,
                exported=exported,
                exclusive=not self.holds(old),
                mend=mend,
                settle=settle,
                ignore=ignore,
                relabel=renamed,
                warn=self.warn,
                verbose=self.verbose,
            )
            committed = False

            def commit() -> None:
                nonlocal committed
                when_suspended()
                pending.commit(back_up=False)
                committed = True

            report = SwapReport()
            try:
                activator = self.activator_if_running
                with self._words.kept():
                    try:
                        if activator is None:
                            commit()
                        else:
                            report = activator.swap(
                                old, pending.vg, commit, start_merge=start_merge
                            )
                    finally:
                        if committed:
                            pending.back_up()
            except BaseException:
                if committed:
                    self.warn(
                        f"WARNING: Volume group {vg_name} has changed, its devices may not have."
                    )
                else:
                    pending.revert()
                raise
            for name in report.left:
                self.warn(f"WARNING: {name} is still open; it answers with errors until closed.")
            discards = self.host.config.get_bool("devices/issue_discards", False)
            if discards and frees and not self.host.trial:
                from ulvm.lvm.discards import discard_freed

                discard_freed(old, pending.vg, found.path_of, self.host.opener, self.warn)
            return Change(pending.vg, report)
