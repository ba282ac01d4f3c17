"""The program `ulvm`, and every command of it under its own name.

`ulvm lvs ...`, `lvm lvs ...`, or the program started under the name `lvs`; alone, it is a shell.
Under a name of LVM's, LVM's variables count where ulvm's are not set. Commands are loaded when they
are called: start-up time matters to scripts. Errors are one sentence with LVM's indentation; exit
codes are LVM's: 0, 2 for no such command, 3 for a bad command line, 4 for settings that cannot be
read, 5 for a refusal or failure.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import click

import ulvm
from ulvm import faultpoints
from ulvm.cli.abbreviations import HELP_OPTIONS, AmbiguousOption, RepeatedOption, expanded
from ulvm.cli.context import Context
from ulvm.cli.loading import load
from ulvm.cli.streams import settled, steady_streams
from ulvm.cli.syntax import NoSuchSyntax, no_such_syntax
from ulvm.errors import SettingsError, UlvmError, UsageError

if TYPE_CHECKING:
    from ulvm.report.log import LogEntry

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "pvcreate": "ulvm.cli.pv:pvcreate",
    "pvremove": "ulvm.cli.pv:pvremove",
    "pvchange": "ulvm.cli.pv:pvchange",
    "pvresize": "ulvm.cli.pv:pvresize",
    "pvmove": "ulvm.cli.pvmove:pvmove",
    "pvs": "ulvm.cli.reports:pvs",
    "pvdisplay": "ulvm.cli.display:pvdisplay",
    "pvscan": "ulvm.cli.pvscan:pvscan",
    "pvck": "ulvm.cli.pvck:pvck",
    "lvmdiskscan": "ulvm.cli.pvscan:lvmdiskscan",
    "vgcreate": "ulvm.cli.vg:vgcreate",
    "vgextend": "ulvm.cli.vg:vgextend",
    "vgreduce": "ulvm.cli.vg:vgreduce",
    "vgremove": "ulvm.cli.vg:vgremove",
    "vgchange": "ulvm.cli.vgchange:vgchange",
    "vgrename": "ulvm.cli.vg:vgrename",
    "vgsplit": "ulvm.cli.regroup:vgsplit",
    "vgmerge": "ulvm.cli.regroup:vgmerge",
    "vgexport": "ulvm.cli.regroup:vgexport",
    "vgimport": "ulvm.cli.regroup:vgimport",
    "vgscan": "ulvm.cli.vgcfg:vgscan",
    "vgcfgbackup": "ulvm.cli.vgcfg:vgcfgbackup",
    "vgcfgrestore": "ulvm.cli.vgcfg:vgcfgrestore",
    "vgck": "ulvm.cli.vgcfg:vgck",
    "vgmknodes": "ulvm.cli.vgcfg:vgmknodes",
    "vgs": "ulvm.cli.reports:vgs",
    "fullreport": "ulvm.cli.fullreport:fullreport",
    "vgdisplay": "ulvm.cli.vgdisplay:vgdisplay",
    "lvcreate": "ulvm.cli.lvcreate:lvcreate",
    "lvremove": "ulvm.cli.lv:lvremove",
    "lvchange": "ulvm.cli.lvchange:lvchange",
    "lvextend": "ulvm.cli.lvresize:lvextend",
    "lvreduce": "ulvm.cli.lvresize:lvreduce",
    "lvresize": "ulvm.cli.lvresize:lvresize",
    "lvrename": "ulvm.cli.lv:lvrename",
    "lvconvert": "ulvm.cli.lvconvert:lvconvert",
    "lvpoll": "ulvm.cli.pvmove:lvpoll",
    "lvscan": "ulvm.cli.lv:lvscan",
    "lvs": "ulvm.cli.reports:lvs",
    "lvdisplay": "ulvm.cli.lvdisplay:lvdisplay",
    "lvmconfig": "ulvm.cli.lvmconfig:lvmconfig",
    "dmsetup": "ulvm.cli.dmsetup:dmsetup",
    "daemon": "ulvm.cli.daemon:daemon",
    "advise": "ulvm.cli.advise:advise",
    "monitor": "ulvm.cli.monitor:monitor",
    "vgimportclone": "ulvm.cli.regroup:vgimportclone",
    "lvmdevices": "ulvm.cli.lvmdevices:lvmdevices",
    "vgimportdevices": "ulvm.cli.lvmdevices:vgimportdevices",
    "lsblk": "ulvm.cli.beside:lsblk",
    "fsadm": "ulvm.cli.beside:fsadm",
    "devices": "ulvm.cli.devices:devices",
    "mount": "ulvm.cli.mount:mount",
    "umount": "ulvm.cli.mount:umount",
    "backup": "ulvm.cli.backup:backup",
    "restore": "ulvm.cli.backup:restore",
    "verify": "ulvm.cli.backup:verify",
    "demo": "ulvm.cli.demo:demo",
    "blkdeactivate": "ulvm.cli.blkdeactivate:blkdeactivate",
    "lvmdump": "ulvm.cli.lvmdump:lvmdump",
    "links": "ulvm.cli.links:links",
    "completion": "ulvm.cli.installed:completion",
    "man": "ulvm.cli.installed:man",
    "config": "ulvm.cli.lvmconfig:lvmconfig",
    "dumpconfig": "ulvm.cli.lvmconfig:lvmconfig",
    "devtypes": "ulvm.cli.about:devtypes",
    "formats": "ulvm.cli.about:formats",
    "help": "ulvm.cli.help:help_command",
    "lastlog": "ulvm.cli.about:lastlog",
    "lvmchange": "ulvm.cli.about:lvmchange",
    "lvmsadc": "ulvm.cli.about:lvmsadc",
    "lvmsar": "ulvm.cli.about:lvmsar",
    "pvdata": "ulvm.cli.about:pvdata",
    "segtypes": "ulvm.cli.about:segtypes",
    "systemid": "ulvm.cli.about:systemid",
    "tags": "ulvm.cli.about:tags",
    "version": "ulvm.cli.about:version",
    "vgconvert": "ulvm.cli.about:vgconvert",
}
"""Name -> module:attribute of the click command."""

_LVM_NAMES = ("pv", "vg", "lv", "dmsetup", "blkdeactivate")
"""How the names begin under which LVM's variables count."""
_NO_SUCH_COMMAND = 2
_COMMANDS_OF_LVM = ("", "help", "formats", "segtypes", "tags", "systemid", "devtypes", "version")
_SHOWING = ("s", "display", "scan", "ck", "config", "dump")
"""How the names of LVM's commands end that are for their words."""
_WORKING = ("backup", "restore", "mount", "umount", "dmsetup", "blkdeactivate", "links")
_EXTRA = re.compile(r"unexpected extra arguments? \((\S+?)[ )]")


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; `argv` is without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    steady_streams()
    return settled(_main(words), works=True)


def _main(words: list[str]) -> int:
    program = PurePath(sys.argv[0]).name
    if program in COMMANDS:
        words.insert(0, program)
    environ: Mapping[str, str] = os.environ
    if program.startswith(_LVM_NAMES):
        from ulvm.vgstore.host import lvm_environment

        environ = lvm_environment(environ)
    faultpoints.arm(os.environ.get("ULVM_FAULT_POINT", ""))
    if not words:
        return _shell(program, environ)
    name, *arguments = words
    if name in ("--help", "-h", "-?"):
        name = "help"
    elif name == "--version" and program != "lvm":
        click.echo(f"ulvm {ulvm.__version__}")
        return 0
    elif name == "--version":
        name = "version"
    elif name.startswith("-"):
        shown = "lvm" if program == "lvm" else "ulvm"
        click.echo(f"  Specify options after a command: {shown} [command] [options].", err=True)
        return UsageError.exit_code
    if name not in COMMANDS and not arguments:
        from ulvm.cli.shell import run_script

        status = run_script(Path(name), lambda n, a: _command(n, a, program, environ))
        if status is not None:
            return status
    return _command(name, arguments, program, environ)


def _command(name: str, arguments: list[str], program: str, environ: Mapping[str, str]) -> int:
    if name not in COMMANDS:
        shown = "lvm" if program == "lvm" else "ulvm"
        click.echo(f"  No such command.  Try '{shown} help'.", err=True)
        return _NO_SUCH_COMMAND
    return _run(name, arguments, environ)


def _shell(program: str, environ: Mapping[str, str]) -> int:
    from ulvm.cli.shell import run_shell

    program = "lvm" if program == "lvm" else "ulvm"
    context = Context(environ, [program])
    try:
        size = context.host.config.get_int("shell/history_size", 100)
    except SettingsError as error:
        return _settings_fault(context, error)
    except UlvmError as error:
        context.console.warn(error.message)
        return error.exit_code
    home = environ.get("HOME")
    shell = ShellLog()
    return run_shell(
        lambda name, arguments: _run(name, arguments, environ, shell),
        list(COMMANDS),
        program=program,
        history=Path(home, f".{program}_history") if home else None,
        history_size=size,
        names=lambda kind: _names(kind, environ),
    )


_NAMES = {
    "groups": ("vgs", "-o", "vg_name"),
    "volumes": ("vgs", "-o", "vg_name,lv_full_name"),
    "disks": ("pvs", "-o", "pv_name"),
    "devices": ("dmsetup", "info", "-c", "-o", "name"),
}


def _names(kind: str, environ: Mapping[str, str]) -> list[str]:
    """What the shell completes: the answer of a report, which must not disturb the line."""
    if kind not in _NAMES:
        from ulvm.cli.completion import field_names

        return field_names(kind)
    name, *words = _NAMES[kind]
    said, ignored = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(ignored):
        status = _run(name, [*words, "--noheadings"], environ)
    return [] if status else sorted({*said.getvalue().split()})


class ShellLog:
    """The log of the shell's last command, where one is kept (log/report_command_log)."""

    entries: Sequence[LogEntry] | None = None

    def keep(self, context: Context, name: str, status: int) -> None:
        if context.output is not None and context.output.with_log:
            context.output.log.command_state(name, status)
            self.entries = context.output.log.entries


def _run(
    name: str, arguments: list[str], environ: Mapping[str, str], shell: ShellLog | None = None
) -> int:
    context = Context(environ, [name, *arguments])
    if shell is not None:
        context.last_log = shell.entries
    try:
        status = _attempt(context, name, arguments)
        try:
            context.finish(status)
        except UlvmError as error:
            context.console.warn(error.message)
            status = error.exit_code
        if context.output is not None:
            status = settled(status, works=_works(name))
        if shell is not None and name != "lastlog":
            shell.keep(context, name, status)
        return status
    finally:
        context.close()


def _attempt(context: Context, name: str, arguments: list[str]) -> int:
    """Run a command, and say what went wrong; exit code."""
    try:
        command = load(COMMANDS[name], name)
        arguments = expanded(arguments, command, once=name.startswith(("pv", "vg", "lv")))
        status = command.main(
            args=list(arguments),
            prog_name=name,
            standalone_mode=False,
            obj=context,
            help_option_names=list(HELP_OPTIONS),
        )
        status = status if isinstance(status, int) else 0
        return settled(status, works=_works(name))
    except click.exceptions.Exit as end:
        return settled(end.exit_code, works=False)
    except AmbiguousOption as error:
        if name == "dmsetup":
            click.echo(f"{name}: {error.message}\nCouldn't process command line.", err=True)
            return 1
        return _bad_line(context, "", parsing=True, first=f"{name}: {error.message}")
    except RepeatedOption as error:
        return _bad_line(context, error.message, parsing=True)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.message, err=True)
        return UsageError.exit_code
    except (click.NoSuchOption, click.BadOptionUsage) as error:
        if isinstance(error, click.NoSuchOption):
            from ulvm.cli.absent import absent_option

            absent = absent_option(name, error.option_name)
            if absent is not None:
                return _bad_line(context, absent, parsing=False, name=name)
        first = f"{name}: {_option_problem(error, arguments)}"
        return _bad_line(context, "", parsing=True, first=first)
    except click.UsageError as error:
        if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Argument):
            used, path = (
                (error.ctx.command, error.ctx.command_path) if error.ctx else (command, name)
            )
            return _no_such_syntax(context, no_such_syntax(_typed(path)), path, used, arguments)
        extra = _EXTRA.search(error.message)
        if extra is not None:
            return _bad_line(
                context, f"Command does not accept argument: {extra[1]}.", parsing=False
            )
        shown = error.ctx.command_path if error.ctx else name
        return _bad_line(context, f"{shown}: {error.format_message()}", parsing=True)
    except NoSuchSyntax as error:
        return _no_such_syntax(context, error, name, command, arguments)
    except UsageError as error:
        parsing = "Invalid argument for " in error.message
        return _bad_line(context, error.message, parsing=parsing, name=name)
    except SettingsError as error:
        return _settings_fault(context, error)
    except UlvmError as error:
        context.console.warn(error.message)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        context.console.warn("Interrupted...")
        return 130
    except OSError as error:
        # Of the environment: a name that is too long, a file system that is full.
        where = f"{str(error.filename)[:200]}: " if error.filename is not None else ""
        context.console.warn(f"{where}{error.strerror or error}")
        return UlvmError.exit_code
    except MemoryError:
        context.console.warn("There is not enough memory for this.")
        return UlvmError.exit_code
    except Exception as error:
        if context.settings.debug:
            raise
        what = f"{type(error).__name__}: {error}"
        context.console.warn(f"Internal error: {what}\nPlease report it; -d shows where it is.")
        return UlvmError.exit_code


def _option_problem(error: click.NoSuchOption | click.BadOptionUsage, words: Sequence[str]) -> str:
    """As getopt_long(3) says it."""
    option = error.option_name
    if isinstance(error, click.NoSuchOption):
        if option.startswith("--"):
            option = next((word for word in words if word.startswith(f"{option}=")), option)
            return f"unrecognized option '{option}'"
        return f"invalid option -- '{option[1:]}'"
    if "requires an argument" not in error.message:
        return f"option '{option}' doesn't allow an argument"
    if option.startswith("--"):
        return f"option '{option}' requires an argument"
    return f"option requires an argument -- '{option[1:]}'"


def _no_such_syntax(
    context: Context, error: UsageError, name: str, command: click.Command, words: Sequence[str]
) -> int:
    """LVM2 puts the form that comes nearest on standard output."""
    from ulvm.cli.catalogue import entry_of
    from ulvm.cli.usage import nearest

    status = _bad_line(context, error.message, parsing=False)
    title, *form = nearest(entry_of(name, command), words) or [""]
    if title:
        context.console.tell(title)
    for line in form:
        click.echo(f"{context.console.prefix}{line}" if line else "")
    return status


def _settings_fault(context: Context, error: SettingsError) -> int:
    first, *rest = error.message.splitlines()
    if error.main_file:
        click.echo(first, err=True)
    else:
        rest.insert(0, first)
    context.console.tell("\n".join(rest))
    return error.exit_code


def _bad_line(
    context: Context, message: str, *, parsing: bool, name: str = "", first: str = ""
) -> int:
    """Say what is wrong with the words, unless the settings, which LVM2 reads before them, are.
    `first` is said as it is."""
    try:
        _ = context.host
    except SettingsError as error:
        return _settings_fault(context, error)
    except UlvmError:
        pass  # of options: the words are wrong anyhow
    if first:
        click.echo(first, err=True)
    console = context.console
    console.tell(message)
    if parsing:
        console.tell("Error during parsing of command line.")
    elif "--help" not in message and not message.startswith("Command does not accept"):
        console.tell(f"Run `{_typed(name)} --help' for more information.")
    return UsageError.exit_code


def _works(name: str) -> bool:
    """Whether it is work that the command is for, and not its words."""
    return name in _WORKING or (name.startswith(_LVM_NAMES[:3]) and not name.endswith(_SHOWING))


def _typed(name: str) -> str:
    return name if name.startswith(_LVM_NAMES) or name in _COMMANDS_OF_LVM else f"ulvm {name}"
