"""What lies on the devices of a host: labels, metadata areas, and the volume groups they hold.

One pass opens every device once and reads the label and, of each area, the header and the
committed text; a text that several areas share is parsed once. Reading takes no lock and changes
nothing; what is odd is told in `Scan.warnings`, in LVM2's words.

Which text of a VG counts: `newest`.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ulvm.errors import DeviceError, FormatError, NotFoundError, RefusedError, UlvmError
from ulvm.metadata.model import UnknownSegment, VolumeGroup
from ulvm.units import SECTOR
from ulvm.vgstore.candidates import find_candidates, min_sectors
from ulvm.vgstore.devices import read_devices, uses_devices_file
from ulvm.vgstore.host import Host
from ulvm.vgstore.newest import (
    Newest,
    copies,
    find_differing,
    find_outdated,
    newest_texts,
    warn_about_old_copies,
)
from ulvm.vgstore.read import MdaCopy, PvDevice, Texts, read_pv
from ulvm.vgstore.system_id import is_foreign, local_system_id

__all__ = ["MdaCopy", "PvDevice", "Scan", "read_pv", "scan"]


_NONE: Mapping[str, str] = MappingProxyType({})


class Scan(NamedTuple):
    """All PVs and VGs, as of one pass. PVs come in the order of the devices; the VG that was found
    last comes first, as LVM2 has them."""

    pvs: tuple[PvDevice, ...] = ()
    vgs: tuple[VolumeGroup, ...] = ()
    warnings: tuple[str, ...] = ()
    broken: Mapping[str, str] = _NONE
    """VGs of which no text can be understood, and why."""
    unreadable: Mapping[str, str] = _NONE
    """Paths of the devices file that could not be read, and why."""
    duplicates: frozenset[str] = frozenset()
    """UUIDs of PVs that lie on two devices."""
    unused: frozenset[str] = frozenset()
    """Paths that were passed over: the other device of a duplicate PV, another name of a file."""
    outdated: tuple[PvDevice, ...] = ()
    """PVs that hold old metadata of the VG `vg_name`, which has gone on without them. They are
    neither free nor in the VG (vgck --updatemetadata frees them)."""
    rejected: Mapping[str, str] = _NONE
    """Paths that the settings keep from being looked at, and why."""
    label_warnings: int = 0
    """How many of `warnings` are about labels and areas alone; the rest about VGs."""
    copies: tuple[PvDevice, ...] = ()
    """PVs that were passed over, since another device has their UUID."""
    bare: tuple[PvDevice, ...] = ()
    """Devices that were looked at and are no PVs, so far as they could be."""
    dev_dir: str = "/dev"
    """What stands before `vg/lv` in the paths of volumes."""
    foreign: tuple[VolumeGroup, ...] = ()
    """VGs of other hosts, which are not among `vgs`; their PVs are not free."""
    system_id: str = ""
    """This host's."""
    duplicates_allowed: bool = False
    """Groups may be changed all the same (devices/allow_changes_with_duplicate_pvs)."""
    differing: Mapping[str, str] = _NONE
    """VGs, by UUID, of which a PV has another text than the one that counts, not older; and why."""
    reappeared: frozenset[str] = frozenset()
    """UUIDs of PVs that are marked as missing, are there again, and hold nothing: the mark does not
    count, and goes with the next change."""
    meant: str = ""
    """UUID of the VG that is meant by its name where another one has that, too."""

    def vg(self, name: str) -> VolumeGroup:
        """NotFoundError as LVM prints it; FormatError for a VG that cannot be understood,
        RefusedError if two have the name and none of them is meant."""
        found = [vg for vg in self.vgs if vg.name == name]
        if len(found) > 1:
            found = [vg for vg in found if vg.uuid == self.meant]
            if not found:
                raise RefusedError(
                    f"Multiple VGs found with the same name: skipping {name}\n"
                    "Use --select vg_uuid=<uuid> in place of the VG name."
                )
        if found:
            return found[0]
        if any(vg.name == name for vg in self.foreign):
            raise RefusedError(self.foreign_words(name))
        if name in self.broken:
            raise FormatError(f"{self.broken[name]}\nCannot process volume group {name}")
        raise NotFoundError(f'Volume group "{name}" not found')

    def foreign_words(self, name: str) -> str:
        """Why a VG of another host cannot be accessed, in LVM2's words."""
        owner = next(vg.system_id for vg in self.foreign if vg.name == name)
        local = self.system_id or "unknown local system ID"
        own = f"local system ID {local}" if self.system_id else local
        return f"Cannot access VG {name} with system ID {owner} with {own}."

    def foreign_warnings(self) -> list[str]:
        """What is said to who asks for all VGs: nothing on a host that has a system ID, to which
        those of others are no concern."""
        return [] if self.system_id else [self.foreign_words(vg.name) for vg in self.foreign]

    def pv(self, path: str) -> PvDevice:
        """The PV on a device; NotFoundError as LVM prints it, RefusedError for a duplicate."""
        self.check_used(path)
        for pv in self.pvs:
            if pv.path == path:
                return pv
        raise NotFoundError(f'Failed to find physical volume "{path}".')

    def check_used(self, path: str) -> None:
        """RefusedError for a device that was passed over: its content counts for nothing, and
        writing there might destroy the only good copy."""
        if path in self.rejected:
            raise RefusedError(f"Cannot use {path}: {self.rejected[path]}")
        if path in self.unused:
            raise RefusedError(f"Cannot use device {path} with duplicates.")

    def in_doubt(self, vg: VolumeGroup) -> bool:
        """Whether a PV of the group is on several devices, so that what is written may go to the
        wrong one; never with devices/allow_changes_with_duplicate_pvs."""
        return not self.duplicates_allowed and any(pv.uuid in self.duplicates for pv in vg.pvs)

    def by_uuid(self, pv_uuid: str) -> PvDevice | None:
        return next((pv for pv in self.pvs if pv.uuid == pv_uuid), None)

    def pvs_of(self, vg: VolumeGroup) -> list[PvDevice]:
        """The devices of a VG's PVs that are there, in the VG's order."""
        found = (self.by_uuid(pv.uuid) for pv in vg.pvs)
        return [pv for pv in found if pv is not None]

    def path_of(self, pv_uuid: str) -> str | None:
        """The device that holds a PV; None for a missing one."""
        pv = self.by_uuid(pv_uuid)
        return pv.path if pv else None

    def relabelled(self, uuids: Mapping[str, str]) -> Scan:
        """As it will be when the PVs with these UUIDs have others."""
        return self._replace(
            pvs=tuple(pv.with_uuid(uuids.get(pv.uuid, pv.uuid)) for pv in self.pvs)
        )

    def with_outdated(self, vg: VolumeGroup) -> Scan:
        """As it will be when `vg` has the PVs again that it went on without."""
        back = [pv for pv in self.outdated if vg.pv(pv.uuid) is not None]
        left = tuple(pv for pv in self.outdated if pv not in back)
        return self._replace(pvs=(*self.pvs, *back), outdated=left)

    def as_found(self, vg: VolumeGroup) -> VolumeGroup:
        """The VG with today's paths, and the mark on PVs that are missing: what LVM2 writes."""
        pvs = []
        for pv in vg.pvs:
            path = self.path_of(pv.uuid)
            if path is None:
                pvs.append(pv._replace(flags=pv.flags | {"MISSING"}, device="[unknown]"))
            else:
                pvs.append(pv._replace(device=path))
        return vg._replace(pvs=tuple(pvs))


def scan(
    host: Host,
    extra_paths: Iterable[str] = (),
    texts: Texts | None = None,
    in_use: Callable[[], Container[str]] = frozenset,
) -> Scan:
    """Look at every device that the settings name (`candidates`), and at `extra_paths`. `texts`: of
    whoever looks again. `in_use`: the real paths that active volumes stand on, which is asked for
    where a PV is on two devices."""
    texts = texts or Texts()
    texts.next_scan()
    entries = read_devices(host) if uses_devices_file(host) else []
    candidates = find_candidates(host, extra_paths)
    warnings = list(candidates.warnings)
    unreadable: dict[str, str] = {}
    found: list[PvDevice] = []
    bare: list[PvDevice] = []
    least = min_sectors(host)
    seen: set[tuple[int, int, int]] = set()
    unused: set[str] = set()
    too_small: dict[str, str] = {}
    for path in candidates.paths:
        try:
            identity = _identity(path)
            if identity in seen:
                unused.add(path)
                continue
            device = host.opener(path, False)
        except NotFoundError as error:
            unreadable[path] = error.message
            continue
        except UlvmError as error:
            unreadable[path] = error.message
            warnings.append(f"WARNING: {error.message}")
            continue
        seen.add(identity)
        try:
            size = device.size
            pv = read_pv(path, device, texts, warnings)
        except DeviceError as error:
            unreadable[path] = error.message
            warnings.append(f"WARNING: {path}: {error.message}")
            continue
        finally:
            device.close()
        if pv is not None and size // SECTOR < least:
            too_small[path] = "device is too small (pv_min_size)"
        elif pv is not None:
            found.append(pv)
        elif size // SECTOR >= least:
            bare.append(PvDevice.without_label(path, size))
    expected = {e.path: e.pv_uuid for e in entries}
    pvs, duplicates = _without_duplicates(found, expected, in_use, warnings)
    chosen = {pv.path for pv in pvs}
    unused.update({pv.path for pv in found} - chosen)
    label_warnings = len(warnings)
    reappeared: set[str] = set()
    newest = newest_texts(pvs)
    differing = find_differing(pvs, newest, warnings)
    vgs, broken, outdated = _assemble(
        pvs,
        newest,
        warnings,
        reappeared,
        check_sizes=host.config.get_bool("metadata/check_pv_device_sizes", True),
    )
    owner = {p.uuid: vg.name for vg in vgs for p in vg.pvs}
    foreign = [] if host.foreign else [vg for vg in vgs if is_foreign(host.config, vg)]
    vgs = [vg for vg in vgs if vg not in foreign]
    named = tuple(
        pv._replace(vg_name=owner.get(pv.uuid, _broken_owner(pv, broken)))
        for pv in pvs
        if pv.uuid not in outdated
    )
    return Scan(
        named,
        tuple(reversed(vgs)),
        tuple(warnings),
        broken,
        unreadable,
        duplicates,
        frozenset(unused),
        tuple(pv._replace(vg_name=outdated[pv.uuid]) for pv in pvs if pv.uuid in outdated),
        {**candidates.rejected, **too_small},
        label_warnings,
        tuple(pv._replace(vg_name=owner.get(pv.uuid)) for pv in found if pv.path not in chosen),
        tuple(bare),
        str(host.dev_dir),
        tuple(reversed(foreign)),
        local_system_id(host.config),
        host.config.get_bool("devices/allow_changes_with_duplicate_pvs", False),
        differing,
        frozenset(reappeared),
    )


def _identity(path: str) -> tuple[int, int, int]:
    """The same for two names of one file or disk."""
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror}", errno=error.errno) from error
    if stat.S_ISBLK(found.st_mode):
        return 1, found.st_rdev, 0
    return 0, found.st_dev, found.st_ino


# -- all devices ----------------------------------------------------------------------------------


def _without_duplicates(
    found: Sequence[PvDevice],
    expected: dict[str, str | None],
    in_use: Callable[[], Container[str]],
    warnings: list[str],
) -> tuple[list[PvDevice], frozenset[str]]:
    """Of two devices with one PV UUID, that on which volumes are active, else that which the
    devices file or the metadata have it on, else the first."""
    by_uuid: dict[str, list[PvDevice]] = defaultdict(list)
    for pv in found:
        by_uuid[pv.uuid].append(pv)
    hints = {(p.uuid, p.device) for _, _, vg in copies(found) for p in vg.pvs}
    kept, duplicates = [], set()
    preferred = []
    busy = in_use() if len(by_uuid) < len(found) else ()
    for uuid, same in by_uuid.items():
        named = [pv for pv in same if expected.get(pv.path) == uuid]
        matching = [pv for pv in named or same if (uuid, pv.path) in hints]
        used = [pv for pv in same if len(same) > 1 and os.path.realpath(pv.path) in busy]
        chosen = (used or matching or named or same)[0]
        kept.append(chosen)
        for other in same:
            if other is not chosen:
                duplicates.add(uuid)
                warnings.append(f"WARNING: Not using device {other.path} for PV {uuid}.")
        if uuid in duplicates:
            why = "device name matches previous" if matching else "device was seen first"
            why = "device is used by LV" if used else why
            preferred.append(f"WARNING: PV {uuid} prefers device {chosen.path} because {why}.")
    warnings += preferred
    return kept, frozenset(duplicates)


def _assemble(
    pvs: Sequence[PvDevice],
    newest: Newest,
    warnings: list[str],
    reappeared: set[str],
    *,
    check_sizes: bool,
) -> tuple[list[VolumeGroup], dict[str, str], dict[str, str]]:
    """VGs, names of those that cannot be understood with the reason, UUIDs of outdated PVs with
    their VG's name."""
    outdated_warnings: list[str] = []
    outdated = find_outdated(pvs, newest, outdated_warnings)
    warn_about_old_copies(pvs, newest, outdated, warnings)
    warnings += outdated_warnings
    present = {pv.uuid: pv for pv in pvs}
    vgs: list[VolumeGroup] = []
    names: dict[str, str] = {}
    for vg in {best.uuid: best for best, _ in newest.values()}.values():
        if vg.name in names:
            warnings.append(
                f"WARNING: VG name {vg.name} is used by VGs {vg.uuid} and {names[vg.name]}.\n"
                "Fix duplicate VG names with vgrename uuid, a device filter, or system IDs."
            )
        names[vg.name] = vg.uuid
        for kind in dict.fromkeys(_unknown_types(vg)):
            warnings.append(f"WARNING: Unrecognised segment type {kind}")
        vgs.append(_with_missing(vg, present, warnings, reappeared))
        _warn_about_headers(vg, present, warnings)
        if check_sizes:
            _warn_about_sizes(vg, present, warnings)
    broken = {}
    for pv in pvs:
        for mda in pv.mdas:
            name = mda.vg_name
            if mda.vg is None and mda.problem is not None and name and name not in names:
                broken[name] = mda.problem
    return vgs, broken, outdated


def _with_missing(
    vg: VolumeGroup, present: dict[str, PvDevice], warnings: list[str], reappeared: set[str]
) -> VolumeGroup:
    """`reappeared` gets the UUIDs for `Scan.reappeared`."""
    missing = [p for p in vg.pvs if p.uuid not in present]
    for pv in vg.pvs:
        device = present.get(pv.uuid)
        if device is None:
            warnings.append(f"WARNING: Couldn't find device with uuid {pv.uuid}.")
        elif pv.missing:
            warnings.append(
                f"WARNING: VG {vg.name} was previously updated while PV {device.path} was missing."
            )
    for pv in vg.pvs:
        device = present.get(pv.uuid)
        if device is None:
            last = pv.device or "unknown device"
            warnings.append(
                f"WARNING: VG {vg.name} is missing PV {pv.uuid} (last written to {last})."
            )
        elif pv.missing and not vg.allocated(pv.uuid):
            warnings.append(
                f"WARNING: VG {vg.name} has unused reappeared PV {device.path} {pv.uuid}."
            )
            reappeared.add(pv.uuid)
        elif pv.missing:
            warnings.append(f"WARNING: VG {vg.name} was missing PV {device.path} {pv.uuid}.")
    kept = tuple(
        pv._replace(flags=pv.flags - {"MISSING"}) if pv.uuid in reappeared else pv for pv in vg.pvs
    )
    return vg._replace(pvs=kept, missing_uuids=frozenset(p.uuid for p in missing))


def _warn_about_headers(vg: VolumeGroup, present: dict[str, PvDevice], warnings: list[str]) -> None:
    """The next change of the VG writes them anew."""
    for pv in vg.pvs:
        found = present.get(pv.uuid)
        if found is None or found.in_use:
            continue
        what = f"WARNING: PV {found.path} in VG {vg.name} is"
        if found.label.pv_header.extension_version < 2:
            warnings.append(f"{what} using an old PV header, modify the VG to update.")
        else:
            warnings.append(f"{what} missing the used flag in PV header.")


def _warn_about_sizes(vg: VolumeGroup, present: dict[str, PvDevice], warnings: list[str]) -> None:
    """metadata/check_pv_device_sizes."""
    for pv in vg.pvs:
        found = present.get(pv.uuid)
        if found is not None and found.size < pv.dev_size * SECTOR:
            warnings.append(
                f"WARNING: Device {found.path} has size of {found.size // SECTOR} sectors which "
                f"is smaller than corresponding PV size of {pv.dev_size} sectors. "
                "Was device resized?"
            )
            warnings.append(
                f"WARNING: One or more devices used as PVs in VG {vg.name} have changed sizes."
            )


def _unknown_types(vg: VolumeGroup) -> Iterator[str]:
    for lv in vg.lvs:
        for segment in lv.segments:
            if isinstance(segment, UnknownSegment):
                yield segment.type_name


def _broken_owner(pv: PvDevice, broken: dict[str, str]) -> str | None:
    return next((m.vg_name for m in pv.mdas if m.vg_name in broken), None)
