"""What a command works on: names, @tags and --select, as LVM2's commands go through them.

A name that is not there, or that of a group which cannot be had, is a sentence and exit code 5 in
the end; the rest is done. Nothing is done where a word cannot be the name of a volume. A tag that
nothing has, and a selection that chooses nothing, is no failure. Groups come as they
were named, their volumes in the order of the metadata. No name at all means everything, which the
caller rules out where a command needs a name or a selection.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ulvm.cli.processed import Processed
from ulvm.cli.row_states import states_of
from ulvm.errors import NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import InvalidPathError, given_device, split_known
from ulvm.lvm.names import vg_name as vg_name_of
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_tag
from ulvm.report.columns import DEFAULTS, rows_of
from ulvm.report.rows import Row, lv_rows, pv_rows, vg_lv_rows, vg_rows
from ulvm.report.select import parse_selection
from ulvm.units import SECTOR
from ulvm.vgstore.candidates import min_sectors
from ulvm.vgstore.checks import incomplete_words
from ulvm.vgstore.scan import PvDevice, Scan

__all__ = [
    "Chosen", "ChosenLv", "choose_lvs", "choose_pvs", "choose_vgs", "each_lv", "each_vg",
    "no_such_pv", "selected_lvs", "selected_pvs",
]  # fmt: skip


class Chosen(NamedTuple):
    """`names`: paths of PVs. `failures`: sentences about what was not found."""

    names: list[str]
    failures: list[str]


class ChosenLv(NamedTuple):
    """A volume as it was when it was chosen. `name`: VG/LV, which two groups of one name may both
    have; copies have the `uuid`, too."""

    name: str
    uuid: str
    vg_uuid: str


# -- logical volumes ------------------------------------------------------------------------------


def choose_lvs(
    session: Session, words: Sequence[str], select: str | None = None
) -> tuple[list[ChosenLv], list[str]]:
    """Visible volumes of the VGs named, and any volume that is named itself; and sentences about
    what was not found."""
    scan = session.scan()
    chosen: dict[str, set[str]] = {}  # By the VG's UUID.
    failures: list[str] = []
    impossible: list[str] = []
    for word in words:
        try:
            if word.startswith("@"):
                _add_tagged(scan, check_tag(word[1:]), chosen)
            else:
                _add_named(session, scan, word, chosen)
        except InvalidPathError as error:
            impossible.append(error.message)
        except UlvmError as error:
            failures += error.message.splitlines()
    if impossible:
        return [], impossible
    if not words:
        for vg in scan.vgs:
            chosen.setdefault(vg.uuid, set()).update(lv.name for lv in vg.visible_lvs())
    groups = [vg for vg in scan.vgs if vg.uuid in chosen]
    if words and not any(word.startswith("@") for word in words):
        groups.sort(key=lambda vg: [*chosen].index(vg.uuid))
    else:  # LVM2 goes through all groups then.
        for text in scan.foreign_warnings():
            session.warn(text)
    pairs = [(vg, lv) for vg in groups for lv in vg.lvs if lv.name in chosen[vg.uuid]]
    if select is not None:
        selected = selected_lvs(session, scan, groups, select)
        pairs = [(vg, lv) for vg, lv in pairs if (vg.uuid, lv.name) in selected]
    volumes = [ChosenLv(f"{vg.name}/{lv.name}", lv.uuid, vg.uuid) for vg, lv in pairs]
    return volumes, list(dict.fromkeys(failures))


def _add_tagged(scan: Scan, tag: str, chosen: dict[str, set[str]]) -> None:
    for vg in scan.vgs:
        found = {lv.name for lv in vg.lvs if tag in lv.tags}
        if tag in vg.tags:
            found |= {lv.name for lv in vg.visible_lvs()}
        if found:
            chosen.setdefault(vg.uuid, set()).update(found)


def _add_named(session: Session, scan: Scan, word: str, chosen: dict[str, set[str]]) -> None:
    vg_name, lv_name = split_known(word, session.host.run_dir, session.host.default_vg)
    vg = _group(scan, vg_name)
    if lv_name is None:
        wanted = {lv.name for lv in vg.visible_lvs()}
    elif "EXPORTED" in vg.status and vg.lv(lv_name) is None:
        raise NotFoundError(f"Volume group {vg_name} is exported")
    else:
        lv = lvm_lv.get(vg, lv_name)
        if vg.is_virtual_origin(lv):
            session.say(f"Ignoring virtual origin logical volume {vg_name}/{lv_name}.")
            raise NotFoundError(f'Failed to find logical volume "{vg_name}/{lv_name}"')
        wanted = {lv.name}
    chosen.setdefault(vg.uuid, set()).update(wanted)


def _group(scan: Scan, name: str) -> VolumeGroup:
    try:
        return scan.vg(name)
    except NotFoundError as error:
        sentence = f"{error.message}\nCannot process volume group {name}"
        raise NotFoundError(sentence) from None


def selected_lvs(
    session: Session, scan: Scan, groups: Sequence[VolumeGroup], select: str
) -> set[tuple[str, str]]:
    """(UUID of the VG, LV) of the volumes that are selected, hidden ones too."""

    def rows(kind: str) -> Iterable[Row]:
        states = states_of(session, groups, kind)
        return lv_rows(scan, groups, states, hidden=True, by_segment=kind == "seg")

    found = _selected(session, "lv", select, rows)
    return {(row.vg.uuid, row.lv.name) for row in found if row.vg and row.lv}


def each_lv(
    session: Session,
    volumes: Iterable[ChosenLv],
    work: Callable[[ChosenLv], None],
    failures: Iterable[str],
) -> int:
    """Do the work for each volume, go on after a failure, and fail in the end. Exit code."""
    status = 0
    processed = Processed(session)
    for volume in volumes:
        session.mean(volume.vg_uuid)
        with processed.volume(volume.name) as told:
            try:
                work(volume)
            except UsageError:
                raise
            except UlvmError as error:
                session.warn(error.message)
                status = error.exit_code
                told.failed = True
    for sentence in failures:
        with processed.missing(sentence):
            session.warn(sentence)
        status = status or UlvmError.exit_code
    processed.end()
    return status


def _selected(
    session: Session, kind_name: str, select: str, rows: Callable[[str], Iterable[Row]]
) -> list[Row]:
    kind = DEFAULTS[kind_name].with_settings(session.host.config.get_str)
    selection = parse_selection(select, kind.prefix)
    return [row for row in rows(rows_of(kind, selection.fields)) if selection(row)]


def _pv_rows(session: Session, scan: Scan, kind: str) -> Iterable[Row]:
    return pv_rows(scan, by_segment=kind != "pv", states=states_of(session, scan.vgs, kind))


# -- volume groups --------------------------------------------------------------------------------


def choose_vgs(
    session: Session, words: Sequence[str], select: str | None = None, *, exported: bool = True
) -> tuple[list[VolumeGroup], list[str]]:
    """The VGs, in the order of the words, and sentences about what was not found; all, the last
    found first, for no words and for tags, those that cannot be read among the failures. `exported`
    False: for commands that leave exported VGs alone, which is a failure only for one that is
    named. UsageError for a word that names a volume."""
    scan = session.scan()
    found: list[VolumeGroup] = []
    failures: list[str] = []
    tags = {check_tag(word[1:]) for word in words if word.startswith("@")}
    for word in words or [*scan.broken]:
        if word.startswith("@"):
            continue
        try:
            vg = _group(scan, _name(word, session))
            found.append(vg)
            if "EXPORTED" in vg.status and not exported:
                failures.append(f"Volume group {vg.name} is exported")
        except UsageError:
            raise
        except UlvmError as error:
            failures += error.message.splitlines()
    if tags or not words:
        for text in scan.foreign_warnings():
            session.warn(text)
        found += [vg for vg in scan.vgs if not words or tags & {*vg.tags}]
    if not exported:
        found = [vg for vg in found if "EXPORTED" not in vg.status]
    if select is not None:
        selected = _selected_vgs(session, scan, select)
        found = [vg for vg in found if vg.uuid in selected]
    once = {vg.uuid: vg for vg in found}
    return [*once.values()], list(dict.fromkeys(failures))


def _name(word: str, session: Session) -> str:
    try:
        return vg_name_of(word, session.host.run_dir)
    except RefusedError as error:
        raise RefusedError(f"{error.message}\nCannot process volume group {word}") from None


def each_vg(
    session: Session,
    words: Sequence[str],
    work: Callable[[str], bool | None],
    *,
    select: str | None = None,
    exported: bool = True,
) -> int:
    """Do the work for each VG chosen, go on after a failure, and fail in the end; exit code. The
    work may say False for a failure that it has told itself."""
    groups, failures = choose_vgs(session, words, select, exported=exported)
    status = 0
    processed = Processed(session)
    for vg in groups:
        session.mean(vg.uuid)  # two may have one name
        with processed.group(vg.name) as told:
            try:
                if work(vg.name) is False:
                    status = RefusedError.exit_code
                    told.failed = True
            except UsageError:
                raise
            except UlvmError as error:
                session.warn(error.message)
                status = error.exit_code
                told.failed = True
    for sentence in failures:
        session.warn(sentence)
    return RefusedError.exit_code if failures else status


def _selected_vgs(session: Session, scan: Scan, select: str) -> set[str]:
    def rows(kind: str) -> Iterable[Row]:
        if kind in ("lv", "seg"):
            states = states_of(session, scan.vgs, kind)
            return vg_lv_rows(scan, scan.vgs, states, by_segment=kind == "seg")
        if kind in ("pv", "pvseg"):
            return _pv_rows(session, scan, kind)
        return vg_rows(scan, scan.vgs)

    return {row.vg.uuid for row in _selected(session, "vg", select, rows) if row.vg}


# -- physical volumes -----------------------------------------------------------------------------


def choose_pvs(
    session: Session, words: Sequence[str], select: str | None = None, *, change: bool = False
) -> Chosen:
    """Paths of PVs that are there; `@tag`: of those with the tag themselves, whatever their VG's. A
    copy of a PV that is passed over is none, and no failure. `change`: those of VGs that cannot be
    changed, since PVs are missing, are not found."""
    run_dir = session.host.run_dir
    paths = {given_device(word, run_dir): word for word in words if not word.startswith("@")}
    scan = session.scan(paths, labels_only=True)
    tags = {check_tag(word[1:]) for word in words if word.startswith("@")}
    # Group by group, as LVM2 goes through them.
    there = [row.device for row in pv_rows(scan) if row.device is not None]
    found = [pv for pv in there if not words or pv.path in paths or _has(scan, pv, tags)]
    ours = {pv.uuid for pv in found}
    partial = [vg for vg in scan.vgs if change and vg.partial and ours & _members(vg)]
    away = [vg for vg in scan.vgs if change and "EXPORTED" in vg.status]
    exported = {uuid for vg in away for uuid in _members(vg)}
    left = exported.union(*map(_members, partial))
    chosen = [pv.path for pv in found if pv.uuid not in left]
    failures = [line for vg in partial for line in incomplete_words(vg).splitlines()]
    for pv in found:
        if pv.path in paths and pv.uuid in exported:
            failures.append(f"Cannot use PV {paths.pop(pv.path)} in exported VG {pv.vg_name}.")
    failures += [
        no_such_pv(session, word)
        for path, word in paths.items()
        if path not in chosen and path not in scan.unused
    ]
    if any(sentence.startswith("Failed") for sentence in failures):
        session.scan(paths)  # LVM2 has looked at all groups before it gives up
    if select is not None:
        selected = selected_pvs(session, scan, select)
        uuids = {pv.path: pv.uuid for pv in found}
        chosen = [path for path in chosen if uuids[path] in selected]
    return Chosen(chosen, failures)


def selected_pvs(session: Session, scan: Scan, select: str) -> set[str]:
    """UUIDs of the PVs that are selected, missing ones too."""
    rows = _selected(session, "pv", select, lambda kind: _pv_rows(session, scan, kind))
    return {row.pv_uuid for row in rows}


def no_such_pv(session: Session, word: str) -> str:
    """Why what was named is no PV."""
    path = os.path.abspath(word)
    if not word or not os.path.exists(path):
        return f"Cannot use {word}: device not found"
    if path in session.last_scan.rejected:
        return f"Cannot use {word}: {session.last_scan.rejected[path]}"
    if stat.S_ISBLK(os.stat(path).st_mode):
        with open(path, "rb") as device:
            if device.seek(0, os.SEEK_END) < min_sectors(session.host) * SECTOR:
                return f"Cannot use {word}: device is too small (pv_min_size)"
    for vg in session.last_scan.foreign:
        if any(pv.path == path and vg.pv(pv.uuid) for pv in session.last_scan.pvs):
            return f"Cannot use PV {word} in foreign VG {vg.name}."
    return f'Failed to find physical volume "{word}".'


def _has(scan: Scan, device: PvDevice, tags: set[str]) -> bool:
    if device.vg_name is None:
        return False
    members = (vg.pv(device.uuid) for vg in scan.vgs)
    return any(pv is not None and bool(tags & {*pv.tags}) for pv in members)


def _members(vg: VolumeGroup) -> set[str]:
    """UUIDs of PVs: two VGs may have one name."""
    return {pv.uuid for pv in vg.pvs}
