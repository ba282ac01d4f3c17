"""dmsetup: the device mapper without LVM on top (dmsetup(8)).

As in dmsetup, options may stand anywhere and belong to all commands alike. Failures print what
dmsetup prints, and the reason where we know it, and exit with 1.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import click

from ulvm.cli import dmchange, dmshow
from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.cli.dmrequest import ArgumentsError, Request
from ulvm.cli.dmusage import USAGE
from ulvm.errors import RefusedError, UlvmError, UsageError
from ulvm.report.helptext import HelpAsked

__all__ = ["COMMANDS", "dmsetup"]

_FAILED = 1

_F = TypeVar("_F", bound=Callable[..., Any])

Command = Callable[[Request], None]


class _Dmsetup(click.Command):
    """A command line that is wrong is told in getopt's words, and ends with 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            reason = f"unrecognized option '{error.option_name}'"
            if not error.option_name.startswith("--"):
                reason = f"invalid option -- '{error.option_name[1:]}'"
        except click.BadOptionUsage as error:
            name = error.option_name
            reason = f"option '{name}' requires an argument"
            if not name.startswith("--"):
                reason = f"option requires an argument -- '{name[1:]}'"
        except click.UsageError as error:
            reason = error.format_message()
        return self._refuse(ctx, reason)

    @staticmethod
    def _refuse(ctx: click.Context, reason: str) -> NoReturn:
        click.echo(f"dmsetup: {reason}\nCouldn't process command line.", err=True)
        ctx.exit(_FAILED)


def _hidden(*names: str, value: bool = False) -> Callable[[_F], _F]:
    """What has no meaning here."""
    return click.option(*names, is_flag=not value, expose_value=False, hidden=True)


@click.command(cls=_Dmsetup)
@click.argument("command", metavar="COMMAND", required=False)
@click.argument("words", nargs=-1, metavar="[DEVICE|ARGUMENT...]")
@click.option("-u", "--uuid", help="Name the device by its UUID; with create: its UUID.")
@click.option("-j", "--major", type=int, help="Name the device by its number, with -m.")
@click.option("-m", "--minor", type=int, help="Likewise; with create: its minor number.")
@click.option("--table", help="The table; by default it is read from standard input.")
@click.option("-n", "--notable", is_flag=True, help="create: without a table.")
@click.option("--concise", is_flag=True, help="create, table: all in one line.")
@click.option("-r", "--readonly", is_flag=True, help="A table for reading only.")
@click.option("--noflush", is_flag=True, help="suspend, status: do not flush.")
@click.option("--nolockfs", is_flag=True, help="suspend: do not freeze file systems.")
@click.option("--inactive", is_flag=True, help="table, deps: of the inactive table.")
@click.option("-f", "--force", is_flag=True, help="remove: replace the table by errors first.")
@click.option("--retry", is_flag=True, help="remove: try for some seconds.")
@click.option("--setuuid", is_flag=True, help="rename: set the UUID instead of the name.")
@click.option("--target", help="Only devices with a target of this type.")
@click.option("--exec", "execute", help="ls: run this command with each device's path.")
@click.option("--tree", is_flag=True, help="ls: as a tree.")
@click.option("-c", "-C", "--columns", is_flag=True, help="info: in columns.")
@click.option("-o", "--options", help="info -c: columns; ls, deps: names; ls --tree: its look.")
@click.option("-O", "--sort", help="info -c: sort by these columns.")
@click.option("-S", "--select", help="info -c: only devices for which this is true.")
@click.option("--noheadings", is_flag=True, help="info -c: no headings.")
@click.option("--nameprefixes", is_flag=True, help="info -c: DM_NAME='value' for scripts.")
@click.option("--unquoted", is_flag=True, help="With --nameprefixes: no quotes.")
@click.option("--rows", is_flag=True, help="info -c: a line for each column.")
@click.option("--separator", help="info -c: between columns.")
@click.option("--count", type=click.IntRange(min=0), help="Reports: so many times; 0: for ever.")
@click.option("--interval", type=click.IntRange(min=1), help="Reports: every so many seconds.")
@click.option("--manglename", default="auto", help="Names with \\x20: auto, hex or none.")
@click.option("--version", "version", is_flag=True, help="The versions alone.")
@click.option("--addnodeonresume", is_flag=True, hidden=True)
@click.option("--addnodeoncreate", is_flag=True, hidden=True)
@_hidden("--noudevrules")
@_hidden("--noudevsync")
@_hidden("--verifyudev")
@_hidden("--noopencount")
@_hidden("--checks")
@click.option("--deferred", is_flag=True, help="remove: once nobody has it open; not done here.")
@_hidden("--showkeys")
@_hidden("--unbuffered")
@_hidden("--udevcookie", value=True)
@_hidden("--readahead", value=True)
@_hidden("--units", value=True)
@_hidden("--nosuffix")
@_hidden("-U", "--uid", value=True)
@_hidden("-G", "--gid", value=True)
@click.option("-M", "--mode", hidden=True)
@own_options
@click.pass_obj
def dmsetup(
    context: Context,
    /,
    command: str | None,
    words: tuple[str, ...],
    version: bool,
    mode: str | None,
    addnodeonresume: bool,
    addnodeoncreate: bool,
    count: int | None,
    interval: int | None,
    **values: object,
) -> int:
    """Work with mapped devices directly.

    \b
    create NAME [--table T | --notable]   load NAME [FILE]      clear NAME
    suspend NAME...   resume NAME...      remove NAME...        rename NAME NEW
    table [NAME...]   status [NAME...]    info [-c] [NAME...]   deps [NAME...]
    ls [--tree]       message NAME SECTOR TEXT   wait NAME [EVENT]
    wipe_table NAME...  remove_all        mangle [NAME...]      splitname NAME
    targets           target-version TYPE...     version        mknodes
    udevcookies       udevcomplete_all           help

    In a table a device is a file's or disk's path, a mapped device's name or
    path, or major:minor.
    """
    if version:
        command = "version"
    handler = COMMANDS.get(command or "")
    if handler is None:
        return _told([USAGE] if command is None else ["Unknown command.", USAGE])
    try:
        if addnodeonresume and addnodeoncreate:
            raise UsageError("--addnodeonresume and --addnodeoncreate are incompatible.")
        if mode is not None and not _OCTAL.fullmatch(mode):
            raise UsageError(f"Invalid argument for --mode: {mode}. ")
        request = Request(context=context, words=words, **values)  # type: ignore[arg-type]
        request.check_count(*_WORDS.get(command or "", (0, None)))
        _repeated(handler, request, count, interval)
    except ArgumentsError as error:
        return _told([error.message, USAGE])
    except UsageError as error:
        return _told([error.message, "Couldn't process command line."])
    except HelpAsked as asked:
        _told([asked.message])
        return 0
    except RefusedError as error:
        # Of a report: what is wrong has been said in full.
        return _told([error.message])
    except UlvmError as error:
        return _told([error.message, "Command failed."])
    return 0


def _repeated(handler: Command, request: Request, count: int | None, interval: int | None) -> None:
    """What shows something, as often as --count and --interval say; the rest once."""
    if handler not in _REPORTS or (count is None and interval is None):
        handler(request)
        return
    left = count or -1
    while True:
        handler(request)
        left -= 1
        if not left:
            return
        if handler is not dmshow.info or request.columns:
            click.echo()
        sys.stdout.flush()
        time.sleep(interval or 1)


_REPORTS = (dmshow.info, dmshow.table, dmshow.status, dmshow.dependencies)

_OCTAL = re.compile(r"[0-7]{1,11}", re.ASCII)


def _told(lines: Sequence[str]) -> int:
    for line in lines:
        click.echo(line, err=True)
    return _FAILED


def _nothing(request: Request) -> None:
    """Device nodes and udev are the kernel's affair."""


def _no_statistics(request: Request) -> None:
    raise UlvmError("Statistics are kept by the kernel's device-mapper alone.")


def _no_measurement(request: Request) -> None:
    raise UlvmError("Tables are measured by the kernel's IMA alone.")


_WORDS: dict[str, tuple[int, int | None]] = {
    "help": (0, 0),
    "load": (0, 2),
    "reload": (0, 2),
    "ls": (0, 0),
    "message": (2, None),
    "remove_all": (0, 0),
    "rename": (1, 2),
    "setgeometry": (5, 5),
    "splitname": (1, 2),
    "target-version": (1, None),
    "targets": (0, 0),
    "udevcomplete": (1, 1),
    "udevcomplete_all": (0, 1),
    "udevcookies": (0, 0),
    "udevcreatecookie": (0, 0),
    "udevflags": (1, 1),
    "udevreleasecookie": (0, 1),
    "version": (0, 0),
    "wait": (0, 2),
}
"""How many words a command takes; any number of devices, where none is said."""

COMMANDS: dict[str, Command] = {
    "help": dmshow.usage,
    "create": dmchange.create,
    "load": dmchange.load,
    "reload": dmchange.load,
    "clear": dmchange.clear,
    "suspend": dmchange.suspend,
    "resume": dmchange.resume,
    "remove": dmchange.remove,
    "remove_all": dmchange.remove_all,
    "wipe_table": dmchange.wipe_table,
    "rename": dmchange.rename,
    "message": dmchange.message,
    "wait": dmchange.wait,
    "setgeometry": dmchange.set_geometry,
    "table": dmshow.table,
    "status": dmshow.status,
    "info": dmshow.info,
    "ls": dmshow.list_devices,
    "deps": dmshow.dependencies,
    "mangle": dmshow.mangle,
    "targets": dmshow.targets,
    "target-version": dmshow.target_version,
    "version": dmshow.driver_version,
    "splitname": dmshow.split_name,
    "measure": _no_measurement,
    "stats": _no_statistics,
    "mknodes": _nothing,
    "udevcreatecookie": _nothing,
    "udevreleasecookie": dmshow.udev_release_cookie,
    "udevflags": dmshow.udev_flags,
    "udevcomplete": dmshow.udev_complete,
    "udevcomplete_all": dmshow.udev_complete_all,
    "udevcookies": dmshow.udev_cookies,
}
