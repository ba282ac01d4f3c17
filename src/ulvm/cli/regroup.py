"""vgexport, vgimport, vgimportclone, vgsplit, vgmerge."""

from __future__ import annotations

from collections.abc import Callable

import click

from ulvm.cli.arguments import each, no_such_syntax
from ulvm.cli.context import Context, common_options
from ulvm.errors import UsageError
from ulvm.lvm import regroup
from ulvm.lvm.names import new_vg_name, vg_name
from ulvm.lvm.session import Session

__all__ = ["vgexport", "vgimport", "vgimportclone", "vgmerge", "vgsplit"]


def _each_group(
    session: Session,
    command: str,
    names: tuple[str, ...],
    everything: bool,
    work: Callable[[Session, str], None],
    done: str,
) -> int:
    if bool(names) == everything:
        raise no_such_syntax(command)
    run_dir = session.host.run_dir
    groups = [vg_name(name, run_dir) for name in names]
    if everything:
        groups = [vg.name for vg in session.scan().vgs]

    def one(name: str) -> None:
        work(session, name)
        session.say(f'Volume group "{name}" successfully {done}')

    return each(session, groups, one)


@click.command()
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-a", "--all", "everything", is_flag=True, help="All volume groups.")
@common_options
@click.pass_obj
def vgexport(context: Context, names: tuple[str, ...], everything: bool) -> int:
    """Make inactive volume groups ready to be moved to another host: they cannot be used until
    vgimport."""
    return _each_group(
        context.session(), "vgexport", names, everything, regroup.exported, "exported"
    )


@click.command()
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-a", "--all", "everything", is_flag=True, help="All volume groups.")
@common_options
@click.pass_obj
def vgimport(context: Context, names: tuple[str, ...], everything: bool) -> int:
    """Make exported volume groups usable here."""
    return _each_group(
        context.session(), "vgimport", names, everything, regroup.imported, "imported"
    )


@click.command()
@click.argument("source", metavar="VG")
@click.argument("target", metavar="VG|NEW")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("-n", "--name", "lv_name", metavar="LV", help="The PVs that this volume lies on.")
@common_options
@click.pass_obj
def vgsplit(
    context: Context, source: str, target: str, paths: tuple[str, ...], lv_name: str | None
) -> None:
    """Move physical volumes, with the inactive volumes on them, to another or a new volume
    group."""
    if not paths and lv_name is None:
        raise no_such_syntax("vgsplit")
    if paths and lv_name is not None:
        raise UsageError(f"Command does not accept argument: {paths[0]}.")
    session = context.session()
    run_dir = session.host.run_dir
    old, other = vg_name(source, run_dir), new_vg_name(target, run_dir)
    name = None if lv_name is None else lv_name.rpartition("/")[2]
    new = regroup.split(session, old, other, paths=paths, lv_name=name)
    kind = "New" if new else "Existing"
    session.say(f'{kind} volume group "{other}" successfully split from "{old}"')


@click.command()
@click.argument("target", metavar="VG")
@click.argument("source", metavar="VG")
@common_options
@click.pass_obj
def vgmerge(context: Context, target: str, source: str) -> None:
    """Put all of the inactive volume group that is named second into the first."""
    session = context.session()
    run_dir = session.host.run_dir
    into, other = vg_name(target, run_dir), vg_name(source, run_dir)
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
