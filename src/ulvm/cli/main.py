"""The program `ulvm`, and every command of it under its own name.

`ulvm lvs ...`, or the program started under the name `lvs`. Commands are loaded when they are
called: start-up time matters to scripts. Errors are one sentence with LVM's indentation; exit codes
are LVM's: 0, 2 for no such command, 3 for a bad command line, 5 for a refusal or failure.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import PurePath

import click

import ulvm
from ulvm import faultpoints
from ulvm.cli.abbreviations import HELP_OPTIONS, AmbiguousOption, expanded
from ulvm.cli.context import Context
from ulvm.cli.syntax import no_such_syntax
from ulvm.errors import UlvmError, UsageError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "pvcreate": "ulvm.cli.pv:pvcreate",
    "pvremove": "ulvm.cli.pv:pvremove",
    "pvchange": "ulvm.cli.pv:pvchange",
    "pvresize": "ulvm.cli.pv:pvresize",
    "pvs": "ulvm.cli.reports:pvs",
    "pvdisplay": "ulvm.cli.display:pvdisplay",
    "pvscan": "ulvm.cli.pv:pvscan",
    "vgcreate": "ulvm.cli.vg:vgcreate",
    "vgextend": "ulvm.cli.vg:vgextend",
    "vgreduce": "ulvm.cli.vg:vgreduce",
    "vgremove": "ulvm.cli.vg:vgremove",
    "vgchange": "ulvm.cli.vg:vgchange",
    "vgrename": "ulvm.cli.vg:vgrename",
    "vgsplit": "ulvm.cli.regroup:vgsplit",
    "vgmerge": "ulvm.cli.regroup:vgmerge",
    "vgexport": "ulvm.cli.regroup:vgexport",
    "vgimport": "ulvm.cli.regroup:vgimport",
    "vgscan": "ulvm.cli.vg:vgscan",
    "vgcfgbackup": "ulvm.cli.vg:vgcfgbackup",
    "vgcfgrestore": "ulvm.cli.restore:vgcfgrestore",
    "vgck": "ulvm.cli.restore:vgck",
    "vgs": "ulvm.cli.reports:vgs",
    "vgdisplay": "ulvm.cli.display:vgdisplay",
    "lvcreate": "ulvm.cli.lvcreate:lvcreate",
    "lvremove": "ulvm.cli.lv:lvremove",
    "lvchange": "ulvm.cli.lv:lvchange",
    "lvextend": "ulvm.cli.lvresize:lvextend",
    "lvreduce": "ulvm.cli.lvresize:lvreduce",
    "lvresize": "ulvm.cli.lvresize:lvresize",
    "lvrename": "ulvm.cli.lv:lvrename",
    "lvconvert": "ulvm.cli.lv:lvconvert",
    "lvpoll": "ulvm.cli.lv:lvpoll",
    "lvscan": "ulvm.cli.lv:lvscan",
    "lvs": "ulvm.cli.reports:lvs",
    "lvdisplay": "ulvm.cli.display:lvdisplay",
    "lvmconfig": "ulvm.cli.lvmconfig:lvmconfig",
    "dmsetup": "ulvm.cli.dmsetup:dmsetup",
    "daemon": "ulvm.cli.daemon:daemon",
    "monitor": "ulvm.cli.monitor:monitor",
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
}
"""Name -> module:attribute of the click command."""

_GROUPS = (
    ("Physical volumes", "pv"),
    ("Volume groups", "vg"),
    ("Logical volumes and snapshots", "lv"),
)
_HIDDEN = {"lvpoll", "lsblk", "fsadm"}
_EXTRA = re.compile(r"unexpected extra arguments? \((\S+?)[ )]")


def _load(name: str) -> click.Command:
    module, _, attribute = COMMANDS[name].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def _overview() -> str:
    lines = [
        "Usage: ulvm COMMAND [ARGUMENTS]",
        "",
        "LVM2 with copy-on-write snapshots in user space. A disk may be a plain file.",
    ]
    names = [n for n in COMMANDS if n not in _HIDDEN]
    for title, prefix in _GROUPS:
        lines += ["", f"{title}:", "  " + " ".join(n for n in names if n.startswith(prefix))]
    grouped = tuple(prefix for _, prefix in _GROUPS)
    rest = [n for n in names if not n.startswith(grouped)]
    lines += ["", "Backup, mounts and the rest:", "  " + " ".join(rest)]
    lines += ["", "Try `ulvm COMMAND --help', and `ulvm demo' to see the main job done."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; `argv` is without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files and words of metadata need not be UTF-8: they leave as they came.
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        status = _main(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of our output has gone: that is its business. What is left must not be
        # flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # Of the environment: a name that is too long, a file system that is full.
        where = f"{str(error.filename)[:200]}: " if error.filename is not None else ""
        click.echo(f"  {where}{error.strerror or error}", err=True)
        return UlvmError.exit_code
    except MemoryError:
        click.echo("  There is not enough memory for this.", err=True)
        return UlvmError.exit_code


def _main(words: list[str]) -> int:
    program = PurePath(sys.argv[0]).name
    if program in COMMANDS:
        words.insert(0, program)
    if not words or words[0] in ("help", "--help", "-h"):
        if len(words) < 2:
            click.echo(_overview())
            return 0
        words = [words[1], "--help"]
    if words[0] in ("--version", "version") or words[1:2] == ["--version"]:
        click.echo(f"ulvm {ulvm.__version__}")
        return 0
    faultpoints.arm(os.environ.get("ULVM_FAULT_POINT", ""))
    name, *arguments = words
    if name not in COMMANDS:
        click.echo("  No such command.  Try 'ulvm help'.", err=True)
        return 2
    return _run(name, arguments)


def _run(name: str, arguments: list[str]) -> int:
    context = Context(os.environ, [name, *arguments])
    try:
        command = _load(name)
        status = command.main(
            args=expanded(arguments, command),
            prog_name=name,
            standalone_mode=False,
            obj=context,
            help_option_names=list(HELP_OPTIONS),
        )
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except AmbiguousOption as error:
        click.echo(f"{name}: {error.message}", err=True)
        return _bad_line("", parsing=True)
    except (click.NoSuchOption, click.BadOptionUsage) as error:
        click.echo(f"{name}: {_option_problem(error)}", err=True)
        return _bad_line("", parsing=True)
    except click.UsageError as error:
        if isinstance(error, click.MissingParameter) and name.startswith(("pv", "vg", "lv")):
            return _bad_line(no_such_syntax(name).message, parsing=False)
        extra = _EXTRA.search(error.message)
        if extra is not None:
            return _bad_line(f"Command does not accept argument: {extra[1]}.", parsing=False)
        shown = error.ctx.command_path if error.ctx else name
        return _bad_line(f"{shown}: {error.format_message()}", parsing=True)
    except UsageError as error:
        parsing = "Invalid argument for " in error.message
        return _bad_line(error.message, parsing=parsing, name=name)
    except UlvmError as error:
        context.console.warn(error.message)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        context.console.warn("Interrupted...")
        return 130
    finally:
        context.close()


def _option_problem(error: click.NoSuchOption | click.BadOptionUsage) -> str:
    """As getopt_long(3) says it."""
    option = error.option_name
    if isinstance(error, click.NoSuchOption):
        if option.startswith("--"):
            return f"unrecognized option '{option}'"
        return f"invalid option -- '{option[1:]}'"
    if "requires an argument" not in error.message:
        return f"option '{option}' doesn't allow an argument"
    if option.startswith("--"):
        return f"option '{option}' requires an argument"
    return f"option requires an argument -- '{option[1:]}'"


def _bad_line(message: str, *, parsing: bool, name: str = "") -> int:
    for line in message.splitlines():
        click.echo(f"  {line}", err=True)
    if parsing:
        click.echo("  Error during parsing of command line.", err=True)
    elif "--help" not in message and not message.startswith("Command does not accept"):
        click.echo(f"  Run `{name} --help' for more information.", err=True)
    return UsageError.exit_code


if __name__ == "__main__":
    sys.exit(main())
