"""Commands are imported one at a time, when they are called: start-up time matters to scripts."""

from __future__ import annotations

import importlib

import click

from ulvm.cli.examples import EXAMPLES

__all__ = ["load"]


def load(target: str, name: str) -> click.Command:
    """The command at `module:attribute`; its examples stand below its help."""
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    if command.epilog is None and name in EXAMPLES:
        lines = "\n".join(f"  {line}\n      {what}" for line, what in EXAMPLES[name])
        command.epilog = f"\b\nExamples:\n{lines}"
    return command
