"""vgcfgrestore and vgck."""

from __future__ import annotations

from pathlib import Path

import click

from ulvm.cli.arguments import each
from ulvm.cli.context import Context, common_options
from ulvm.lvm import restore as lvm_restore
from ulvm.lvm.names import vg_name
from ulvm.metadata.text_words import local_time

__all__ = ["vgcfgrestore", "vgck"]


@click.command()
@click.argument("name", metavar="VG")
@click.option("-f", "--file", "path", help="A file of vgcfgbackup or of the archive.")
@click.option("-l", "--list", "listing", is_flag=True, help="Show what there is to restore.")
@click.option("--force", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def vgcfgrestore(context: Context, name: str, path: str | None, listing: bool, force: bool) -> None:
    """Bring back the metadata of a volume group from a text file, by default its last backup.

    \b
    vgcfgrestore -l vg
    vgcfgrestore -f /etc/ulvm/archive/vg_00003-12345.vg vg
    """
    session = context.session()
    group = vg_name(name, session.host.run_dir)
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
        session.say("")


@click.command()
@click.argument("names", nargs=-1, metavar="[VG...]")
@click.option("--updatemetadata", is_flag=True, help="Write the newest metadata to all areas.")
@common_options
@click.pass_obj
def vgck(context: Context, names: tuple[str, ...], updatemetadata: bool) -> int:
    """Check the metadata of volume groups."""
    session = context.session()
    run_dir = session.host.run_dir
    groups = [vg_name(n, run_dir) for n in names] or [vg.name for vg in session.scan().vgs]

    def check(group: str) -> None:
        if updatemetadata:
            lvm_restore.rewrite(session, group)
        else:
            lvm_restore.check(session, group)

    return each(session, groups, check)
