"""lvchange."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import click

from ulvm.cli.arguments import (
    ALLOC,
    PERMISSION,
    READ_AHEAD,
    YES_NO,
    Number,
    check_mode,
    mode_option,
    no_such_syntax,
    select_option,
    wants_active,
)
from ulvm.cli.choose import ChosenLv, choose_lvs, each_lv
from ulvm.cli.choose_form import check_form
from ulvm.cli.common_options import (
    backup_option,
    common_options,
    metadata_profile_option,
    read_only_option,
    udev_option,
)
from ulvm.cli.context import Context
from ulvm.cli.lvcreate import check_numbers, whole_pages
from ulvm.dm_ioctl import DM_MAJOR
from ulvm.errors import NotFoundError, RefusedError, UsageError
from ulvm.lvm import lv_change
from ulvm.lvm.lv_change import Changes
from ulvm.lvm.names import split_known
from ulvm.lvm.session import Session
from ulvm.metadata.names import check_tag

__all__ = ["lvchange"]


@click.command()
@click.argument("names", nargs=-1, metavar="VG|LV|@TAG...")
@click.option("-a", "--activate", help="y, n, or ay: as at start-up.")
@click.option("-p", "--permission", type=PERMISSION, help="Read only or read-write.")
@click.option("--alloc", type=ALLOC, help="Policy for extents that it gets later.")
@click.option("-C", "--contiguous", type=YES_NO, help="The same as --alloc contiguous.")
@click.option("-r", "--readahead", type=READ_AHEAD, help="Sectors, or auto, or none.")
@click.option("--addtag", multiple=True, help="Add a tag.")
@click.option("--deltag", multiple=True, help="Remove a tag.")
@click.option(
    "-k", "--setactivationskip", type=YES_NO, help="y: plain activation leaves the volume out."
)
@click.option("-K", "--ignoreactivationskip", is_flag=True, help="Activate it even so.")
@click.option("--setautoactivation", type=YES_NO, help="n: -aay leaves the volume out.")
@click.option("-M", "--persistent", type=YES_NO, help="y: with --minor, always that number.")
@click.option("--minor", type=Number(), help="Minor number of the device.")
@click.option("-j", "--major", type=Number(), help="Major number; has no meaning here.")
@click.option("--refresh", is_flag=True, help="Load the tables anew, and resume what is suspended.")
@click.option("--poll", type=YES_NO, help="y: see to the end of a merge.")
@click.option("--monitor", "watch", type=YES_NO, help="n: the monitor leaves a snapshot alone.")
@mode_option
@click.option("-P", "--partial", is_flag=True, help="The same as --activationmode partial.")
@click.option("-Z", "--zero", type=YES_NO, hidden=True)
@click.option("--resync", is_flag=True, hidden=True)
@click.option("-f", "--force", count=True, hidden=True)
@click.option("--sysinit", is_flag=True, expose_value=False, hidden=True)
@click.option("--ignoremonitoring", is_flag=True, expose_value=False, hidden=True)
@click.option("--ignorelockingfailure", is_flag=True, expose_value=False, hidden=True)
@click.option("--detachprofile", is_flag=True, help="It has no profile from now on.")
@metadata_profile_option
@select_option
@read_only_option
@udev_option
@backup_option
@common_options
@click.pass_obj
def lvchange(
    context: Context,
    names: tuple[str, ...],
    activate: str | None,
    permission: str | None,
    alloc: str | None,
    contiguous: str | None,
    readahead: int | None,
    addtag: tuple[str, ...],
    deltag: tuple[str, ...],
    setactivationskip: str | None,
    ignoreactivationskip: bool,
    setautoactivation: str | None,
    persistent: str | None,
    minor: int | None,
    major: int | None,
    refresh: bool,
    poll: str | None,
    watch: str | None,
    activationmode: str | None,
    partial: bool,
    zero: str | None,
    resync: bool,
    detachprofile: bool,
    force: int,
    select: str | None,
) -> int:
    """Change logical volumes: activate and deactivate, permissions, tags, policies.

    \b
    lvchange -ay vg/data                activate
    lvchange -an @old                   deactivate what has the tag
    lvchange -pr vg/snap                read only
    lvchange --refresh vg/data          also begins a merge that waited
    """  # fmt: skip
    check_form("lvchange")
    check_mode(activationmode)
    session = context.session()
    if contiguous is not None and alloc is not None:
        raise UsageError("Command does not accept option combination: --contiguous  with --alloc ")
    if contiguous is not None:
        alloc = "contiguous" if contiguous == "y" else "inherit"
    profile = context.settings.metadata_profile
    if detachprofile and profile is not None:
        raise UsageError(
            "Command does not accept option combination: --metadataprofile  with --detachprofile "
        )
    changes = Changes(
        writable=None if permission is None else permission == "rw",
        policy=alloc,
        read_ahead=None if readahead is None else whole_pages(session, readahead),
        add_tags=tuple(check_tag(tag) for tag in addtag),
        remove_tags=tuple(check_tag(tag, "--deltag") for tag in deltag),
        skip_activation=None if setactivationskip is None else setactivationskip == "y",
        autoactivation=None if setautoactivation is None else setautoactivation == "y",
        no_minor=persistent == "n",
        profile="" if detachprofile else profile,
    )
    other = activate is not None or refresh or poll or watch or zero or resync or minor is not None
    if not (names or select is not None) or not (changes.any or other):
        raise no_such_syntax("lvchange")
    if persistent == "y" and minor is None:
        raise no_such_syntax("lvchange")
    if context.settings.read_only and activate is None:
        raise UsageError("Command does not accept option: --readonly.")
    wanted = None if activate is None else wants_active(activate)
    if wanted is not None and changes.any:
        session.warn("WARNING: Combining activation change with other commands is not advised.")
    mode = activationmode or session.host.config.get_str("activation/activation_mode", "degraded")
    as_partial = partial or mode == "partial"
    if as_partial:
        session.warn("PARTIAL MODE. Incomplete logical volumes will be processed.")
    volumes, failures = choose_lvs(session, names, select)
    refused = False
    named = _named(session, names)

    def change(volume: ChosenLv) -> None:
        nonlocal refused
        name = volume.name
        vg_name, lv_name = name.split("/")
        if zero is not None or resync:
            problem = "uses options that require LV types thinpool ."
            if resync:
                problem = "does not accept LV type linear."
            raise RefusedError(
                f"Command on LV {name} {problem}\nCommand not permitted on LV {name}."
            )
        if changes.any:
            refused |= lv_change.change(session, vg_name, lv_name, changes)
        if persistent == "y" and minor is not None:
            check_numbers(session, major, minor)
            lv_change.set_minor(session, vg_name, lv_name, minor, major=DM_MAJOR, force=force)
        if wanted is not None:
            lv_change.switch(
                session,
                vg_name,
                lv_name,
                wanted,
                auto=activate in ("ay", "aay"),
                ignore_skip=ignoreactivationskip,
                partial=as_partial,
                polling=poll != "n",
                named=(vg_name, lv_name) in named,
            )
        if refresh:
            lv_change.refresh(session, vg_name, [lv_name], partial=as_partial)
        if watch is not None:
            lv_change.monitor(session, vg_name, lv_name, watch == "y")
        if poll is not None and wanted is None:
            lv_change.poll(session, vg_name, lv_name, poll == "y")

    status = each_lv(session, volumes, change, failures)
    return status or (5 if refused else 0)


def _named(session: Session, names: Sequence[str]) -> set[tuple[str, str | None]]:
    """What is named itself; what cannot be is among the failures of the choice."""
    found = set()
    for word in names:
        with suppress(NotFoundError):
            if not word.startswith("@"):
                found.add(split_known(word, session.host.run_dir, session.host.default_vg))
    return found
