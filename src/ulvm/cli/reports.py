"""lvs, vgs and pvs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import click

from ulvm.cli.common_options import reading_options
from ulvm.cli.context import Context
from ulvm.cli.report_options import Output, ReportCommand, report_options
from ulvm.cli.row_states import at_rest, states_of
from ulvm.errors import NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.lvm.names import given_device, plain_name, split_known, vg_name
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.names import check_tag
from ulvm.report.log import CommandLog, LogObject
from ulvm.report.rows import Row, States, lv_rows, pv_rows, vg_lv_rows, vg_rows
from ulvm.vgstore.scan import Scan

__all__ = ["Failure", "groups_of", "lvs", "pvs", "vg_object", "vgs", "warned"]


class Failure(NamedTuple):
    """A sentence about something that was named and cannot be shown."""

    about: LogObject
    sentence: str
    within: LogObject | None = None
    """The VG that fails with it."""


def groups_of(
    session: Session, scan: Scan, names: Sequence[str]
) -> tuple[list[VolumeGroup], list[Failure]]:
    """The VGs that are named, or all; and what cannot be shown."""
    groups: list[VolumeGroup] = []
    failures: list[Failure] = []
    if not names:
        _tell_of_foreign(session, scan)
        groups += scan.vgs
    for name in names or scan.broken:
        try:
            groups.append(_group(session, scan, name))
        except UsageError:
            raise
        except UlvmError as error:
            failures.append(Failure(LogObject("vg", name), error.message))
    return groups, failures


def _once(*groups: VolumeGroup) -> list[VolumeGroup]:
    """Two of them may have one name."""
    return [*{vg.uuid: vg for vg in groups}.values()]


def _tell_of_foreign(session: Session, scan: Scan) -> None:
    """For who goes through all groups: by a tag, or by its PVs."""
    for text in scan.foreign_warnings():
        session.warn_once(text)


def _group(session: Session, scan: Scan, name: str) -> VolumeGroup:
    """NotFoundError also for what no VG may be called."""
    cannot = f"Cannot process volume group {plain_name(name, session.host.run_dir)}"
    try:
        group = vg_name(name, session.host.run_dir)
    except RefusedError as error:
        raise NotFoundError(f"{error.message}\n{cannot}") from None
    try:
        return scan.vg(group)
    except NotFoundError as error:
        raise NotFoundError(f"{error.message}\n{cannot}") from None


def warned(session: Session, log: CommandLog, failures: Sequence[Failure]) -> int:
    """Say what failed; the exit code."""
    for about, sentence, within in failures:
        with log.about(about):
            session.warn(sentence)
        log.state(about, failed=True)
        if within is not None:
            log.state(within, failed=True)
    return 5 if failures else 0


def vg_object(vg: VolumeGroup) -> LogObject:
    return LogObject("vg", vg.name, vg.uuid)


@click.command(cls=ReportCommand)
@click.argument("names", nargs=-1, metavar="[VG|LV|@TAG...]")
@click.option("-a", "--all", "hidden", is_flag=True, help="Also hidden volumes, in brackets.")
@click.option("-H", "--history", is_flag=True, hidden=True)
@click.option("--segments", is_flag=True, help="A row for each segment.")
@report_options
@reading_options
@click.pass_obj
def lvs(
    context: Context,
    /,
    names: tuple[str, ...],
    hidden: bool,
    history: bool,
    segments: bool,
    **values: Any,
) -> int:
    """List logical volumes."""
    output = Output(context, values, "seg" if segments else "lv")
    part = output.part("seg" if segments else "lv")
    by_segment = part.rows == "seg"
    session = context.session()

    def look() -> tuple[_Volumes, States]:
        found = _volumes(session, names)
        return found, states_of(session, found.groups, part.rows)

    found, states = at_rest(session, look)
    rows = list(
        lv_rows(
            found.scan,
            found.groups,
            states,
            hidden=hidden or found.only is not None,
            by_segment=by_segment,
            only=found.only,
        )
    )
    _log_volumes(output.log, found.groups, rows)
    status = warned(session, output.log, found.failures)
    output.add((part, rows))
    output.finish()
    return status


class _Volumes(NamedTuple):
    """`only`: (UUID of the VG, LV) of the volumes to show, or None for all."""

    scan: Scan
    groups: list[VolumeGroup]
    only: frozenset[tuple[str, str]] | None
    failures: list[Failure]


def _volumes(session: Session, names: Sequence[str]) -> _Volumes:
    """What is to be shown of what there is now."""
    scan = session.scan()
    wanted, tagged, only, failures = _named_volumes(session, scan, names)
    groups, broken = groups_of(session, scan, wanted) if wanted or not names else ([], [])
    groups = _once(*groups, *tagged)
    exported = [vg for vg in groups if "EXPORTED" in vg.status]
    groups = [vg for vg in groups if "EXPORTED" not in vg.status]
    if names:
        failures += [
            Failure(vg_object(vg), f"Volume group {vg.name} is exported") for vg in exported
        ]
    return _Volumes(scan, groups, only, [*broken, *failures])


def _log_volumes(log: CommandLog, groups: Sequence[VolumeGroup], rows: Sequence[Row]) -> None:
    for vg in groups:
        uuids = {row.lv.uuid: row.lv.name for row in rows if row.vg is vg and row.lv is not None}
        for uuid, name in uuids.items():
            log.state(LogObject("lv", name, uuid, vg.name, vg.uuid))
        log.state(vg_object(vg))


def _named_volumes(
    session: Session, scan: Scan, names: Sequence[str]
) -> tuple[list[str], list[VolumeGroup], frozenset[tuple[str, str]] | None, list[Failure]]:
    """(VGs that are named, those found by a tag, `_Volumes.only`, sentences)."""
    wanted: list[str] = []
    tagged: list[VolumeGroup] = []
    only: set[tuple[str, str]] = set()
    whole: set[str] = set()
    failures: list[Failure] = []
    for name in names:
        if name.startswith("@"):
            _tell_of_foreign(session, scan)
            tag = check_tag(name[1:])
            whole |= {vg.uuid for vg in scan.vgs if tag in vg.tags}
            volumes = {(vg.uuid, lv.name) for vg in scan.vgs for lv in vg.lvs if tag in lv.tags}
            only |= volumes
            chosen = whole.union(uuid for uuid, _ in volumes)
            tagged += [vg for vg in scan.vgs if vg.uuid in chosen]
            continue
        try:
            group, volume = split_known(name, session.host.run_dir, session.host.default_vg)
        except NotFoundError as error:
            failures.append(Failure(LogObject("vg", name), error.message))
            continue
        same = [vg for vg in scan.vgs if vg.name == group]
        found = same[0] if len(same) == 1 else None  # else `groups_of` says what there is
        if found is not None and volume is not None:
            lv = found.lv(volume)
            there = lv is not None and lv.snapshot_segment is None
            if not there and "EXPORTED" not in found.status:
                sentence = f'Failed to find logical volume "{group}/{volume}"'
                missing = LogObject("lv", volume, "", found.name, found.uuid)
                failures.append(Failure(missing, sentence, vg_object(found)))
                continue
            only.add((found.uuid, volume))
        elif found is not None:
            whole.add(found.uuid)
        wanted.append(group)
    wanted = list(dict.fromkeys(wanted))
    if not only:
        return wanted, tagged, None, failures
    for vg in scan.vgs:
        if vg.uuid in whole:
            only |= {(vg.uuid, lv.name) for lv in vg.visible_lvs()}
    return wanted, tagged, frozenset(only), failures


@click.command(cls=ReportCommand)
@click.argument("names", nargs=-1, metavar="[VG|@TAG...]")
@click.option("-a", "--all", "hidden", is_flag=True, hidden=True)
@report_options
@reading_options
@click.pass_obj
def vgs(context: Context, /, names: tuple[str, ...], hidden: bool, **values: Any) -> int:
    """List volume groups."""
    output = Output(context, values, "vg")
    part = output.part("vg")
    session = context.session()
    scan = session.scan()
    tags = {check_tag(name[1:]) for name in names if name.startswith("@")}
    if tags:
        _tell_of_foreign(session, scan)
    named = [name for name in names if not name.startswith("@")]
    groups, failures = groups_of(session, scan, named) if named or not names else ([], [])
    groups = _once(*groups, *(vg for vg in scan.vgs if tags & {*vg.tags}))
    for vg in groups:
        output.log.state(vg_object(vg))
    status = warned(session, output.log, failures)
    output.add((part, _rows_of_groups(session, scan, groups, part.rows, hidden=hidden)))
    output.finish()
    return status


def _rows_of_groups(
    session: Session, scan: Scan, groups: Sequence[VolumeGroup], rows: str, *, hidden: bool
) -> Iterable[Row]:
    states = states_of(session, groups, rows)
    if rows in ("lv", "seg"):
        return vg_lv_rows(scan, groups, states, by_segment=rows == "seg", hidden=hidden)
    if rows in ("pv", "pvseg"):
        shown = {vg.uuid for vg in groups}
        every = pv_rows(scan, by_segment=rows == "pvseg", states=states)
        return (row for row in every if row.vg and row.vg.uuid in shown)
    return vg_rows(scan, groups)


@click.command(cls=ReportCommand)
@click.argument("names", nargs=-1, metavar="[PATH|@TAG...]")
@click.option("-a", "--all", "hidden", is_flag=True, help="Also devices that are none.")
@click.option("--segments", is_flag=True, help="A row for each run of extents.")
@report_options
@reading_options
@click.pass_obj
def pvs(
    context: Context, /, names: tuple[str, ...], hidden: bool, segments: bool, **values: Any
) -> int:
    """List physical volumes."""
    output = Output(context, values, "pvseg" if segments else "pv")
    part = output.part("pvseg" if segments else "pv")
    session = context.session()
    tags = {check_tag(name[1:]) for name in names if name.startswith("@")}
    run_dir = session.host.run_dir
    paths = {given_device(name, run_dir): name for name in names if not name.startswith("@")}
    scan = session.scan(paths, unowned=True)
    _tell_of_foreign(session, scan)
    by_segment = part.rows == "pvseg"
    states = states_of(session, scan.vgs, part.rows)
    everything = hidden and not names
    found = pv_rows(scan, by_segment=by_segment, states=states, everything=everything, named=paths)
    rows = list(found)
    known = {row.device.path for row in rows if row.device}
    failures = _unknown(session, [name for path, name in paths.items() if path not in known])
    if names:
        rows = [
            row
            for row in rows
            if (row.device is not None and row.device.path in paths)
            or (row.pv is not None and tags & set(row.pv.tags))
        ]
    _log_devices(output.log, rows)
    status = warned(session, output.log, failures)
    output.add((part, rows))
    output.finish()
    return status


def _unknown(session: Session, names: Sequence[str]) -> list[Failure]:
    """What is said of names that are those of no PV."""
    if not names:
        return []
    from ulvm.cli.choose import no_such_pv

    return [Failure(LogObject("pv", name), no_such_pv(session, name)) for name in names]


def _log_devices(log: CommandLog, rows: Sequence[Row]) -> None:
    before: VolumeGroup | None = None
    seen: set[str] = set()
    for row in rows:
        if before is not None and row.vg is not before:
            log.state(vg_object(before))
        before = row.vg
        uuid = row.pv_uuid
        if uuid not in seen:
            seen.add(uuid)
            name = row.device.path if row.device else "[unknown]"
            group = (row.vg.name, row.vg.uuid) if row.vg else ("", "")
            log.state(LogObject("pv", name, uuid, *group))
    if before is not None:
        log.state(vg_object(before))
    elif rows:
        log.state(LogObject("orphan", "lvm2"))
