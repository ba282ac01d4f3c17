"""The commit of a volume group's metadata: the old ones or the new ones, whole.

    prepare   1. checks  2. archive of the old VG  3. seqno + 1  4. PV headers of PVs that join
              5. the text into the free part of every ring  6. flush
              7. headers with slot 1 = the new text  8. flush
              9. labels of PVs that get another UUID
    (the caller loads tables and suspends)
    commit    10. headers with slot 0 = the new text  11. flush
              12. headers of areas that go out of use, with the mark of that; damage is mended
              13. PVs that left the VG are made orphans
    (the caller resumes)
    back_up   14. backup file; it may lie on a file system that is frozen while what is under it is
              suspended

A flush here is that of the step before it alone: it is written with FUA (`_write`).

Crash argument. Until the first header of 10 is on disk no reader sees the new text: 5 never touches
the bytes of the committed one, slot 1 is not read, and a header is one sector, which a disk
writes whole. After it the highest seqno wins everywhere, and areas that still
hold the old text are said to be old and are brought up to date by the next commit. A failure in
4 to 9 is taken back by `revert`; what a crash leaves in slot 1 is overwritten next time.
A PV that joins is marked as used before any metadata name it, and one that leaves is marked as
free after none does: between the two it is refused to others, never lost.

An area that fails in 10 is left behind and told; the commit stands if one header was written.
If all fail the change is refused and taken back; a header whose flush failed may still be on the
disk, and the revert that follows writes over it. Once one is written, whatever else fails is told
and no more, and `revert` does nothing: the PVs that left are free by then.

A PV that gets another UUID is not in the old text after 9 and not known under its old UUID, so the
VG has a missing PV until 10. Slot 1 of every area holds the text that names it: `prepare` with that
text (`vgstore.precommit`) goes on from there, and no other command will take the PV, which is
marked as used. An area that goes out of use gets the text like the others, and its mark from 12 on:
after the others have the text. At least one area stays in use (vgstore/copies.py). A VG that gets
another UUID is known by its name and its PVs meanwhile (`newest.same_group`).

Each area in use gets the same bytes. Areas that are marked as ignored, and those whose header or
text is damaged, are not written to. `mend` (vgck --updatemetadata) writes those, too, text before
header, when the others hold the new text: nothing in them counted, so nothing is lost where that is
cut short. Not where the header has not even its name and place: the label may then point at what
is no metadata area. The label of a PV that leaves names its damaged areas no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ulvm.errors import DeviceError, RefusedError, UlvmError
from ulvm.faultpoints import reach
from ulvm.metadata.check import check_name_lengths, check_vg
from ulvm.metadata.label import DiskLocn
from ulvm.metadata.mda import (
    MAX_TEXT,
    MDA_HEADER_SIZE,
    Damage,
    MdaHeader,
    RawLocn,
    max_text,
    next_offset,
    ring_write,
    room_beside,
)
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.text import TextHeader, vg_to_text
from ulvm.units import SECTOR
from ulvm.vgstore.archive import archive_vg, backup_vg, backup_words, remove_backup
from ulvm.vgstore.checks import check_change, check_members, claim
from ulvm.vgstore.copies import areas_in_use
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import MdaCopy, PvDevice, Scan

_NOT_MENDED = Damage.READ | Damage.MAGIC | Damage.START

__all__ = [
    "Pending",
    "check_size",
    "free_outdated",
    "ignore_areas",
    "prepare",
    "remove_vg",
    "text_of",
    "write_label",
    "write_to",
]


@dataclass
class _Area:
    """One metadata area on its way through a commit."""

    pv: PvDevice
    header: MdaHeader
    before: MdaHeader
    locn: RawLocn = field(default_factory=RawLocn)


class Pending:
    """A change that is written and not yet seen. One of `commit` and `revert` ends it."""

    def __init__(
        self,
        host: Host,
        scan: Scan,
        old: VolumeGroup | None,
        new: VolumeGroup,
        *,
        command: str,
        warn: Callable[[str], None],
        verbose: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.vg = new
        self._host = host
        self._scan = scan
        self._old = old
        self._command = command
        self._warn = warn
        self._verbose = verbose
        self._areas: list[_Area] = []
        self._retired: list[_Area] = []
        self._data = b""
        self._joined: list[PvDevice] = []
        self._relabelled: list[PvDevice] = []
        self.regroup = False
        self.mend = False
        self.copies = 0
        self.ignore: Mapping[str, bool] = {}
        self.relabel: Sequence[tuple[PvDevice, PvDevice]] = ()
        self._stands = False

    def _write_ahead(self) -> None:
        """Steps 4 to 9."""
        vg = self.vg
        if self._old is not None:
            for pv in self._scan.pvs_of(vg):
                for mda in pv.areas:
                    if mda.vg is not None and mda.vg.seqno < self._old.seqno:
                        self._warn(
                            f"WARNING: updating old metadata to {vg.seqno} on {pv.path} "
                            f"for VG {vg.name}."
                        )
        data = self._data = text_of(self._host, vg, self._command)
        used, unused = areas_in_use(self._scan.pvs_of(vg), self.copies, self.ignore)
        retired = [(pv, mda) for pv, mda in unused if not mda.ignored]
        for pv, mda in (*used, *retired):
            assert mda.header is not None
            header = mda.header.with_ignored(False) if mda.ignored else mda.header
            check_size(vg, pv.path, header, data)
            areas = self._retired if (pv, mda) in retired else self._areas
            areas.append(_Area(pv, header, mda.header))
        if not self._areas:
            raise RefusedError("Aborting vg_write: No metadata areas to write to!")
        for pv in self._scan.pvs_of(vg):
            if not pv.in_use:
                if self._old is not None and self._old.pv(pv.uuid) is not None:
                    self._warn(f"WARNING: updating PV header on {pv.path} for VG {vg.name}.")
                self._joined.append(pv)
                write_label(self._host, pv, in_use=True)
        for area in (*self._retired, *self._areas):
            offset = next_offset(area.header.size, area.header.current)
            area.locn = RawLocn.of_text(offset, data)
            _write_text(self._host, area.pv.path, area.header, offset, data)
        for area in (*self._retired, *self._areas):
            _write_header(self._host, area, area.header.with_precommit(area.locn))
        for old, new in self.relabel:
            self._relabelled.append(old)
            write_label(self._host, new, in_use=True)

    def commit(self, *, back_up: bool = True) -> VolumeGroup:
        """Make the new metadata the ones that count. DeviceError if no area could be written:
        then the old ones still count, and the change is taken back. Without `back_up` the caller
        calls it."""
        failures: list[str] = []
        for area in self._areas:
            try:
                _write_header(self._host, area, area.header.with_commit(area.locn))
                self._stands = True
            except Exception as error:
                failures.append(_words(error))
        if not self._stands:
            self.revert()
            raise DeviceError(f"Failed to commit VG {self.vg.name}: {failures[0]}")
        for failure in failures:
            self._warn(f"WARNING: {failure}")
        for area in self._retired:
            retired = area.header.with_commit(area.locn).with_ignored(True)
            self._try(partial(_write_header, self._host, area, retired))
        if self.mend:
            self._try(self._mend)
        self._free_those_that_left()
        if back_up:
            self.back_up()
        return self.vg

    def _mend(self) -> None:
        """Metadata into the damaged areas of the VG's PVs, so far as these are what they should."""
        for pv in self._scan.pvs_of(self.vg):
            for mda in pv.mdas:
                if not mda.damage:
                    continue
                which = f"mda{mda.number} at {mda.offset} on {pv.path}"
                if mda.damage & _NOT_MENDED:
                    self._warn(
                        f"WARNING: not repairing bad metadata ({mda.damage:#x}) for "
                        f"mda{mda.number} on {pv.path}"
                    )
                    continue
                self._warn(f"WARNING: repairing bad metadata ({mda.damage:#x}) in {which}.")
                try:
                    self._rewrite(pv, mda)
                except Exception as error:
                    self._warn(
                        f"{_words(error)}\nWARNING: failed to write VG {self.vg.name} metadata "
                        f"to bad {which}."
                    )

    def _rewrite(self, pv: PvDevice, mda: MdaCopy) -> None:
        header = (mda.header or MdaHeader(mda.offset, mda.size)).cleared()
        check_size(self.vg, pv.path, header, self._data)
        offset = next_offset(header.size, header.current)
        _write_text(self._host, pv.path, header, offset, self._data)
        header = header.with_commit(RawLocn.of_text(offset, self._data))
        _write(self._host, pv.path, [(header.start, header.pack())])

    def _free_those_that_left(self) -> None:
        """Step 13. The change stands: what fails here is told and no more."""
        if self._old is None or self.regroup:
            return
        stay = {pv.uuid for pv in self.vg.pvs}
        for pv in self._scan.pvs_of(self._old):
            if pv.uuid not in stay:
                self._try(partial(_make_orphan, self._host, pv))

    def back_up(self) -> None:
        """Step 14, likewise."""
        if self._old is not None and self._old.name != self.vg.name:
            self._try(partial(remove_backup, self._host, self._old.name))
        self._try(self._back_up)

    def _back_up(self) -> None:
        path = backup_vg(self._host, self.vg, self._command)
        if path is None:
            self._warn("WARNING: This metadata update is NOT backed up.")
        else:
            self._verbose(backup_words(self._host, path, self.vg))

    def revert(self) -> None:
        """Forget the change, if that was not done yet and it does not stand. What cannot be taken
        back is told; it hinders no reader."""
        if self._stands:
            return
        for area in (*self._retired, *self._areas):
            if not area.locn.empty:
                self._try(partial(_write_header, self._host, area, area.before.with_revert()))
        for pv in self._relabelled:
            self._try(partial(write_label, self._host, pv, in_use=True))
        for pv in self._joined:
            self._try(partial(write_label, self._host, pv, in_use=False))
        self._areas, self._retired, self._relabelled, self._joined = [], [], [], []

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._warn(f"WARNING: {_words(error)}")


def _words(error: Exception) -> str:
    return error.message if isinstance(error, UlvmError) else str(error) or type(error).__name__


def prepare(
    host: Host,
    scan: Scan,
    old: VolumeGroup | None,
    new: VolumeGroup,
    *,
    command: str,
    allow_missing: bool = False,
    exclusive: bool = False,
    regroup: bool = False,
    exported: bool = False,
    mend: bool = False,
    settle: bool = False,
    ignore: Mapping[str, bool] | None = None,
    relabel: Sequence[tuple[PvDevice, PvDevice]] = (),
    warn: Callable[[str], None] = lambda text: None,
    verbose: Callable[[str], None] = lambda text: None,
) -> Pending:
    """Steps 1 to 9: everything that may be refused or fail, before anything counts.

    `old` is None for a new VG. `allow_missing`: for what LVM allows while PVs are missing.
    `exclusive`: nobody may have the PVs open for writing (no daemon of ours has them);
    never those that join.
    `regroup`: PVs come from another VG or have gone to one, whose text they hold.
    `exported`: for what LVM allows with an exported VG. `mend`: damaged areas are written anew.
    `settle`: what is written counts from now on where PVs have different metadata.
    `ignore`: by PV, whether its areas are to be out of use from now on. `relabel`: PVs as they are
    and as they will be; `scan` and `new` have them as they will be.
    RefusedError, BusyError, DeviceError: nothing has changed then.
    """
    check_change(
        scan, old or new, new, allow_missing=allow_missing, exported=exported, settle=settle
    )
    if not regroup and old is not None:
        check_members(scan, old)
    # A member whose header lacks the mark, an older LVM2's, may be open for the volumes on it.
    members = {pv.uuid for pv in old.pvs} if old is not None else set()
    claim(pv for pv in scan.pvs_of(new) if exclusive or not (pv.in_use or pv.uuid in members))
    if old is not None:
        _archive(host, old, command, verbose)
    copies = new.metadata_copies
    new = _stamped(scan, new)._replace(metadata_copies=max(copies, 0))
    check_vg(new)
    check_name_lengths(new, old)
    pending = Pending(host, scan, old, new, command=command, warn=warn, verbose=verbose)
    pending.regroup = regroup
    pending.mend = mend
    pending.copies = copies
    pending.ignore = ignore or {}
    pending.relabel = relabel
    try:
        pending._write_ahead()
    except BaseException:
        pending.revert()
        raise
    return pending


def remove_vg(
    host: Host,
    scan: Scan,
    vg: VolumeGroup,
    *,
    command: str,
    exclusive: bool = False,
    warn: Callable[[str], None] = lambda text: None,
    verbose: Callable[[str], None] = lambda text: None,
) -> None:
    """vgremove: clear both slots of every area, then make the PVs orphans; texts stay where they
    are. A crash in between leaves PVs that are marked as used or the whole VG, never half.
    `exclusive` as for `prepare`."""
    check_change(scan, vg, vg, allow_missing=True, exported=False)
    check_members(scan, vg)
    if exclusive:
        claim(scan.pvs_of(vg))
    _archive(host, vg, command, verbose)
    members = scan.pvs_of(vg)
    for pv in members:
        verbose(f'Removing physical volume "{pv.path}" from volume group "{vg.name}"')
        _clear_areas(host, pv)
    for pv in members:
        _free_label(host, pv)
    try:
        remove_backup(host, vg.name)
    except UlvmError as error:
        warn(f"WARNING: {error.message}")


def _archive(host: Host, vg: VolumeGroup, command: str, verbose: Callable[[str], None]) -> None:
    if host.trial:
        verbose("Test mode: Skipping archiving of volume group.")
    if archive_vg(host, vg, command) is not None:
        verbose(f'Archiving volume group "{vg.name}" metadata (seqno {vg.seqno}).')


def write_label(host: Host, pv: PvDevice, *, in_use: bool) -> None:
    """Rewrite a PV's label with or without the mark that it belongs to a VG."""
    header = pv.label.pv_header.with_in_use(in_use)
    label = pv.label._replace(pv_header=header)
    _write(host, pv.path, [(label.sector * SECTOR, label.pack())])


def ignore_areas(host: Host, pv: PvDevice, ignored: bool) -> None:
    """Take the metadata areas of a PV in no VG out of use, or back into it."""
    for mda in pv.areas:
        assert mda.header is not None
        header = mda.header.with_ignored(ignored)
        _write(host, pv.path, [(header.start, header.pack())])


def free_outdated(host: Host, pv: PvDevice) -> None:
    """Make a PV that its VG has gone on without an orphan."""
    _make_orphan(host, pv)


def _stamped(scan: Scan, vg: VolumeGroup) -> VolumeGroup:
    """As it will be on the disks: the next seqno, and what was found of its PVs."""
    return scan.as_found(vg)._replace(seqno=vg.seqno + 1)


def text_of(host: Host, vg: VolumeGroup, command: str) -> bytes:
    """What is written to the areas, with the NUL at its end."""
    text = vg_to_text(vg, TextHeader.now(f"Write from {command}.", host.system_id))
    return text.encode("utf-8", errors="surrogateescape") + b"\0"


def check_size(vg: VolumeGroup, path: str, header: MdaHeader, data: bytes) -> None:
    """RefusedError if a text does not fit in an area on the device, beside the one that counts, or
    is longer than what is read."""
    what = f"VG {vg.name} {vg.seqno} metadata on {path} ({len(data)} bytes)"
    limit = min(max_text(header.size), MAX_TEXT)
    if len(data) > limit:
        raise RefusedError(f"{what} exceeds maximum metadata size ({limit} bytes)")
    old = header.current
    if old is not None and len(data) > room_beside(header.size, old):
        ring = header.size - MDA_HEADER_SIZE
        raise RefusedError(
            f"{what} too large for circular buffer ({ring} bytes with {old.size} used)"
        )


def _make_orphan(host: Host, pv: PvDevice) -> None:
    """In no VG, with those of its metadata areas that are good."""
    _clear_areas(host, pv)
    _free_label(host, pv)


def _free_label(host: Host, pv: PvDevice) -> None:
    areas = tuple(DiskLocn(mda.offset, mda.size) for mda in pv.areas)
    header = pv.label.pv_header._replace(metadata_areas=areas)
    write_label(host, pv._replace(label=pv.label._replace(pv_header=header)), in_use=False)


def _clear_areas(host: Host, pv: PvDevice) -> None:
    for mda in pv.areas:
        assert mda.header is not None
        _write(host, pv.path, [(mda.header.start, mda.header.cleared().pack())])


def _write_text(host: Host, path: str, header: MdaHeader, offset: int, data: bytes) -> None:
    for start, part in ring_write(header.size, offset, data):
        _write(host, path, [(header.start + start, part)])


def _write_header(host: Host, area: _Area, header: MdaHeader) -> None:
    _write(host, area.pv.path, [(header.start, header.pack())])


def write_to(host: Host, path: str, offset: int, data: bytes) -> None:
    """One step of a protocol: durable when it returns."""
    _write(host, path, [(offset, data)])


def _write(host: Host, path: str, writes: Iterable[tuple[int, bytes]]) -> None:
    """Each call is one step of the protocol: all of it is durable when it returns. By FUA: a flush
    of a PV that is a plain file would also write out what its volumes were given lately, while they
    are suspended and their writers wait."""
    reach("before metadata are written")
    device = host.opener(path, True)
    try:
        for offset, data in writes:
            device.write(offset, data, fua=True)
    finally:
        device.close()
    reach("after metadata were written")
