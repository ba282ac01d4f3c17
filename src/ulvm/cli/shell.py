"""The shell: `ulvm` alone (or `lvm`), with history and completion by readline.

Lines are split at blanks; quotes of either kind hold blanks, a backslash is nothing special, `#`
begins a comment, as in lvm(8). A command that fails does not end the shell, and its exit code is
not the shell's. A script, `#!/usr/bin/ulvm` in its first line, ends where a command fails. Without
a terminal lines are read from standard input, with no prompt.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

__all__ = ["candidates", "run_script", "run_shell", "split_line"]

_NO_SUCH_COMMAND = 2
"""LVM2's exit code for a name that is no command."""


def split_line(line: str) -> list[str]:
    """The words of a line."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    for char in line:
        if quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "\"'":
            quote, word = char, word or ""
        elif char.isspace():
            if word is not None:
                words.append(word)
            word = None
        elif char == "#" and word is None:
            break
        else:
            word = (word or "") + char
    return words if word is None else [*words, word]


def run_shell(
    run: Callable[[str, list[str]], int],
    known: Sequence[str],
    *,
    program: str,
    history: Path | None,
    history_size: int,
    names: Callable[[str], list[str]] = lambda kind: [],
) -> int:
    """Read and run commands until `quit`, `exit` or the end of the input. `run` gets a name out of
    `known` and its arguments, and has said what went wrong when it returns; `names` serve the
    completion. Exit code."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        _set_up_readline(known, names, history)
    try:
        while True:
            line = _next_line(f"{program}> " if interactive else "", interactive)
            if line is None:
                print()
                return 0
            words = split_line(line)
            if words[:1] in (["lvm"], ["ulvm"]):
                del words[0]
            if not words:
                continue
            name, *arguments = words
            if name in ("quit", "exit"):
                click.echo("  Exiting.", err=True)
                return 0
            if name in known:
                run(name, arguments)
            else:
                click.echo(f"  No such command '{name}'.  Try 'help'.", err=True)
            sys.stdout.flush()
    finally:
        if interactive and history is not None:
            _save_history(history, history_size)


def run_script(path: Path, run: Callable[[str, list[str]], int]) -> int | None:
    """Run the lines of a file that begins with `#!`, up to the first that fails: its exit code.
    None for what is no such file. `run` gets any name, and has said what is wrong with it."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            if file.read(2) != "#!":
                return None
            lines = file.read().splitlines()[1:]
    except (OSError, ValueError):
        return None
    status = _NO_SUCH_COMMAND
    for line in lines:
        words = split_line(line)
        if words[:1] in (["quit"], ["exit"]):
            break
        if words:
            status = run(words[0], words[1:])
            if status:
                break
    return status


def _next_line(prompt: str, interactive: bool) -> str | None:
    """None at the end. Ctrl-C gives up the line."""
    if not interactive:
        return sys.stdin.readline() or None
    try:
        return input(prompt)
    except EOFError:
        return None
    except KeyboardInterrupt:
        print()
        return ""


# -- readline -------------------------------------------------------------------------------------


def _set_up_readline(
    known: Sequence[str], names: Callable[[str], list[str]], history: Path | None
) -> None:
    try:
        import readline
    except ImportError:  # a Python without it: lines are read all the same
        return
    if history is not None:
        with contextlib.suppress(OSError):  # there is none yet
            readline.read_history_file(history)
    readline.set_completer_delims(" \t\n")
    readline.set_completer(_completer(known, names))
    readline.parse_and_bind("tab: complete")


def _save_history(path: Path, size: int) -> None:
    try:
        import readline

        readline.set_history_length(size)
        readline.write_history_file(path)
        os.chmod(path, 0o600)
    except (ImportError, OSError) as error:
        click.echo(f"  The history is not kept: {error}", err=True)


def _completer(
    known: Sequence[str], names: Callable[[str], list[str]]
) -> Callable[[str, int], str | None]:
    found: list[str] = []

    def complete(text: str, state: int) -> str | None:
        import readline

        if state == 0:
            before = split_line(readline.get_line_buffer()[: readline.get_begidx()])
            found[:] = candidates(text, before, known, names)
        return found[state] if state < len(found) else None

    return complete


def candidates(
    text: str, before: Sequence[str], known: Sequence[str], names: Callable[[str], list[str]]
) -> list[str]:
    """What `text` may become behind the words `before`: a command, then options, their values, and
    names, which `names` knows by their kind (`cli.completion`)."""
    if not before or [*before] == ["help"]:
        words = [*known, "quit", "exit"] if not before else known
        return [f"{word} " for word in sorted(words) if word.startswith(text)]
    from ulvm.cli.completion import completed_command

    command = completed_command(before[0])
    if command is None:
        return []
    kind, words = command.expected(before[1:])
    if text.startswith("-") and kind not in ("fields", "dmfields"):
        return [f"{word} " for word in command.spellings() if word.startswith(text)]
    if kind == "words":
        return [f"{word} " for word in words if word.startswith(text)]
    if kind in ("fields", "dmfields"):
        start = text[: max(text.rfind(sign) for sign in ",+-") + 1]
        return [start + name for name in names(kind) if name.startswith(text[len(start) :])]
    found = [f"{name} " for name in names(kind) if name.startswith(text)]
    return found or (_files(text) if kind in ("disks", "files") else [])


def _files(text: str) -> list[str]:
    path = Path(text)
    folder = path if text.endswith("/") or not text else path.parent
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    return [str(name) for name in found if str(name).startswith(text)]
