"""`ulvm demo`: the main job before one's eyes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from ulvm.backup.interrupts import Interrupted
from ulvm.demo.scenario import run
from ulvm.errors import RefusedError

__all__ = ["demo"]

_MARKS = {None: "[bold cyan]•[/]", True: "[bold green]✓[/]", False: "[bold red]✗[/]"}
_WIDTH = 116
_PICTURED_AS = "/var/tmp/ulvm-demo"


def _picture(console: Console) -> str:
    """What the console recorded as SVG, in the viewer's own monospace font."""
    picture = console.export_svg(title="ulvm demo")
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    return picture.replace("Fira Code, monospace", "ui-monospace, monospace")


class _Screen:
    """Shows the demonstration on a console; `shown_as` stands for the directory `base` there."""

    def __init__(self, console: Console, base: Path, shown_as: str) -> None:
        self._console = console
        self._base = str(base)
        self._shown_as = shown_as
        self._number = 0

    def _print(self, markup: str) -> None:
        markup = markup.replace(self._base, self._shown_as)
        self._console.print(markup, highlight=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        self._number += 1
        self._print(f"\n[bold]{self._number}  {escape(text)}[/]")

    def command(self, text: str) -> None:
        self._print(f"[dim]$[/] [bold yellow]{escape(text)}[/]")

    def output(self, text: str) -> None:
        if text.strip():
            self._print(escape(text.rstrip("\n")))

    def fact(self, text: str, *, good: bool | None = None) -> None:
        self._print(f"{_MARKS[good]} {escape(text)}")


@click.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="A new directory to use.")
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture of it as well."
)
@click.option("--blocks", is_flag=True, help="On bare blocks, as without root or FUSE.")
def demo(directory: Path | None, svg: Path | None, blocks: bool) -> None:
    """Back up a live bank, restore it, roll it back: the main job, for real, in two minutes.

    A volume group is made on a file; ext4 and a SQLite database on it are written all the while.
    Without root or FUSE the same is done on bare blocks.
    """
    if directory is None:
        base = Path(tempfile.mkdtemp(prefix="ulvm-demo-", dir="/var/tmp"))
    else:
        base = directory.absolute()
        try:
            base.mkdir()
        except OSError as error:
            raise RefusedError(f"Cannot create {base}: {error.strerror}.") from error
    console = Console(record=svg is not None, width=None if svg is None else _WIDTH)
    shown_as = str(base) if svg is None else _PICTURED_AS
    try:
        run(base, _Screen(console, base, shown_as), bare_blocks=blocks)
    except Interrupted as stop:
        click.echo(f"  Interrupted ({stop}); {base} is left.", err=True)
        raise click.exceptions.Exit(stop.exit_code) from None  # not the shell's end
    if svg is not None:
        svg.write_text(_picture(console))
