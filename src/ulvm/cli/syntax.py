"""What is said of a command line that no form of the command fits."""

from __future__ import annotations

from ulvm.errors import UsageError

__all__ = ["NoSuchSyntax", "no_such_syntax"]


class NoSuchSyntax(UsageError):
    """`main` shows the form that comes nearest below it."""


def no_such_syntax(command: str) -> NoSuchSyntax:
    """For a command line that has not what the command needs at least."""
    return NoSuchSyntax(
        f"No command with matching syntax recognised.  Run '{command} --help' for more information."
    )
