"""vgexport, vgimport, vgimportclone, vgsplit, vgmerge."""

from __future__ import annotations

from typing import Any

import click

from ulvm.cli.arguments import Number, OneOf, no_such_syntax, select_option
from ulvm.cli.choose import each_vg
from ulvm.cli.common_options import backup_option, common_options
from ulvm.cli.context import Context
from ulvm.cli.words import ALLOC, COPIES
from ulvm.errors import RefusedError, UlvmError, UsageError
from ulvm.lvm import regroup
from ulvm.lvm.names import given_vg, new_vg_name
from ulvm.lvm.session import Session

__all__ = ["vgexport", "vgimport", "vgimportclone", "vgmerge", "vgsplit"]


def _check_words(
    command: str, names: tuple[str, ...], everything: bool, select: str | None
) -> None:
    if everything and names:
        raise UsageError(f"Command does not accept argument: {names[0]}.")
    if not (everything or names or select is not None):
        raise no_such_syntax(command)


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|@TAG...]")
@click.option("-a", "--all", "everything", is_flag=True, help="All volume groups.")
@select_option
@common_options
@click.pass_obj
def vgexport(context: Context, names: tuple[str, ...], everything: bool, select: str | None) -> int:
    """Make inactive volume groups ready to be moved to another host: they cannot be used until
    vgimport."""
    _check_words("vgexport", names, everything, select)
    session = context.session()

    def export(name: str) -> None:
        regroup.exported(session, name)
        session.say(f'Volume group "{name}" successfully exported')

    return each_vg(session, names, export, select=select, exported=False)


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|@TAG...]")
@click.option("-a", "--all", "everything", is_flag=True, help="All volume groups.")
@click.option("-f", "--force", count=True, help="Also while physical volumes are missing.")
@select_option
@common_options
@click.pass_obj
def vgimport(
    context: Context, names: tuple[str, ...], everything: bool, force: int, select: str | None
) -> int:
    """Make exported volume groups usable here."""
    _check_words("vgimport", names, everything, select)
    session = context.session()
    if force:
        session.warn("WARNING: Volume groups with missing PVs will be imported with --force.")

    def take_in(name: str) -> None:
        regroup.imported(session, name, incomplete=force > 0)
        session.say(f'Volume group "{name}" successfully imported')

    return each_vg(session, names, take_in, select=select)


@click.command()
@click.argument("source", metavar="VG")
@click.argument("target", metavar="VG|NEW")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("-n", "--name", "lv_name", metavar="LV", help="The PVs that this volume lies on.")
@click.option("-l", "--maxlogicalvolumes", type=Number(), help="Of a new group; 0: no limit.")
@click.option("-p", "--maxphysicalvolumes", type=Number(), help="Of a new group; 0: no limit.")
@click.option("--alloc", type=ALLOC, help="Allocation policy of a new group.")
@click.option("--vgmetadatacopies", type=COPIES, help="Metadata areas of a new group to use.")
@click.option("-M", "--metadatatype", type=OneOf("lvm2", "2"), expose_value=False, hidden=True)
@click.option("--poolmetadataspare", type=OneOf("y", "n"), expose_value=False, hidden=True)
@backup_option
@common_options
@click.pass_obj
def vgsplit(
    context: Context,
    /,
    source: str,
    target: str,
    paths: tuple[str, ...],
    lv_name: str | None,
    **asked: Any,
) -> None:
    """Move physical volumes, with the inactive volumes on them, to another or a new volume
    group."""
    if not paths and lv_name is None:
        raise no_such_syntax("vgsplit")
    if paths and lv_name is not None:
        raise UsageError(f"Command does not accept argument: {paths[0]}.")
    names = {
        "maxlogicalvolumes": "max_lv",
        "maxphysicalvolumes": "max_pv",
        "alloc": "allocation_policy",
        "vgmetadatacopies": "metadata_copies",
    }
    attributes = {names[key]: value for key, value in asked.items() if value is not None}
    if attributes.get("allocation_policy") == "inherit":
        raise UsageError("Volume Group allocation policy cannot inherit from anything")
    session = context.session()
    try:
        old = _first_line_only(source, session)
    except RefusedError as error:
        raise RefusedError(f"{error.message}\nFailed to read VG {target}.") from None
    try:
        other = new_vg_name(target, session.host.run_dir)
    except UlvmError:
        raise RefusedError(f"Invalid vg name {target}.") from None
    name = None if lv_name is None else lv_name.rpartition("/")[2]
    new = regroup.split(session, old, other, paths=paths, lv_name=name, attributes=attributes)
    kind = "New" if new else "Existing"
    session.say(f'{kind} volume group "{other}" successfully split from "{old}"')


def _first_line_only(text: str, session: Session) -> str:
    """`given_vg`, refused in the words of commands that work on two VGs."""
    try:
        return given_vg(text, session.host.run_dir)
    except RefusedError as error:
        raise RefusedError(error.message.splitlines()[0]) from None


@click.command()
@click.argument("target", metavar="VG")
@click.argument("source", metavar="VG")
@click.option("-l", "--list", is_flag=True, expose_value=False, hidden=True)
@click.option("--poolmetadataspare", type=OneOf("y", "n"), expose_value=False, hidden=True)
@backup_option
@common_options
@click.pass_obj
def vgmerge(context: Context, target: str, source: str) -> None:
    """Put all of the inactive volume group that is named second into the first."""
    session = context.session()
    into, other = _first_line_only(target, session), _first_line_only(source, session)
    regroup.merge(session, into, other)
    session.say(f'Volume group "{other}" successfully merged into "{into}"')


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option(
    "-n", "--basevgname", metavar="VG", help="Its name; a number follows if that is taken."
)
@click.option("-i", "--import", "exported", is_flag=True, help="Also if it is exported.")
@click.option("--importdevices", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def vgimportclone(
    context: Context,
    paths: tuple[str, ...],
    basevgname: str | None,
    exported: bool,
    importdevices: bool,
) -> None:
    """Make a volume group of its own of copies of all disks of one.

    \b
    cp --reflink=auto disk.img copy.img
    vgimportclone copy.img
    """
    if not paths:
        raise no_such_syntax("vgimportclone")
    from ulvm.lvm.clone import import_clone

    session = context.session()
    name = None if basevgname is None else new_vg_name(basevgname, session.host.run_dir)
    import_clone(session, paths, name=name, exported=exported)
