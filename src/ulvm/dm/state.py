"""What must be known to make all devices anew after the process was killed.

`describe` gives plain values for JSON; `restore` makes the devices again in an empty mapper.
Tables are kept with names and paths instead of numbers. Order of resumes: plain targets
first, then snapshots, then origins, merges last, because a merge begins to copy at once and
every other snapshot must be there by then. If a snapshot cannot be made, its COW being away,
nothing is made that writes to its origin, or it would be wrong when it comes back: that
device is there without a table, until a command brings the group to its metadata. What was written
to an origin or a snapshot and waited in its stage is taken up when its device resumes (dm.stage),
in this process or in whichever is the first that can resume it. What was suspended is suspended
again when all are there: a snapshot over a suspended COW device could not read its store. A mirror
that was suspended copies nothing in between: its second leg may be in use for itself by now (a
pvmove that was ended), and what the first one holds be old.

A snapshot that was invalid stays invalid even if its header could not be written, and a
transient snapshot comes back invalid: its exceptions lived in the process that died.
Crash argument: every store on disk is complete at any moment, so what is not brought back
costs devices, never data. An old state is another matter: its tables may lead to where other
volumes lie by now, so one that cannot be replaced must go (daemon.service).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.cow import CowSnapshot
from ulvm.dm.device import MappedDevice
from ulvm.dm.exceptions.transient import TransientStore
from ulvm.dm.order import users_first
from ulvm.dm.table import Table
from ulvm.dm.targets.base import Target
from ulvm.dm.targets.error import ErrorTarget
from ulvm.dm.targets.merge import MergeTarget
from ulvm.dm.targets.mirror import MirrorTarget
from ulvm.dm.targets.origin import OriginTarget
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.dm_ioctl import TableLine, quoted_word, words_of
from ulvm.errors import FormatError, RefusedError, UlvmError
from ulvm.units import SECTOR

if TYPE_CHECKING:
    from ulvm.dm.mapper import LocalMapper

__all__ = ["describe", "note_losses", "restore"]


def describe(mapper: LocalMapper) -> dict[str, Any]:
    """{"devices": [{name, uuid, minor, read_only, suspended, table, ...}]} by minor number."""
    described = [(d, _describe(mapper, d)) for d in mapper.all_mapped(leaving=True)]
    # One that is being removed and has no table any more holds nothing that was to be kept.
    return {"devices": [entry for d, entry in described if not d.leaving or "table" in entry]}


def _describe(mapper: LocalMapper, device: MappedDevice) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": device.name,
        "uuid": device.uuid,
        "minor": device.minor,
        "read_only": device.forced_read_only,
        "suspended": device.suspended,
        "goes_on": device.goes_on,
        "left_cows": dict(device.left_cows),
    }
    table = device.live
    if table is not None:
        entry["table"] = _lines(mapper, table)
        entry["table_read_only"] = table.read_only
        entry["lost"] = _losses(table)
    return entry


def _lines(mapper: LocalMapper, table: Table) -> list[list[Any]]:
    """Those of a table without snapshots change with the names of its devices alone, and are kept,
    to be read only: all devices are described at each change of one."""
    names = _names(mapper, table)  # before the lines: a rename in between is seen the next time
    kept = table.described
    if kept is not None and kept[0] == names:
        return kept[1]
    lines = _lines_now(mapper, table)
    if not _snapshots(table):
        table.described = names, lines
    return lines


def _snapshots(table: Table) -> list[CowSnapshot]:
    if table.described is not None:
        return []
    return [t.snapshot for t in table.targets if isinstance(t, SnapshotTarget)]


def _names(mapper: LocalMapper, table: Table) -> tuple[str, ...]:
    return tuple(mapper.stable_name(device) for device in table.devices)


def _lines_now(mapper: LocalMapper, table: Table) -> list[list[Any]]:
    def name(device: BlockDevice) -> str:
        return quoted_word(mapper.stable_name(device))

    def line(target: Target) -> list[Any]:
        kind, params = target.type_name, target.table(name)
        if isinstance(target, SnapshotTarget) and target.snapshot.gave_away:
            # Loaded as a snapshot it would be a second user of the store that it gave away.
            kind, params = ErrorTarget.type_name, ""
        return [target.begin // SECTOR, target.length // SECTOR, kind, params]

    return [line(t) for t in table.targets]


def _losses(table: Table) -> list[str]:
    return [_lost(s) for s in _snapshots(table) if not s.gave_away]


def _lost(snapshot: CowSnapshot) -> str:
    """What a snapshot must come back as, beyond what its store on disk says."""
    if not snapshot.valid or isinstance(snapshot.store, TransientStore):
        return "invalid"
    return "overflow" if snapshot.overflowed else ""


def _rank(entry: dict[str, Any]) -> tuple[int, int]:
    kinds = {line[2] for line in entry.get("table", ())}
    order = (SnapshotTarget.type_name, OriginTarget.type_name, MergeTarget.type_name)
    rank = max((order.index(k) + 1 for k in kinds if k in order), default=0)
    return rank, int(entry["minor"])


_TYPES = {"name": str, "uuid": str, "minor": int, "read_only": bool, "suspended": bool}
_WITH_TABLE = {"table": list, "table_read_only": bool, "lost": list}
_LINE = [int, int, str, str]


def _checked(entry: object) -> dict[str, Any]:
    """An entry as `_describe` makes it; else FormatError."""
    if not isinstance(entry, dict):
        raise FormatError("it is not an object")
    wanted: dict[str, type] = {**_TYPES, **(_WITH_TABLE if "table" in entry else {})}
    for key, kind in wanted.items():
        if type(entry.get(key)) is not kind:
            raise FormatError(f"{key} is {str(entry.get(key))[:40]!r}")
    cows = entry.get("left_cows", {})
    if not isinstance(cows, dict) or not all(type(size) is int for size in cows.values()):
        raise FormatError(f"left_cows is {str(cows)[:80]!r}")
    for line in entry.get("table", ()):
        if not isinstance(line, list) or [type(word) for word in line] != _LINE:
            raise FormatError(f"a line of its table is {str(line)[:80]!r}")
    return entry


def _written_by(entry: dict[str, Any]) -> set[str]:
    """The origins to which writes pass through this device."""
    kinds = (OriginTarget.type_name, MergeTarget.type_name)
    lines = [words for _, _, kind, words in entry.get("table", ()) if kind in kinds]
    return {origin for words in lines for origin in words_of(words)[:1]}


def _read_by(entry: dict[str, Any]) -> set[str]:
    """The origins of its snapshots, those that are invalid left out."""
    kinds = (SnapshotTarget.type_name, MergeTarget.type_name)
    lines = [(kind, words) for _, _, kind, words in entry.get("table", ()) if kind in kinds]
    return {
        origin
        for (kind, words), lost in zip(lines, entry.get("lost", ()), strict=False)
        for origin in words_of(words)[:1]
        if kind == SnapshotTarget.type_name and lost != "invalid"
    }


def _cows_of(entry: dict[str, Any]) -> dict[str, int]:
    """Of the snapshots that it is, or was when it had a table, and the sizes of these in bytes."""
    lines = [(kind, words_of(words), size) for _, size, kind, words in entry.get("table", ())]
    own = {
        words[1]: size * SECTOR
        for kind, words, size in lines
        if kind == SnapshotTarget.type_name and words[1:]
    }
    return own or dict(entry.get("left_cows", {}))


def restore(mapper: LocalMapper, state: dict[str, Any]) -> list[str]:
    """Make the devices of `state`; what cannot be made is said in the sentences returned and
    hinders nothing else."""
    problems: list[str] = []
    waiting: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for number, entry in enumerate(state["devices"]):
        try:
            entries.append(_checked(entry))
        except FormatError as error:
            problems.append(f"device {number} of the state: {error}")
    for entry in sorted(entries, key=_rank):
        try:
            mapper.create(
                entry["name"], entry["uuid"], minor=entry["minor"], read_only=entry["read_only"]
            )
            waiting.append(entry)
            if entry.get("goes_on") is True or _rank(entry)[0]:
                device = mapper.mapped(entry["name"])
                device.goes_on, device.left_cows = True, _cows_of(entry)
        except UlvmError as error:
            problems.append(f"{entry['name']}: {error}")
    absent = list(entries)
    unknown = len(entries) < len(state["devices"])
    # A table may refer to a device of its own rank (linear over linear): try until nothing
    # moves any more.
    while waiting:
        failed: list[tuple[dict[str, Any], UlvmError]] = []
        for entry in waiting:
            try:
                origins = _written_by(entry)
                if origins and any(origins & _read_by(other) for other in absent):
                    raise RefusedError("a snapshot of its origin could not be brought back")
                if origins and unknown:
                    raise RefusedError("what cannot be understood may be a snapshot of its origin")
                _restore_table(mapper, entry)
                absent.remove(entry)
            except UlvmError as error:
                failed.append((entry, error))
        if len(failed) == len(waiting):
            problems += [f"{entry['name']}: {error}" for entry, error in failed]
            break
        waiting = [entry for entry, _ in failed]
    _suspend(mapper, [entry["name"] for entry in entries if entry["suspended"]])
    return problems


def note_losses(mapper: LocalMapper, devices: list[Any]) -> bool:
    """Have the entries of a state that is being restored say what snapshots have lost meanwhile;
    whether one has. Else another kill, before all is there, would bring it back as it was."""
    noted = False
    for entry in devices:
        name = entry.get("name") if isinstance(entry, dict) and entry.get("lost") else None
        device = mapper.mapped_by_name(name) if isinstance(name, str) else None
        table = None if device is None else device.live
        if table is not None and (losses := _losses(table)) != entry["lost"]:
            entry["lost"], noted = losses, True
    return noted


def _suspend(mapper: LocalMapper, names: list[str]) -> None:
    """Users of a device before the device: it is asked to take their data, and could not."""
    for device in users_first(mapper.all_mapped()):
        if device.name in names and device.live is not None:
            mapper.suspend(device.name, lockfs=False)


def _restore_table(mapper: LocalMapper, entry: dict[str, Any]) -> None:
    if "table" not in entry:
        return
    lines = [TableLine(*line) for line in entry["table"]]
    name = entry["name"]
    mapper.load(name, lines, read_only=entry["table_read_only"])
    table = mapper.mapped(name).inactive
    _mark_lost(table, entry["lost"])
    if entry["suspended"]:
        for target in table.targets if table else ():
            if isinstance(target, MirrorTarget):
                target.still = True
    mapper.resume(name)


def _mark_lost(table: Table | None, lost: list[str]) -> None:
    """Between load and resume: what the snapshots cannot know from disk, in the order of the
    targets; see `_lost`."""
    targets = table.targets if table else ()
    snapshots = [t.snapshot for t in targets if isinstance(t, SnapshotTarget)]
    for snapshot, state in zip(snapshots, lost, strict=False):
        if state == "invalid":
            snapshot.stay_invalid()
        elif state == "overflow":
            snapshot.overflowed = True
