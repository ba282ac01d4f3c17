"""What is said of a command line that no form of the command fits."""

from __future__ import annotations

from ulvm.errors import UsageError

__all__ = ["no_such_syntax"]


def no_such_syntax(command: str) -> UsageError:
    """For a command line that has not what the command needs at least."""
    return UsageError(
        f"No command with matching syntax recognised.  Run '{command} --help' for more information."
    )
