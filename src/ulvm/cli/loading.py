"""Commands are imported one at a time, when they are called: start-up time matters to scripts."""

from __future__ import annotations

import importlib

import click

__all__ = ["load"]


class _HelpContext(click.Context):
    """A context that shows help as lvm(8) has it."""

    def get_help(self) -> str:
        from ulvm.cli.help import help_lines, wants_long

        lines = help_lines(self.command_path, self.command, long=wants_long(self))
        if self.command_path == "dmsetup":
            click.echo("\n".join(lines), err=True)  # as libdevmapper's does
            self.exit()
        return "\n".join(lines)


def load(target: str, name: str) -> click.Command:
    """The command at `module:attribute`, which shows its help in our way."""
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command), name
    command.context_class = _HelpContext
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            inner.context_class = _HelpContext
    return command
