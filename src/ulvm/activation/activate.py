"""From the dm devices that are there to those that a volume group wants, in a safe order.

One path serves every change of a volume that is active (`swap`):

1. new lower devices (-real, -cow), and such without a table, are made live at once, since
   nobody can use them yet;
2. all other tables are loaded into inactive slots, where a refusal harms nothing;
3. suspend, from the top down: the origin first (its file systems frozen when a snapshot is
   being taken), then snapshots, then lower devices; what was written and what the devices below
   refuse is known then, and nothing goes on if a table or a snapshot that comes would lack it;
4. the metadata are committed;
5. resume, from the bottom up, snapshots before their origin, but a snapshot that is being
   merged after it; an origin whose snapshot refuses stays suspended;
6. what the new metadata do not know is removed, what has another name is renamed.

Crash argument. Metadata are the truth and devices follow them. Up to 4 any failure takes the
steps back: inactive tables are cleared, what was suspended is resumed, what was made is removed.
From 4 on the new tables are what counts: no write reaches the origin between 3 and 5, and in 5
a new snapshot is live before the first write can be. If this process or the daemon dies after
3, the devices stay suspended until `refresh` has compared them with the metadata that are
committed, old or new, and has done what is left of 1 to 6. So no write is ever let through
with tables that do not fit the metadata.

A move (pvmoveN) copies from the moment its device is live, and writes must reach both its sides
from then on. So it is no lower device of step 1 while a volume that is to stand on it is active:
it is resumed in 5, when those are suspended. One that goes is suspended in 3, so that it does not
write to extents that are free after 4.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Container, Iterable, Sequence

from ulvm.activation.compare import ABSENT, changed_roots, roots, table_differs, with_numbers
from ulvm.activation.families import families, standing
from ulvm.activation.mend import rename_all, rename_strays, resume_kept
from ulvm.activation.names import dm_uuid, is_top_level, split_dm_name, volume_of
from ulvm.activation.order import depth, origin_layer, removal_order, to_suspend
from ulvm.activation.plan import (
    PathOf,
    PlannedDevice,
    Rank,
    plan_tree,
    root_of,
    tree_members,
    tree_stack,
)
from ulvm.activation.report import SwapReport, noted, raise_all
from ulvm.activation.states import LvState, by_uuid, lv_states
from ulvm.dm_ioctl import DM_MAJOR, DM_NAME_MAX, DeviceInfo, DeviceMapper
from ulvm.errors import (
    BusyError,
    DeviceError,
    NotFoundError,
    RefusedError,
    TableError,
    UlvmError,
)
from ulvm.metadata.model import LogicalVolume, VolumeGroup

__all__ = ["Activator", "SwapReport"]


class Activator:
    """Works on one `DeviceMapper`; its caller holds the volume group's lock. `view` makes of a
    VG's metadata what its volumes are activated by; `filler`: what stands in for missing PVs."""

    def __init__(
        self,
        dm: DeviceMapper,
        path_of: PathOf,
        *,
        view: Callable[[VolumeGroup], VolumeGroup] = lambda vg: vg,
        filler: str = "error",
    ) -> None:
        self._dm = dm
        self._path_of = path_of
        self._view = view
        self._filler = filler

    def _planned(
        self, vg: VolumeGroup, root: LogicalVolume, *, merging: bool, partial: bool = False
    ) -> tuple[PlannedDevice, ...]:
        seen = self._view(vg)
        return plan_tree(
            seen,
            root_of(seen, root.name),
            self._path_of,
            merging=merging,
            partial=partial,
            filler=self._filler,
        )

    # -- asking -----------------------------------------------------------------------------

    def _by_uuid(self) -> dict[str, DeviceInfo]:
        return by_uuid(self._dm)

    def is_active(self, vg: VolumeGroup, lv_name: str) -> bool:
        """Whether the volume's own device is there."""
        lv = vg.lv(lv_name)
        return lv is not None and dm_uuid(vg.uuid, lv.uuid) in self._by_uuid()

    def state(self, vg: VolumeGroup, lv_name: str) -> LvState | None:
        """None for an inactive volume."""
        return self.states(vg, [lv_name]).get(lv_name)

    def states(self, vg: VolumeGroup, names: Iterable[str] | None = None) -> dict[str, LvState]:
        """As `activation.states` has them."""
        return lv_states(self._dm, vg, names)

    # -- activate and deactivate ------------------------------------------------------------

    def activate(self, vg: VolumeGroup, lv_name: str, *, partial: bool = False) -> None:
        """Make the devices of the volume's tree, or bring those that are there to the metadata.
        RefusedError for a missing PV unless `partial`; on failure nothing new is left."""
        root = root_of(vg, lv_name)
        present = self._by_uuid()
        begins = dm_uuid(vg.uuid, root.uuid) not in present and not self._in_use(vg, root, present)
        merging = begins or self._merges(vg, root)
        planned = self._planned(vg, root, merging=merging, partial=partial)
        try:
            self._change(planned, [], present, lambda: None)
        except UlvmError:
            self._remove_made([d.uuid for d in planned if d.uuid not in present])
            raise

    def deactivate(self, vg: VolumeGroup, lv_name: str) -> None:
        """Remove the devices of the volume's tree. BusyError, and nothing changed, when one is
        open; of a snapshot that is opened just now the origin is gone by then, until somebody
        activates it. Works with missing PVs."""
        present = self._by_uuid()
        members = tree_members(vg, lv_name)
        for lv in reversed(members):
            info = present.get(dm_uuid(vg.uuid, lv.uuid))
            if info is not None and info.open_count:
                raise BusyError(f"Logical volume {vg.name}/{lv.name} in use.")
        for info in removal_order(vg, members, present):
            try:
                self._dm.remove(info.uuid)
            except NotFoundError:
                continue
        self._remove_unused_moves(vg)

    def _remove_unused_moves(self, vg: VolumeGroup) -> None:
        """A move nothing active stands on any more is interrupted."""
        if not (moves := vg.pvmoves()):
            return
        present = self._by_uuid()
        for move in moves:
            for lv in (move, *reversed(vg.lower_lvs(move))):
                uuid = dm_uuid(vg.uuid, lv.uuid)
                if uuid in present and not self._dm.info(uuid).open_count:
                    self._dm.remove(uuid)

    # -- swap -------------------------------------------------------------------------------

    def swap(
        self,
        old: VolumeGroup,
        new: VolumeGroup,
        commit: Callable[[], object],
        *,
        start_merge: bool = False,
    ) -> SwapReport:
        """Bring what is active of `old` to what `new` wants, with `commit` in the middle.

        Volumes that are not active stay so. `start_merge`: a merge that `new` holds begins now;
        else it waits for the next activation, if it is not under way. Whatever is raised before
        `commit` returned has left the devices as they were.
        """
        present = self._by_uuid()
        changed = changed_roots(old, new)
        wanted = self._wanted(new, changed, present, start_merge)
        gone = self._gone(old, new, wanted, present)
        self._check_names(new, wanted, gone, present)
        moves = {dm_uuid(old.uuid, move.uuid) for move in old.pvmoves()}
        stopped = [info for info in gone if info.uuid in moves]
        return self._change(wanted, gone, present, commit, stopped)

    def refresh(self, vg: VolumeGroup, *, start_merges: Container[str] = ()) -> SwapReport:
        """Bring all that is active to the committed metadata, and resume what is suspended:
        what is left to do when a command died in the middle of a swap. A tree with a missing PV
        keeps its tables. What fails in one family of trees is raised when all others are done.
        `start_merges`: origins and snapshots whose merge begins if it waited for them to be closed,
        and they are."""
        failures: list[UlvmError] = []
        rename_strays(self._dm, vg, failures)
        present = self._by_uuid()
        wanted: dict[str, PlannedDevice] = {}
        partial: list[tuple[LogicalVolume, list[str]]] = []
        together: list[list[str]] = []
        for root in roots(vg):
            try:
                merge = any(lv.name in start_merges for lv in tree_members(vg, root.name))
                merge = merge and not self._in_use(vg, root, present)
                found = self._wanted(vg, [root], present, merge)
            except RefusedError:
                stack = [dm_uuid(vg.uuid, v.uuid) for v in tree_stack(vg, root.name)]
                partial.append((root, stack))
                continue
            for device in found:
                wanted.setdefault(device.uuid, device)  # A move has many users.
            together.append([d.uuid for d in found])
        prefix = dm_uuid(vg.uuid, "")
        ours = [info for info in present.values() if info.uuid.startswith(prefix)]
        kept: set[str] = set()
        for root, stack in partial:
            kept.update(stack)
            # A move that others have, too, may be whole.
            tops = tuple(uuid for uuid in stack if uuid not in wanted)
            self._keep(vg, root, tops, present, failures)
        gone = [i for i in ours if i.uuid not in wanted and volume_of(i.uuid) not in kept]
        # Tops before their layers, and moves after what stood on them.
        gone.sort(key=lambda info: (depth(info), len(info.uuid)))
        together += standing(self._dm, ours)
        report = SwapReport()
        for family in families(list(wanted.values()), gone, together):
            with noted(failures):
                report.add(self._change(family.wanted, family.gone, present, lambda: None))
        raise_all(failures)
        return report

    def _keep(
        self,
        vg: VolumeGroup,
        root: LogicalVolume,
        tops: tuple[str, ...],
        present: dict[str, DeviceInfo],
        failures: list[UlvmError],
    ) -> None:
        """Resume what is suspended of a tree with a missing PV, the volumes `tops` and their
        layers, with the tables that it has: those that a command that died left inactive if its
        metadata count, the live ones if not."""
        seen = self._view(vg)
        planned: tuple[PlannedDevice, ...] = ()
        with contextlib.suppress(RefusedError):  # It was another reason.
            planned = plan_tree(
                seen,
                root_of(seen, root.name),
                lambda uuid: self._path_of(uuid) or ABSENT,
                merging=self._merges(vg, root),
            )
        numbers = self._numbers(planned, present)
        ours = {uuid: info for uuid, info in present.items() if uuid.startswith(tops)}
        resume_kept(self._dm, planned, ours, numbers, failures)

    @staticmethod
    def _in_use(vg: VolumeGroup, root: LogicalVolume, present: dict[str, DeviceInfo]) -> bool:
        """Whether the root, or the snapshot that is to be merged into it, is open."""
        merging = vg.merging_snapshot_of(root.name)
        cow = vg.lv(merging.cow) if merging else None
        infos = [present.get(dm_uuid(vg.uuid, lv.uuid)) for lv in (root, cow) if lv is not None]
        return any(info is not None and info.open_count for info in infos)

    def _merges(self, vg: VolumeGroup, root: LogicalVolume) -> bool:
        """Whether the root's live table is a merge's."""
        if vg.merging_snapshot_of(root.name) is None:
            return False
        try:
            table = self._dm.table(dm_uuid(vg.uuid, root.uuid))
        except NotFoundError:
            return False
        return bool(table) and table[0].target_type == "snapshot-merge"

    def _wanted(
        self,
        vg: VolumeGroup,
        roots: Iterable[LogicalVolume],
        present: dict[str, DeviceInfo],
        start_merge: bool,
    ) -> list[PlannedDevice]:
        """The devices of those trees of which something is active. RefusedError if a PV is
        missing: tables that serve with what they hold open are not replaced by errors."""
        wanted: list[PlannedDevice] = []
        for root in roots:
            members = tree_members(vg, root.name)
            if not any(dm_uuid(vg.uuid, lv.uuid) in present for lv in members):
                continue
            merging = start_merge or self._merges(vg, root)
            known = {d.uuid for d in wanted}
            planned = self._planned(vg, root, merging=merging)
            wanted += [d for d in planned if d.uuid not in known]  # A move has many users.
        return wanted

    def _check_names(
        self,
        new: VolumeGroup,
        wanted: Sequence[PlannedDevice],
        gone: Sequence[DeviceInfo],
        present: dict[str, DeviceInfo],
    ) -> None:
        """BusyError if a name that a device is to have is another's, and stays that; RefusedError
        if none can have it. Names change when all is committed."""
        renamed = [d for d in wanted if d.uuid in present and present[d.uuid].name != d.name]
        if not renamed:
            return
        leaving = {*(d.uuid for d in renamed), *(info.uuid for info in gone)}
        taken = {info.name for info in self._dm.devices() if info.uuid not in leaving}
        for device in renamed:
            if len(device.name) > DM_NAME_MAX:
                raise RefusedError(
                    f"Logical volume {new.name}/{device.lv} cannot have this name: "
                    f"that of its device, {device.name}, would be too long."
                )
            if device.name in taken:
                raise BusyError(
                    f"Logical volume {new.name}/{device.lv} cannot have this name: "
                    f"there is another device {device.name} already."
                )

    def _gone(
        self,
        old: VolumeGroup,
        new: VolumeGroup,
        wanted: Sequence[PlannedDevice],
        present: dict[str, DeviceInfo],
    ) -> list[DeviceInfo]:
        """Devices that are not wanted any more, in order of removal: those of volumes that `new`
        has not, and layers in the trees that change. BusyError if one is open from outside."""
        uuids = {d.uuid for d in wanted}
        planned = {d.lv for d in wanted}
        after = {v.uuid: v.name for v in new.lvs}
        members = [v for v in old.lvs if after.get(v.uuid) is None or after[v.uuid] in planned]
        order = removal_order(old, members, present)
        gone = [info for info in order if info.uuid not in uuids]
        for info in gone:
            if info.open_count and is_top_level(info.uuid) and not depth(info):
                raise BusyError(f"Logical volume {'/'.join(split_dm_name(info.name)[:2])} in use.")
        return gone

    def _change(
        self,
        wanted: Sequence[PlannedDevice],
        gone: Sequence[DeviceInfo],
        present: dict[str, DeviceInfo],
        commit: Callable[[], object],
        stopped: Sequence[DeviceInfo] = (),
    ) -> SwapReport:
        """`stopped`: those of `gone` that work by themselves, and have to rest before `commit`."""
        report = SwapReport()
        numbers = self._numbers(wanted, present)
        new = [d for d in wanted if d.uuid not in present]
        made: list[str] = []
        loaded: list[PlannedDevice] = []
        suspended: list[PlannedDevice] = []
        unwritten: list[PlannedDevice] = []
        by_rank = sorted(wanted, key=lambda d: d.rank)
        at_once = {Rank.MISSING, Rank.IMAGE, Rank.LOWER}
        if not any(d.uuid in present for d in wanted if d.rank >= Rank.LOWER):
            at_once.add(Rank.MOVE)
        begun = 0.0
        try:
            for device in wanted:
                if device.uuid in present and present[device.uuid].inactive_table:
                    # Of a command that died. A snapshot's would stand in the way of its like.
                    self._dm.clear(device.uuid)
            for device in new:
                self._create(device, numbers)
                made.append(device.uuid)
            for device in by_rank:
                # Without a live table: one that the daemon could not bring back.
                fresh = device.uuid not in present or not present[device.uuid].live_table
                if fresh or table_differs(self._dm, device, present[device.uuid], numbers):
                    self._load(device, numbers)
                    if fresh and device.rank in at_once:
                        self._dm.resume(device.uuid)
                    else:
                        loaded.append(device)
            begun = time.monotonic()
            for device in to_suspend(by_rank, loaded, gone, present):
                freeze = device.rank is Rank.ORIGIN and any(d.rank is Rank.SNAPSHOT for d in new)
                suspended.append(device)
                info = self._dm.suspend(device.uuid, lockfs=freeze)
                report.frozen += info.frozen
                report.synced += info.synced
                if info.unwritten:
                    unwritten.append(device)
            for info in stopped:
                self._dm.suspend(info.uuid, lockfs=False)
            self._check_written(unwritten, loaded, present)
            commit()
        except BaseException:
            for info in stopped:
                with contextlib.suppress(UlvmError):
                    self._dm.resume(info.uuid)
            self._take_back(suspended, loaded, made)
            raise
        self._finish(by_rank, loaded, suspended, present)
        report.suspended_seconds = time.monotonic() - begun if suspended else 0.0
        self._remove_gone(gone, report)
        names = {d.uuid: d.name for d in wanted if d.uuid in present}
        raise_all(rename_all(self._dm, names, present))
        return report

    @staticmethod
    def _check_written(
        unwritten: Sequence[PlannedDevice],
        loaded: Sequence[PlannedDevice],
        present: dict[str, DeviceInfo],
    ) -> None:
        """DeviceError if what waits in memory would be lost with a table that goes, or would be
        missing in a snapshot that comes. Whoever only waits for others to go may keep it."""
        changed = {d.uuid for d in loaded}
        coming = {
            origin_layer(d)
            for d in loaded
            if d.rank is Rank.SNAPSHOT and not (d.uuid in present and present[d.uuid].live_table)
        }
        for device in unwritten:
            if device.uuid in changed or origin_layer(device) in coming:
                raise DeviceError(
                    f"Logical volume {split_dm_name(device.name)[0]}/{device.lv} stays as it is:"
                    " what was written to it waits in memory, as the devices below refuse it."
                )

    def _take_back(
        self,
        suspended: Sequence[PlannedDevice],
        loaded: Sequence[PlannedDevice],
        made: Sequence[str],
    ) -> None:
        for device in loaded:
            with contextlib.suppress(UlvmError):
                self._dm.clear(device.uuid)
        for device in reversed(suspended):
            # The last one may have failed to suspend; then resume does nothing.
            with contextlib.suppress(UlvmError):
                self._dm.resume(device.uuid)
        self._remove_made(made)

    def _finish(
        self,
        by_rank: Sequence[PlannedDevice],
        loaded: Sequence[PlannedDevice],
        suspended: Sequence[PlannedDevice],
        present: dict[str, DeviceInfo],
    ) -> None:
        """Resume all that waits. A device that refuses must not keep others from going on, but for
        the origin of a snapshot: what is written would be missing there, and it would be taken for
        whole. Such an origin waits for `refresh`. The first error is raised when all have been
        asked."""
        waiting = {d.uuid for d in (*loaded, *suspended)}
        waiting |= {uuid for uuid, info in present.items() if info.suspended}
        failure: UlvmError | None = None
        unguarded: set[str] = set()
        for device in by_rank:
            if device.uuid not in waiting:
                continue
            if device.rank is Rank.ORIGIN and origin_layer(device) in unguarded:
                continue
            try:
                self._dm.resume(device.uuid)
            except UlvmError as error:
                failure = failure or error
                if device.rank is Rank.SNAPSHOT:
                    unguarded.add(origin_layer(device))
        if failure is not None:
            raise failure

    def _remove_gone(self, gone: Sequence[DeviceInfo], report: SwapReport) -> None:
        for info in gone:
            try:
                self._dm.remove(info.uuid, force=True)
            except NotFoundError:
                continue
            except BusyError:
                report.left.append(info.name)

    # -- steps ------------------------------------------------------------------------------

    @staticmethod
    def _numbers(
        planned: Sequence[PlannedDevice], present: dict[str, DeviceInfo]
    ) -> dict[str, str]:
        """major:minor by planned name: names may change in the same swap, numbers do not."""
        return {d.name: f"{DM_MAJOR}:{present[d.uuid].minor}" for d in planned if d.uuid in present}

    def _create(self, device: PlannedDevice, numbers: dict[str, str]) -> None:
        # Whether it can be written is its table's matter: the next table may be another.
        info = self._dm.create(device.name, device.uuid, minor=device.minor)
        numbers[device.name] = f"{info.major}:{info.minor}"

    def _load(self, device: PlannedDevice, numbers: dict[str, str]) -> None:
        table = [with_numbers(line, numbers) for line in device.table]
        try:
            self._dm.load(device.uuid, table, read_only=device.read_only)
        except TableError as error:
            raise TableError(
                f"device-mapper: reload ioctl on {device.name} failed: {error.message}",
                errno=error.errno,
            ) from error

    def _remove_made(self, made: Sequence[str]) -> None:
        for uuid in reversed(made):
            with contextlib.suppress(UlvmError):
                self._dm.remove(uuid)
