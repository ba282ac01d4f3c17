"""The options that all commands have, or many of them, and what each changes in the command's
context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ulvm.cli.context import Context
from ulvm.cli.words import REPORT_FORMAT, YES_NO

__all__ = [
    "backup_option",
    "common_options",
    "foreign_option",
    "metadata_profile_option",
    "own_options",
    "read_only_option",
    "reading_options",
    "shared_option",
    "udev_option",
]

_F = TypeVar("_F", bound=Callable[..., Any])

_WITH_METADATA_PROFILE = frozenset(("lvchange", "lvcreate", "vgchange", "vgcreate"))
"""Commands that put the name of a profile in the metadata."""


def _option(
    *names: str, change: Callable[[Context, Any], None] = lambda context, value: None, **words: Any
) -> Callable[[_F], _F]:
    """An option that is not the command's own; `change` is called when it is given."""

    def given(context: click.Context, _: click.Parameter, value: Any) -> None:
        found = context.obj
        if isinstance(found, Context) and value not in (None, False, 0, ()):
            change(found, value)

    return click.option(*names, expose_value=False, callback=given, **words)


def _says_yes(context: Context, _: Any) -> None:
    context.console.yes = True


def _is_quiet(context: Context, _: Any) -> None:
    context.console.quiet = context.settings.calm = True


def _is_silent(context: Context, count: int) -> None:
    """Of LVM's commands: once, it leaves out what -v tells."""
    context.settings.calm = True
    if count > 1:
        context.console.quiet = context.console.denies = True


def _setting(name: str) -> Callable[[Context, Any], None]:
    def change(context: Context, value: Any) -> None:
        setattr(context.settings, name, value)

    return change


def _flag(name: str, wanted: bool) -> Callable[[Context, Any], None]:
    """For a value of y or n, or an option that is there or not."""

    def change(context: Context, value: Any) -> None:
        setattr(context.settings, name, wanted if value is True else value == "y")

    return change


def _profile(context: Context, name: str) -> None:
    if context.command in _WITH_METADATA_PROFILE:
        context.settings.metadata_profile = name
    else:
        context.settings.profile = name


def _config(context: Context, value: str) -> None:
    # An empty text is a wrong one.
    context.settings.config = value or " "


def _devices(context: Context, values: Sequence[str]) -> None:
    context.settings.devices = tuple(path for value in values for path in value.split(","))


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
    from ulvm.cli.about import version_lines

    assert isinstance(context.obj, Context)
    context.obj.console.show("\n".join(version_lines()))
    raise click.exceptions.Exit(0)


_VERSION = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, LVM2's that it does as first.",
)
_YES = _option(
    "-y", "--yes", is_flag=True, change=_says_yes, help="Answer every question with yes."
)
_QUIET = _option("-q", "--quiet", count=True, change=_is_quiet, help="Print no results.")
_SILENT = _option(
    "-q",
    "--quiet",
    count=True,
    change=_is_silent,
    help="Twice: tell only of what is asked for and of errors, and answer questions with no.",
)

_SHARED = (
    _option("-v", "--verbose", count=True, change=_setting("verbose"), help="Show more."),
    _option(
        "--config",
        metavar="STRING",
        change=_config,
        help="Settings on top of ulvm.conf, in its grammar.",
    ),
)

_LVM = (
    _option("-t", "--test", is_flag=True, change=_flag("test", True), help="Change nothing."),
    _option(
        "-d",
        "--debug",
        count=True,
        change=_setting("debug"),
        help="Show where an error of ulvm's own is.",
    ),
    _option(
        "--commandprofile",
        metavar="NAME",
        change=_setting("profile"),
        help="Put this command profile on top of ulvm.conf.",
    ),
    _option(
        "--profile",
        metavar="NAME",
        change=_profile,
        help="The same; of commands that have it, --metadataprofile.",
    ),
    _option(
        "--devices",
        multiple=True,
        metavar="PATH,...",
        change=_devices,
        help="Look at these devices alone.",
    ),
    _option(
        "--devicesfile",
        metavar="NAME",
        change=_setting("devices_file"),
        help="Another devices file.",
    ),
    _option(
        "--nolocking",
        is_flag=True,
        change=_flag("locking", False),
        help="Do not wait for other commands, nor let them wait.",
    ),
    _option(
        "--driverloaded",
        type=YES_NO,
        change=_flag("driver_loaded", True),
        help="n: look at metadata alone, without the daemon.",
    ),
    # What has no meaning here, or is always so.
    _option("--lockopt", hidden=True),
    _option("--journal", hidden=True),
    _option("--nohints", is_flag=True, hidden=True),
)

udev_option = _option("--noudevsync", is_flag=True, hidden=True)
"""Of commands that make or remove nodes: there is nobody to wait for."""

backup_option = _option(
    "-A",
    "--autobackup",
    type=YES_NO,
    change=_flag("autobackup", True),
    help="n: no backup of the metadata.",
)
"""Of most commands that change metadata."""


def _no_report(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if isinstance(context.obj, Context):
        context.obj.settings.is_report = False
        context.obj.settings.report_format = value


_REPORT_FORMAT = click.option(
    "--reportformat",
    type=REPORT_FORMAT,
    expose_value=False,
    hidden=True,
    callback=_no_report,
)
"""Of the log that the command ends with."""

metadata_profile_option = _option(
    "--metadataprofile",
    metavar="NAME",
    change=_setting("metadata_profile"),
    help="The metadata profile that it has from now on.",
)
"""Of commands that make or change what has a profile (lvm.conf(5), config/profile_dir)."""

read_only_option = _option(
    "--readonly",
    is_flag=True,
    change=_flag("read_only", True),
    help="Neither lock nor ask what is active.",
)
"""Of commands that show: look at metadata alone."""

shared_option = _option("--shared", is_flag=True, hidden=True)
"""Of commands that show: there are no groups that hosts share."""

foreign_option = _option(
    "--foreign",
    is_flag=True,
    change=_flag("foreign", True),
    help="Also volume groups of other hosts.",
)
"""Of commands that show (lvmsystemid(7))."""


def _with(function: _F, options: Sequence[Callable[[_F], _F]]) -> _F:
    for option in reversed(options):
        function = option(function)
    return function


def own_options(function: _F) -> _F:
    """The options of commands that LVM does not have."""
    return _with(function, (_YES, _QUIET, *_SHARED))


def common_options(function: _F) -> _F:
    """The options that every command of LVM takes (lvm(8)) that is no report."""
    return reading_options(_REPORT_FORMAT(function))


def reading_options(function: _F) -> _F:
    """The options of a report."""
    return _with(function, (_YES, _SILENT, *_SHARED, *_LVM, _VERSION))
