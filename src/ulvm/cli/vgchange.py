"""vgchange."""

from __future__ import annotations

from typing import Any

import click

from ulvm.cli.arguments import (
    YES_NO,
    Number,
    OneOf,
    check_mode,
    mode_option,
    select_option,
    wants_active,
)
from ulvm.cli.choose import each_vg
from ulvm.cli.choose_form import check_form
from ulvm.cli.common_options import (
    backup_option,
    common_options,
    metadata_profile_option,
    read_only_option,
    udev_option,
)
from ulvm.cli.context import Context
from ulvm.cli.words import ALLOC, COPIES
from ulvm.errors import UsageError
from ulvm.lvm import vg_activation, vg_change
from ulvm.lvm.session import Session
from ulvm.lvm.sizes import parse_sectors
from ulvm.metadata.names import check_tag

__all__ = ["vgchange"]

_AUTO_WORDS = ("aay", "ay")
"""LVM takes -aay for `ay`, since the letter of the option may be repeated in its value."""


@click.command()
@click.argument("names", nargs=-1, metavar="[VG|@TAG...]")
@click.option("-a", "--activate", metavar="y|n|ay", help="y, n, or ay: what the lists allow.")
@click.option("--refresh", is_flag=True, help="Bring devices to the metadata; resume them.")
@click.option("--addtag", multiple=True, metavar="TAG", help="Add a tag.")
@click.option("--deltag", multiple=True, metavar="TAG", help="Remove a tag.")
@click.option("--alloc", type=ALLOC, help="Allocation policy.")
@click.option("-x", "--resizeable", type=YES_NO, help="Whether PVs may be added.")
@click.option(
    "-l", "--logicalvolume", type=Number(),
    help="The most logical volumes; 0: no limit.",
)  # fmt: skip
@click.option("-p", "--maxphysicalvolumes", type=Number(), help="The most PVs; 0: no limit.")
@click.option("-s", "--physicalextentsize", metavar="SIZE", help="Size of an extent.")
@click.option("-u", "--uuid", is_flag=True, help="Give the group a new UUID.")
@click.option(
    "--vgmetadatacopies", "--metadatacopies", type=COPIES,
    help="How many metadata areas to keep in use; all; or unmanaged.",
)  # fmt: skip
@click.option("--pvmetadatacopies", type=Number(), hidden=True)
@click.option("--setautoactivation", type=YES_NO, help="Whether -aay activates its volumes.")
@click.option("--monitor", type=YES_NO, help="Watch how full snapshots are.")
@click.option("--poll", type=YES_NO, help="See merges to their end.")
@click.option("--systemid", metavar="ID", help="The host that owns the group; empty for none.")
@click.option("--lockstart", "--lock-start", is_flag=True, hidden=True)
@click.option("--lockstop", "--lock-stop", is_flag=True, hidden=True)
@click.option("--locktype", type=OneOf("sanlock", "dlm", "none"), hidden=True)
@click.option("-P", "--partial", is_flag=True, help="Activate also with missing PVs.")
@mode_option
@click.option("-K", "--ignoreactivationskip", is_flag=True, help="Also what is to be skipped.")
@click.option("--autoactivation", metavar="event", hidden=True)
@click.option("--sysinit", is_flag=True, hidden=True)
@click.option("--ignorelockingfailure", is_flag=True, hidden=True)
@click.option("--ignoremonitoring", is_flag=True, hidden=True)
@click.option("-f", "--force", count=True, hidden=True)
@click.option("--ignoreskippedcluster", is_flag=True, hidden=True)
@click.option("--detachprofile", is_flag=True, help="It has no profile from now on.")
@metadata_profile_option
@select_option
@read_only_option
@udev_option
@backup_option
@common_options
@click.pass_obj
def vgchange(context: Context, /, names: tuple[str, ...], select: str | None, **asked: Any) -> int:
    """Change volume groups: activate and deactivate all their volumes, limits, tags, policy."""
    asked["metadataprofile"] = context.settings.metadata_profile
    _check_form(asked)
    wanted = _attributes(asked)
    check_mode(asked["activationmode"])
    session = context.session()
    if asked["lockstart"] or asked["lockstop"]:
        session.warn("Using lock start and lock stop requires lvmlockd.")
        return 0
    if asked["locktype"] is not None:
        session.warn("Using lock type requires lvmlockd.")
        return 0
    activate = asked["activate"]
    if asked["autoactivation"] is not None and not _at_event(session, asked["autoactivation"]):
        return 0
    if asked["monitor"] and (asked["sysinit"] or asked["ignoremonitoring"]):
        session.warn("--ignoremonitoring or --sysinit option not allowed with --monitor option.")
        return 0
    if asked["activationmode"] is None:
        asked["activationmode"] = session.host.config.get_str(
            "activation/activation_mode", "degraded"
        )
    if asked["partial"] or asked["activationmode"] == "partial":
        session.warn("PARTIAL MODE. Incomplete logical volumes will be processed.")

    def change(name: str) -> bool:
        done = True
        if activate is not None:
            done = _activation(session, name, asked)
        elif asked["refresh"]:
            done = not vg_activation.refresh(session, name, polling=asked["poll"] != "n")
        elif asked["poll"] == "y":
            vg_activation.poll(session, name)
        if asked["monitor"] is not None:
            _monitoring(session, name, asked["monitor"] == "y")
        if asked["systemid"] is not None:
            vg_change.set_system_id(session, name, asked["systemid"])
            session.say(f'Volume group "{name}" successfully changed')
        if wanted != vg_change.Wanted():
            vg_change.change(session, name, wanted)
            session.say(f'Volume group "{name}" successfully changed')
        return done

    return each_vg(session, names, change, select=select, exported=False)


def _check_form(asked: dict[str, Any]) -> None:
    """UsageError, in LVM's words, for options that do not go together."""
    if asked["metadataprofile"] is not None and asked["detachprofile"]:
        raise UsageError("Only one of --metadataprofile and --detachprofile permitted.")
    check_form("vgchange")
    if asked["pvmetadatacopies"] is not None and _attributes(asked) == vg_change.Wanted():
        raise UsageError("Need one or more command options.")
    if (asked["activate"] or "").startswith(("n", "an", "en", "ln")) and (
        asked["monitor"] or asked["poll"]
    ):
        raise UsageError("Only -ay* allowed with --monitor or --poll.")


def _attributes(asked: dict[str, Any]) -> vg_change.Wanted:
    size = asked["physicalextentsize"]
    flags = {
        name: None if asked[option] is None else asked[option] == "y"
        for name, option in (("resizeable", "resizeable"), ("autoactivation", "setautoactivation"))
    }
    return vg_change.Wanted(
        max_lv=asked["logicalvolume"],
        max_pv=asked["maxphysicalvolumes"],
        add_tags=tuple(check_tag(tag) for tag in asked["addtag"]),
        remove_tags=tuple(check_tag(tag, "--deltag") for tag in asked["deltag"]),
        extent_size=None if size is None else _extent_size(size),
        uuid=asked["uuid"],
        policy=asked["alloc"],
        metadata_copies=asked["vgmetadatacopies"],
        profile="" if asked["detachprofile"] else asked["metadataprofile"],
        **flags,
    )


def _extent_size(text: str) -> int:
    """Sectors. LVM2 says more of a zero than that it is none."""
    return parse_sectors(text, "--physicalextentsize", zero=True)


def _at_event(session: Session, word: str) -> bool:
    """Whether to go on with `--autoactivation`, by which udev's rules start the command."""
    if word != "event":
        session.say("Skip vgchange for unknown autoactivation value.")
        return False
    if not session.host.config.get_bool("global/event_activation", True):
        session.say("Skip vgchange for event and event_activation=0.")
        return False
    return True


def _activation(session: Session, name: str, asked: dict[str, Any]) -> bool:
    word = asked["activate"]
    if sum(vg.name == name for vg in session.last_scan.vgs) > 1:
        session.warn(
            "WARNING: activating multiple VGs with the same name is dangerous and may fail."
        )
    if not wants_active(word):
        activity = vg_activation.deactivate(session, name)
        if activity is None:
            return False
    else:
        activity = vg_activation.activate(
            session,
            name,
            partial=asked["partial"] or asked["activationmode"] == "partial",
            auto=word in _AUTO_WORDS,
            ignore_skip=asked["ignoreactivationskip"],
            polling=asked["poll"] != "n",
        )
        if activity is None:
            return True
    session.say(f'{activity.active} logical volume(s) in volume group "{name}" now active')
    return not activity.failed


def _monitoring(session: Session, name: str, wanted: bool) -> None:
    count = vg_activation.monitor(session, name, wanted)
    if count:
        word = "monitored" if wanted else "unmonitored"
        session.say(f'{count} logical volume(s) in volume group "{name}" {word}')
