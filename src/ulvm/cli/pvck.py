"""pvck: look into the headers and metadata of a device, and mend them."""

from __future__ import annotations

from pathlib import Path

import click

from ulvm.cli.arguments import Number, OneOf, each, no_such_syntax
from ulvm.cli.common_options import common_options
from ulvm.cli.context import Context
from ulvm.errors import UsageError
from ulvm.lvm import pvck as lvm_pvck

__all__ = ["pvck"]


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("--dump", type=OneOf(*lvm_pvck.DUMPS), help="Show headers or metadata.")
@click.option(
    "-f",
    "--file",
    "file",
    metavar="FILE",
    help="Of --dump: where metadata go; of --repair: where they come from.",
)
@click.option(
    "--settings",
    metavar="KEY=VALUE...",
    help="What headers should say: mda_offset, mda_size, mda_num, pv_uuid ...",
)
@click.option(
    "--pvmetadatacopies",
    type=OneOf("0", "1", "2"),
    help="2: look for the second metadata area where there are no headers.",
)
@click.option(
    "--repairtype",
    type=OneOf("pv_header", "metadata", "label_header"),
    help="Write this header or the metadata anew.",
)
@click.option("--repair", is_flag=True, help="Write headers and metadata from a file.")
@click.option("--labelsector", type=Number(3), help="Where the label is.")
@common_options
@click.pass_obj
def pvck(
    context: Context,
    /,
    paths: tuple[str, ...],
    dump: str | None,
    file: str | None,
    settings: str | None,
    pvmetadatacopies: str | None,
    repairtype: str | None,
    repair: bool,
    labelsector: int | None,
) -> int:
    """Check the headers and metadata on disks and files, show them, or mend them.

    \b
    pvck --dump metadata_search disk.img
    pvck --dump metadata --file found disk.img
    pvck --repair --file found disk.img
    """
    if not paths:
        raise no_such_syntax("pvck")
    if repair and file is None:
        raise UsageError("Command does not accept option: --repair.")
    if (dump or repairtype or repair) and len(paths) > 1:
        raise UsageError(f"Command does not accept argument: {paths[1]}.")
    session = context.session()
    wanted = lvm_pvck.parse_settings(settings)
    source = None if file is None else Path(file)
    if dump is not None:
        lvm_pvck.dump(
            session,
            paths[0],
            dump,
            settings=wanted,
            file=source,
            copies=None if pvmetadatacopies is None else int(pvmetadatacopies),
            label_sector=labelsector,
            verbose=context.verbose > 0,
        )
        return 0
    if repair or repairtype is not None:
        from ulvm.lvm.pv_repair import repair as write

        kind = None if repair else repairtype
        write(session, paths[0], kind, settings=wanted, file=source, label_sector=labelsector)
        return 0
    return each(session, paths, lambda path: lvm_pvck.check(session, path, labelsector))
