"""vgcfgbackup, vgcfgrestore, vgck, vgscan and vgmknodes: metadata as text, and what is there."""

from __future__ import annotations

from pathlib import Path

import click

from ulvm.cli.arguments import OneOf, no_such_syntax
from ulvm.cli.choose import choose_lvs, each_vg
from ulvm.cli.common_options import common_options, foreign_option, read_only_option
from ulvm.cli.context import Context
from ulvm.errors import RefusedError, UsageError
from ulvm.lvm import restore as lvm_restore
from ulvm.lvm import vg_activation
from ulvm.lvm.names import vg_name
from ulvm.metadata.text_words import local_time
from ulvm.vgstore.archive import backup_vg, backup_words

__all__ = ["vgcfgbackup", "vgcfgrestore", "vgck", "vgmknodes", "vgscan"]

_ignore_lock = click.option("--ignorelockingfailure", is_flag=True, expose_value=False, hidden=True)


@click.command()
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("-f", "--file", "path", help="Write to this file; %s becomes the VG's name.")
@_ignore_lock
@read_only_option
@foreign_option
@common_options
@click.pass_obj
def vgcfgbackup(context: Context, names: tuple[str, ...], path: str | None) -> int:
    """Write the metadata of volume groups to text files."""
    session = context.session()
    written: set[str] = set()

    def back_up(name: str) -> None:
        vg = session.find_vg(name)
        if path is None and vg.partial:
            raise RefusedError(
                "No backup taken: specify filename with -f to backup with missing PVs."
            )
        target = None if path is None else path.replace("%s", name)
        if target in written:
            raise RefusedError(
                "VGs must be backed up into different files. Use %s in filename for VG name."
            )
        file = None if target is None else Path(target).absolute()
        found = session.last_scan.as_found(vg)
        backup = backup_vg(session.host, found, session.command_line, path=file, force=True)
        if backup is not None:
            session.verbose(backup_words(session.host, backup, found))
        session.say(f'Volume group "{name}" successfully backed up.')
        if target is not None:
            written.add(target)

    return each_vg(session, names, back_up)


@click.command()
@click.argument("name", metavar="VG", required=False)
@click.option("-f", "--file", "path", help="A file of vgcfgbackup or of the archive.")
@click.option("-l", "--list", "listing", is_flag=True, help="Show what there is to restore.")
@click.option("-M", "--metadatatype", type=OneOf("lvm2", "2"), expose_value=False, hidden=True)
@click.option("--force", count=True, expose_value=False, hidden=True)
@common_options
@click.pass_obj
def vgcfgrestore(context: Context, name: str | None, path: str | None, listing: bool) -> None:
    """Bring back the metadata of a volume group from a text file, by default its last backup.

    \b
    vgcfgrestore -l vg
    vgcfgrestore -f /etc/ulvm/archive/vg_00003-12345.vg vg
    """
    if name is None and not (listing and path is not None):
        raise no_such_syntax("vgcfgrestore")
    session = context.session()
    group = ""
    if name is not None:
        try:
            group = vg_name(name, session.host.run_dir)
        except (RefusedError, UsageError):
            raise UsageError(f'Volume group name "{name}" is invalid.') from None
    file = None if path is None else Path(path)
    if not listing:
        lvm_restore.restore(session, group, file)
        session.say(f"Restored volume group {group}.")
        return
    for found, vg, header in lvm_restore.backups(session, group, file):
        session.say(" ")
        session.say(f"File:\t\t{found}")
        session.say(f"VG name:    \t{vg.name}")
        session.say(f"Description:\t{header.description}")
        session.say(f"Backup Time:\t{local_time('%a %b %e %T %Y', header.creation_time)}")
        click.echo()


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|@TAG...]")
@click.option("--updatemetadata", is_flag=True, help="Write the newest metadata to all areas.")
@common_options
@click.pass_obj
def vgck(context: Context, names: tuple[str, ...], updatemetadata: bool) -> int:
    """Check the metadata of volume groups."""
    if updatemetadata and not names:
        raise UsageError("Command does not accept option: --updatemetadata.")
    if updatemetadata and len(names) > 1:
        raise UsageError(f"Command does not accept argument: {names[1]}.")
    session = context.session()

    def check(group: str) -> None:
        if updatemetadata:
            lvm_restore.rewrite(session, group)
        else:
            lvm_restore.check(session, group)

    return each_vg(session, names, check, exported=False)


@click.command()
@click.option("--mknodes", is_flag=True, expose_value=False, hidden=True)
@click.option("--cache", is_flag=True, expose_value=False, hidden=True)
@click.option("--notifydbus", is_flag=True, hidden=True)
@_ignore_lock
@common_options
@click.pass_obj
def vgscan(context: Context, notifydbus: bool) -> int:
    """List all volume groups."""
    if notifydbus:
        return 0
    session = context.session()

    def show(name: str) -> None:
        exported = "EXPORTED" in session.last_scan.vg(name).status
        kind = "exported volume group" if exported else "volume group"
        session.say(f'Found {kind} "{name}" using metadata type lvm2')

    return each_vg(session, (), show)


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|LV|@TAG...]")
@click.option("--refresh", is_flag=True, help="Bring the devices to the metadata.")
@_ignore_lock
@common_options
@click.pass_obj
def vgmknodes(context: Context, names: tuple[str, ...], refresh: bool) -> int:
    """See that the files of active volumes are there. They always are, as long as the daemon runs;
    what a command that died left suspended is mended."""
    session = context.session()
    volumes, failures = choose_lvs(session, names)
    for uuid, group in dict.fromkeys((lv.vg_uuid, lv.name.partition("/")[0]) for lv in volumes):
        session.mean(uuid)
        vg = session.last_scan.vg(group)
        if refresh and "EXPORTED" not in vg.status:
            vg_activation.refresh(session, group)
        elif session.host.activation:
            with session.lock(group, for_devices=True):
                session.repair(session.find_vg(group))
    for sentence in failures:
        session.warn(sentence)
    return 5 if failures else 0
