"""What a command is given: the host, a session, and the options that all commands have.

The only module, with the daemon's entry point, that looks at the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ulvm.cli.console import Console

if TYPE_CHECKING:
    from ulvm.lvm.session import Session
    from ulvm.vgstore.host import Host

__all__ = ["Context", "common_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


class Context:
    """Of one command. `command_line` is what metadata and archive will say made a change."""

    def __init__(self, environ: Mapping[str, str], argv: Sequence[str]) -> None:
        self.environ = environ
        self.command_line = " ".join(argv)
        self.overrides = ""
        self.verbose = 0
        self.console = Console()
        self._host: Host | None = None
        self._session: Session | None = None

    @property
    def host(self) -> Host:
        if self._host is None:
            from ulvm.vgstore.host import Host

            self._host = Host.from_environment(self.environ, overrides=self.overrides)
        return self._host

    def session(self, command_line: str = "") -> Session:
        """The command's session; the same one each time."""
        if self._session is None:
            from ulvm.lvm.session import Session

            line = command_line or self.command_line
            self._session = Session(self.host, self.console, command_line=line)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(context: click.Context, _: click.Parameter, value: Any) -> None:
        found = context.obj
        assert isinstance(found, Context)
        if name == "yes":
            found.console.yes = found.console.yes or bool(value)
        elif name == "quiet":
            found.console.quiet = found.console.quiet or bool(value)
        elif name == "verbose":
            found.verbose += int(value)
        elif name == "config" and value is not None:
            found.overrides = str(value)

    return store


def _ignored(*names: str, value: bool = False) -> Callable[[_F], _F]:
    """An option of LVM's that has no meaning here, or is always so."""
    return click.option(*names, is_flag=not value, expose_value=False, hidden=True)


def common_options(function: _F) -> _F:
    """The options that every command of LVM takes."""
    options = [
        click.option("-y", "--yes", is_flag=True, expose_value=False, callback=_store("yes"),
                     help="Answer every question with yes."),
        click.option("-q", "--quiet", count=True, expose_value=False, callback=_store("quiet"),
                     help="Print no results."),
        click.option("-v", "--verbose", count=True, expose_value=False, callback=_store("verbose"),
                     help="Show more."),
        click.option("--config", metavar="STRING", expose_value=False, callback=_store("config"),
                     help="Settings on top of ulvm.conf, in its grammar."),
        _ignored("--noudevsync"),
        _ignored("--nohints"),
        _ignored("--driverloaded", value=True),
        _ignored("-A", "--autobackup", value=True),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function
