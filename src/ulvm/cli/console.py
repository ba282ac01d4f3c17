"""Where a command's words go: LVM's indentation, standard output and error, and questions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulvm.cli.logfile import LogFile
    from ulvm.report.log import CommandLog

__all__ = ["Console"]

_ERROR, _RESULT, _INFO = 3, 4, 5
"""Levels of log/level (cli.logfile)."""


class Console:
    """`lvm.words.Messages` on the standard streams. `yes` and `denies` answer every question;
    `quiet` leaves out what was not asked for (LVM's -qq), `mute` that as well; `prefix` stands
    before each line, `indent` before what -v tells."""

    def __init__(self, *, yes: bool = False, quiet: bool = False) -> None:
        self.yes = yes
        self.quiet = quiet
        self.mute = False
        self.denies = False
        self.prefix = "  "
        self.indent = ""
        self.verbosity = 0
        self.log: CommandLog | None = None
        """Takes what is said in place of the streams."""
        self.file: LogFile | None = None
        """Takes it as well."""

    def say(self, text: str) -> None:
        if self.log is not None:
            for line in text.splitlines():
                self.log.message("print", line)
                self._keep(_RESULT, line)
        elif not self.quiet:
            self.show(text)
        elif self.verbosity > 0:
            self._print_error(_RESULT, text)

    def show(self, text: str) -> None:
        """What was asked for, however quiet it is to be."""
        self.show_lines(text.splitlines())

    def show_lines(self, lines: Sequence[str]) -> None:
        """The same, of lines that may hold any character."""
        if lines and not self.mute:
            print("\n".join(f"{self.prefix}{line}" for line in lines))
        for line in lines:
            self._keep(_RESULT, line)

    def display(self, lines: Iterable[str]) -> None:
        """The same, as a part of the command's log if there is one."""
        if self.log is None:
            self.show_lines([*lines])
        else:
            self.say("\n".join(lines))

    def warn(self, text: str) -> None:
        if self.log is None:
            self.tell(text)
            return
        for line in text.splitlines():
            self.log.message("warn" if line.startswith("WARNING") else "error", line)
            self._keep(_ERROR, line)

    def tell(self, text: str) -> None:
        """A warning that is no part of the command's log."""
        self._print_error(_RESULT if text.startswith("WARNING") else _ERROR, text)

    def verbose(self, text: str) -> None:
        """What is done, with -v."""
        if self.verbosity > 0:
            self._print_error(_INFO, text, self.indent)
        elif self.file is not None:
            for line in text.splitlines():
                self._keep(_INFO, line)

    def _print_error(self, level: int, text: str, indent: str = "") -> None:
        sys.stdout.flush()
        for line in text.splitlines():
            print(f"{self.prefix}{indent}{line}", file=sys.stderr)
            self._keep(level, line)

    def _keep(self, level: int, line: str) -> None:
        if self.file is not None:
            self.file.write(level, f"{self.prefix}{line}")

    def ask(self, question: str) -> bool:
        """LVM's prompt: no answer is no, which is shown. A question that ends in a blank is the
        whole prompt."""
        if self.yes:
            return True
        answer = self._answer(question)
        self.verbose(f"Accepted input: [{'y' if answer else 'n'}]")
        return answer

    def _answer(self, question: str) -> bool:
        sys.stdout.flush()
        prompt = question if question.endswith(" ") else f"{question} [y/n]: "
        print(prompt, end="", file=sys.stderr, flush=True)
        while True:
            answer = "" if self.denies else sys.stdin.readline()
            if not answer:
                print("[n]", file=sys.stderr)
                return False
            word = answer.strip().lower()
            if word in ("y", "yes"):
                return True
            if word in ("n", "no"):
                return False
            self.warn(f"WARNING: Invalid input '{answer.strip()}'.")
            print(prompt, end="", file=sys.stderr, flush=True)
