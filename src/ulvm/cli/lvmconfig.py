"""`lvmconfig`: show and check the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ulvm.cli.arguments import OneOf
from ulvm.cli.common_options import common_options
from ulvm.cli.context import Context
from ulvm.errors import RefusedError, UsageError
from ulvm.lvm.configuration import TYPES, Presentation, show_configuration, validate
from ulvm.vgstore.settings import Version, parse_version

__all__ = ["lvmconfig"]


@click.command()
@click.argument("names", nargs=-1, metavar="[SECTION[/SETTING]]...")
@click.option("-f", "--file", "output", metavar="FILE", help="Write to this file.")
@click.option("-l", "--list", "as_list", is_flag=True, help="As --typeconfig list --withsummary.")
@click.option(
    "--typeconfig",
    "--type",
    "kinds",
    type=OneOf(*TYPES),
    multiple=True,
    help="What to show: what is set (current, the default), defaults, what differs from "
    "them, all in force (full), names (list), what is not set (missing), what is newer "
    "than --sinceversion, what a profile may set.",
)
@click.option("--atversion", metavar="VERSION", help="As this version of LVM2 knows it.")
@click.option("--sinceversion", metavar="VERSION", help="With --typeconfig new: newer than this.")
@click.option("--ignoreadvanced", is_flag=True, help="Leave out advanced settings.")
@click.option("--ignoreunsupported", is_flag=True, help="Leave out unsupported settings.")
@click.option("--ignorelocal", is_flag=True, help="Leave out the section `local'.")
@click.option("--showdeprecated", is_flag=True, help="Show deprecated settings as well.")
@click.option("--showunsupported", is_flag=True, help="Show unsupported settings as well.")
@click.option("--mergedconfig", is_flag=True, help="Show files, profiles and --config as one.")
@click.option("--metadataprofile", metavar="NAME", help="Apply this metadata profile.")
@click.option("--validate", "only_check", is_flag=True, help="Check it, and exit with 5 if wrong.")
@click.option("--withsummary", is_flag=True, help="A line of comment before each setting.")
@click.option("--withcomments", is_flag=True, help="All comments before each setting.")
@click.option("--withgeneralpreamble", is_flag=True, help="A head for ulvm.conf.")
@click.option("--withlocalpreamble", is_flag=True, help="A head for lvmlocal.conf.")
@click.option("--withspaces", is_flag=True, help="Blanks around signs.")
@click.option("--withversions", is_flag=True, help="Since when a setting is known.")
@click.option("--unconfigured", is_flag=True, hidden=True)
@common_options
@click.pass_obj
def lvmconfig(context: Context, /, names: tuple[str, ...], **values: Any) -> int:
    """Show the configuration: what is set in ulvm.conf and by --config, or what could be.

    Without a type, the settings of the foremost source are shown: --config, else the profile, else
    the files. Name sections or settings to see those alone. `lvmconfig --typeconfig default
    --withcomments --withgeneralpreamble' makes a file to begin with.
    """
    kind = _kind(values)
    how = Presentation(
        comments=values["withcomments"],
        summary=values["withsummary"] or values["as_list"],
        spaces=values["withspaces"],
        versions=values["withversions"],
        at=_version(values["atversion"]),
        since=_version(values["sinceversion"]),
        deprecated=values["showdeprecated"],
        unsupported=values["showunsupported"],
        ignore_advanced=values["ignoreadvanced"],
        ignore_unsupported=values["ignoreunsupported"],
        ignore_local=values["ignorelocal"],
        merged=values["mergedconfig"],
    )
    host = context.host
    if values["metadataprofile"]:
        host = host.with_profile(values["metadataprofile"], "metadata")
    if values["only_check"]:
        if validate(host.config, merged=values["mergedconfig"]):
            raise RefusedError("LVM configuration invalid.")
        context.console.say("LVM configuration valid.")
        return 0
    lines, problem = show_configuration(host, kind, how, names)
    if values["withgeneralpreamble"]:
        lines = [*_GENERAL.format(host.system_dir).splitlines(), "", *lines]
    elif values["withlocalpreamble"]:
        lines = [*_LOCAL.format(host.system_dir).splitlines(), "", *lines]
    text = "".join(f"{line}\n" for line in lines)
    if values["output"] is None:
        click.echo(text, nl=False)
    elif problem is None:
        try:
            Path(values["output"]).write_text(text, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            where = values["output"]
            raise RefusedError(f"{where}: open failed: {error.strerror}") from error
    if problem is not None:
        raise problem
    return 0


_GENERAL = """\
# Settings of ulvm, with the values that hold where nothing is set. The file's place is
# {0}/ulvm.conf.
#
# What is given in --config counts before a profile, a profile before lvmlocal.conf, and that
# before this file. `lvmconfig --typeconfig diff' shows what differs from the defaults."""

_LOCAL = """\
# Settings of ulvm for this host alone: {0}/lvmlocal.conf. They count before those
# of ulvm.conf, and are not to be copied to another host."""


def _kind(values: dict[str, Any]) -> str:
    kinds = values["kinds"]
    if len(kinds) > 1:
        raise UsageError("Option --typeconfig may not be repeated.")
    if kinds and values["only_check"]:
        raise UsageError("Only one of --type and --validate permitted.")
    if kinds and values["as_list"]:
        raise UsageError("Only one of --type and --list permitted.")
    kind = "list" if values["as_list"] else kinds[0] if kinds else "current"
    if values["atversion"] and not kinds and not values["as_list"]:
        raise UsageError("--atversion requires --type or --list")
    if values["sinceversion"] and kind != "new":
        raise UsageError("--sinceversion requires --type new")
    if kind == "list" and values["withcomments"]:
        raise UsageError("--withcomments has no effect with --type list")
    return str(kind)


def _version(text: str | None) -> Version | None:
    if text is None:
        return None
    version = parse_version(text)
    if version is None:
        raise UsageError("Incorrect version format.")
    return version
