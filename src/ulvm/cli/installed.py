"""`ulvm completion` and `ulvm man`: what the package installs, for who runs from elsewhere.

`python -m ulvm.cli.installed DIRECTORY` writes all of it below a directory such as /usr; the build
of the package calls that, so pages and completion are those of the commands that are built.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from ulvm.cli.common_options import own_options
from ulvm.cli.completion import completion_script
from ulvm.cli.completion_shells import SHELLS
from ulvm.cli.context import Context
from ulvm.cli.manual import manual_pages
from ulvm.cli.words import OneOf
from ulvm.errors import NotFoundError

__all__ = ["completion", "main", "man", "shared_files"]

_PLACES = {
    "bash": "share/bash-completion/completions/ulvm",
    "zsh": "share/zsh/site-functions/_ulvm",
    "fish": "share/fish/vendor_completions.d/ulvm.fish",
}


def shared_files() -> dict[Path, str]:
    """Manual pages and completion, by their place below the prefix of an installation."""
    files = {Path("share/man") / path: text for path, text in manual_pages().items()}
    files |= {Path(_PLACES[shell]): completion_script(shell) for shell in SHELLS}
    return files


@click.command()
@click.argument("shell", type=OneOf(*SHELLS))
@click.option("--links", is_flag=True, help="Also for lvs, lvcreate, ... where they are ulvm's.")
@own_options
def completion(shell: str, links: bool) -> None:
    """Print the completion of a shell: bash, zsh or fish.

    The package installs it. To have it at once, in bash: source <(ulvm completion bash).
    """
    click.echo(completion_script(shell, links=links), nl=False)


@click.command()
@click.argument("name", default="ulvm", metavar="[COMMAND]")
@own_options
@click.pass_obj
def man(context: Context, name: str) -> int:
    """Show the manual page of ulvm, of one of its commands, or of ulvm.conf.

    The package installs the pages: man ulvm, man ulvm-lvcreate, man ulvm.conf.
    """
    pages = {path.stem: text for path, text in manual_pages().items()}
    text = pages.get(f"ulvm-{name}") or pages.get(name)
    if text is None:
        raise NotFoundError(f"There is no manual page of {name}.")
    with tempfile.NamedTemporaryFile("w", suffix=".8", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            return subprocess.run(["man", "-l", file.name], check=False).returncode
        except FileNotFoundError:
            click.echo(text, nl=False)
            return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write all files below a directory."""
    (prefix,) = sys.argv[1:] if argv is None else argv
    for path, text in shared_files().items():
        place = Path(prefix, path)
        os.makedirs(place.parent, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
