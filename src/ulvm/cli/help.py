"""`help`: all commands with a line each, or one in full."""

from __future__ import annotations

import click

from ulvm.cli.abbreviations import HELP_OPTIONS
from ulvm.cli.catalogue import catalogue
from ulvm.cli.context import own_options
from ulvm.cli.loading import load
from ulvm.errors import UsageError

__all__ = ["help_command"]


@click.command("help")
@click.argument("names", nargs=-1, metavar="[COMMAND [SUBCOMMAND]]")
@own_options
def help_command(names: tuple[str, ...]) -> None:
    """Show all commands, or how one is used."""
    if not names:
        click.echo("  Available ulvm commands:")
        click.echo("  Use 'ulvm help <command>' for more information")
        click.echo("   ")
        for entry in sorted(catalogue(), key=lambda entry: entry.name):
            if not entry.hidden:
                click.echo(f"  {entry.name:15} {entry.summary}")
        return
    from ulvm.cli.main import COMMANDS

    name, *inner = names
    if name not in COMMANDS:
        click.echo(f"  {name}: no such command.")
        raise UsageError("")
    command = load(COMMANDS[name], name)
    context = click.Context(command, info_name=name, help_option_names=list(HELP_OPTIONS))
    for word in inner:
        if not isinstance(command, click.Group) or word not in command.commands:
            break
        command = command.commands[word]
        context = click.Context(command, info_name=word, parent=context)
    click.echo(command.get_help(context))
