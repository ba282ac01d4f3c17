"""pvcreate, pvremove, pvchange, pvresize."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from ulvm.cli.arguments import YES_NO, Number, OneOf, no_such_syntax, select_option
from ulvm.cli.choose import Chosen, choose_pvs
from ulvm.cli.common_options import backup_option, common_options
from ulvm.cli.context import Context
from ulvm.cli.processed import Processed
from ulvm.errors import UlvmError, UsageError
from ulvm.lvm import pv as lvm_pv
from ulvm.lvm import pv_change
from ulvm.lvm.pv_restore import restored_options
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import parse_sectors, parse_size
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.names import check_tag
from ulvm.metadata.uuid import UUID_LEN, format_uuid
from ulvm.vgstore.config import Config

__all__ = [
    "check_label_sector",
    "layout_options",
    "pv_options",
    "pvchange",
    "pvcreate",
    "pvremove",
    "pvresize",
]

_NOTHING = re.compile(r"\+?0+(\.0*)?[a-zA-Z]?", re.ASCII)
_F = TypeVar("_F", bound=Callable[..., Any])


def layout_options(function: _F) -> _F:
    """The options that shape a new PV, of pvcreate, vgcreate and vgextend."""
    options = [
        click.option("--metadatasize", help="Size of a metadata area (default: to 1 MiB)."),
        click.option("--pvmetadatacopies", "--metadatacopies", type=OneOf("0", "1", "2"),
                     help="Metadata areas on the PV (default 1)."),
        click.option("--dataalignment", help="Align the first extent to this (default 1m)."),
        click.option("--dataalignmentoffset", help="Shift the first extent by this."),
        click.option("--metadataignore", type=YES_NO,
                     help="Make the metadata areas and leave them out of use."),
        click.option("--labelsector", type=Number(), default=1,
                     help="The label's sector, 0 to 3 (default 1)."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def check_label_sector(values: dict[str, Any]) -> None:
    """UsageError, before anything else is looked at."""
    if values["labelsector"] > 3:
        raise UsageError("labelsector must be less than 4.")


def pv_options(values: dict[str, Any], config: Config) -> PvOptions:
    """`PvOptions` from the values of `layout_options`, and the settings where nothing is given."""

    check_label_sector(values)
    copies = values["pvmetadatacopies"]
    if copies is None:
        copies = config.get_int("metadata/pvmetadatacopies", 1)
    if not 0 <= int(copies) <= 2:
        raise UsageError(f"Invalid number of metadata areas in metadata/pvmetadatacopies: {copies}")
    ignore = values["metadataignore"]
    return PvOptions(
        metadata_size=_size(values["metadatasize"], "metadatasize", "m")
        or _natural("metadata/pvmetadatasize", config.get_int("metadata/pvmetadatasize", 0)),
        metadata_copies=int(copies),
        data_alignment=_size(values["dataalignment"], "dataalignment", "k")
        or _set_alignment(config),
        data_alignment_offset=_size(values["dataalignmentoffset"], "dataalignmentoffset", "k"),
        bootloader_area_size=_size(values.get("bootloaderareasize"), "bootloaderareasize", "m"),
        label_sector=values["labelsector"],
        metadata_ignore=config.get_bool("metadata/pvmetadataignore", False)
        if ignore is None
        else ignore == "y",
    )


def _set_alignment(config: Config) -> int:
    """Sectors, of devices/data_alignment in KiB or default_data_alignment in MiB; 0: as LVM."""
    kib = _natural("devices/data_alignment", config.get_int("devices/data_alignment", 0))
    mib = _natural(
        "devices/default_data_alignment", config.get_int("devices/default_data_alignment", 1)
    )
    return kib * 2 if kib else mib * 2048


def _natural(name: str, value: int) -> int:
    """A setting that counts something."""
    if not 0 <= value < 1 << 32:
        raise UsageError(f"Configuration setting {name} is {value}, which is out of range.")
    return value


def _size(text: str | None, option: str, unit: str) -> int:
    """Sectors; 0 if nothing was given, or 0."""
    if text is None or _NOTHING.fullmatch(text):
        return 0
    return parse_sectors(text, f"--{option}", unit=unit)


def _uuid(text: str) -> str:
    """With dashes; UsageError in LVM's words."""
    raw = text.replace("-", "")
    if len(raw) != UUID_LEN:
        raise UsageError("Couldn't read uuid: incorrect number of characters.")
    for character in raw:
        if not (character.isascii() and (character.isalnum() or character in "!#")):
            raise UsageError(f"UUID contains invalid character '{character}'")
    return format_uuid(raw)


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("-f", "--force", count=True, help="Do not ask; -ff: also a PV that a VG uses.")
@click.option("-u", "--uuid", help="Give the PV this UUID.")
@click.option("--bootloaderareasize", help="Space kept free before the first extent.")
@click.option("--norestorefile", is_flag=True, help="With --uuid: there is no backup to follow.")
@click.option(
    "--restorefile",
    metavar="FILE",
    help="With --uuid: put the extents where this backup of the metadata has them.",
)
@click.option(
    "--setphysicalvolumesize", metavar="SIZE", help="Take this size instead of the device's."
)
@click.option("-Z", "--zero", type=YES_NO, help="Wipe the first 2 KiB (default y).")
@click.option("-M", "--metadatatype", type=OneOf("lvm2", "2"), hidden=True)
@layout_options
@common_options
@click.pass_obj
def pvcreate(
    context: Context,
    /,
    paths: tuple[str, ...],
    force: int,
    uuid: str | None,
    norestorefile: bool,
    restorefile: str | None,
    setphysicalvolumesize: str | None,
    zero: str | None,
    metadatatype: str | None,
    **layout: Any,
) -> int:
    """Make disks or plain files physical volumes.

    \b
    truncate -s 10G disk.img
    pvcreate disk.img
    """
    if not paths:
        raise no_such_syntax("pvcreate")
    if restorefile is not None:
        _refuse_with("--restorefile", norestorefile, "--norestorefile")
        _refuse_with("--restorefile", bool(layout["bootloaderareasize"]), "--bootloaderareasize")
    if restorefile is not None and uuid is None:
        raise UsageError("--uuid is required with --restorefile")
    if uuid is not None and len(paths) != 1:
        raise UsageError("Can only set uuid on one volume at once")
    wants_file = context.host.config.get_bool("devices/require_restorefile_with_uuid", True)
    if uuid is not None and restorefile is None and not norestorefile and wants_file:
        raise UsageError("--restorefile is required with --uuid")
    wanted = None if uuid is None else _uuid(uuid)
    session = context.session()
    options = replace(
        pv_options(layout, session.host.config),
        zero=(zero or ("n" if wanted else "y")) == "y",
        size=_size(setphysicalvolumesize, "setphysicalvolumesize", "m"),
    )
    if wanted is not None and restorefile is not None:
        options = restored_options(session, restorefile, wanted, options)
    _, failed = lvm_pv.create(session, paths, options=options, uuid=wanted, force=force)
    return 5 if failed else 0


def _refuse_with(option: str, given: bool, other: str) -> None:
    if given:
        raise UsageError(f"Command does not accept option combination: {other}  with {option} ")


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("-f", "--force", count=True, help="-ff: also a PV that a VG uses.")
@common_options
@click.pass_obj
def pvremove(context: Context, paths: tuple[str, ...], force: int) -> int:
    """Wipe the labels of physical volumes."""
    if not paths:
        raise no_such_syntax("pvremove")
    return 5 if lvm_pv.remove(context.session(), paths, force=force) else 0


def _counted(
    session: Session, chosen: Chosen, work: Callable[[str], bool], refused: str
) -> tuple[int, int, int]:
    """Do the work for each PV and say so: how many were changed, how many were not though they are
    there, and the exit code. A device that is not there counts as neither, as in LVM; one that is
    as wanted already is no failure."""
    done = left = status = 0
    for sentence in chosen.failures:
        session.warn(sentence)
        status = UlvmError.exit_code
    processed = Processed(session)
    for path in chosen.names:
        with processed.device(path) as told:
            try:
                changed = work(path)
            except UlvmError as error:
                session.warn(error.message)
                if refused:
                    session.warn(refused.format(path))
                status = error.exit_code
                left += 1
                told.failed = True
                continue
            if changed:
                session.say(f'Physical volume "{path}" changed')
                done += 1
            else:
                session.say(refused.format(path))
                left += 1
    processed.end()
    return done, left, status


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("-a", "--all", "everything", is_flag=True, help="All physical volumes.")
@click.option("-x", "--allocatable", type=YES_NO, help="Whether extents may be taken from it.")
@click.option("-u", "--uuid", "new_identity", is_flag=True, help="Give it a new UUID.")
@click.option("--metadataignore", type=YES_NO, help="Whether its metadata areas are out of use.")
@click.option("--addtag", multiple=True, help="Add a tag.")
@click.option("--deltag", multiple=True, help="Remove a tag.")
@click.option("-f", "--force", count=True, hidden=True)
@select_option
@backup_option
@common_options
@click.pass_obj
def pvchange(
    context: Context,
    paths: tuple[str, ...],
    everything: bool,
    allocatable: str | None,
    new_identity: bool,
    metadataignore: str | None,
    addtag: tuple[str, ...],
    deltag: tuple[str, ...],
    force: int,
    select: str | None,
) -> int:
    """Change physical volumes: tags, UUID, whether extents and metadata areas are used."""
    wanted = allocatable or new_identity or metadataignore or addtag or deltag
    if everything and paths:
        raise UsageError(f"Command does not accept argument: {paths[0]}.")
    if not wanted or not (everything or paths or select is not None):
        raise no_such_syntax("pvchange")
    session = context.session()
    add = [check_tag(tag) for tag in addtag]
    drop = [check_tag(tag, "--deltag") for tag in deltag]

    def change(path: str) -> bool:
        return pv_change.change(
            session,
            path,
            allocatable=None if allocatable is None else allocatable == "y",
            add_tags=add,
            remove_tags=drop,
            new_identity=new_identity,
            ignore=None if metadataignore is None else metadataignore == "y",
            force=force > 0,
        )

    done = left = 0
    try:
        chosen = choose_pvs(session, paths, select, change=True)
        done, left, status = _counted(session, chosen, change, "Physical volume {} not changed")
    finally:
        session.say(
            f"{done} physical volume{'s' * (done != 1)} changed / "
            f"{left} physical volume{'s' * (left != 1)} not changed"
        )
    return status


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("--setphysicalvolumesize", help="Take this size instead of the device's.")
@common_options
@click.pass_obj
def pvresize(context: Context, paths: tuple[str, ...], setphysicalvolumesize: str | None) -> int:
    """Bring physical volumes to the size of their disks or files.

    \b
    truncate -s 20G disk.img
    pvresize disk.img
    """
    if not paths:
        raise no_such_syntax("pvresize")
    session = context.session()
    sectors = None
    if setphysicalvolumesize is not None:
        if setphysicalvolumesize[:1] in ("+", "-"):
            raise UsageError(
                "Size may not be relative/signed.\n"
                f"Invalid argument for --setphysicalvolumesize: {setphysicalvolumesize}"
            )
        # None at all is as if it had not been given.
        size = parse_size(setphysicalvolumesize, "--setphysicalvolumesize", signs="", zero=True)
        sectors = size.sectors or None

    def resize(path: str) -> bool:
        pv_change.resize(session, path, sectors)
        return True

    chosen = choose_pvs(session, paths, change=True)
    done, left, status = _counted(session, chosen, resize, "")
    session.say(
        f"{done} physical volume(s) resized or updated / {left} physical volume(s) not resized"
    )
    return status
