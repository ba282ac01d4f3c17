"""Where a command's words go: LVM's indentation, standard output and error, and questions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulvm.report.log import CommandLog

__all__ = ["Console"]


class Console:
    """`lvm.session.Messages` on the standard streams. `yes` and `denies` answer every question;
    `quiet` leaves out what was not asked for (LVM's -qq); `prefix` stands before each line."""

    def __init__(self, *, yes: bool = False, quiet: bool = False) -> None:
        self.yes = yes
        self.quiet = quiet
        self.denies = False
        self.prefix = "  "
        self.verbosity = 0
        self.told = False
        """Whether the words tell of work that is done."""
        self.log: CommandLog | None = None
        """Takes what is said in place of the streams."""

    def say(self, text: str) -> None:
        self.told = True
        if self.log is not None:
            for line in text.splitlines():
                self.log.message("print", line)
        elif not self.quiet:
            self.show(text)

    def show(self, text: str) -> None:
        """What was asked for, however quiet it is to be."""
        for line in text.splitlines():
            print(f"{self.prefix}{line}")

    def warn(self, text: str) -> None:
        if self.log is not None:
            for line in text.splitlines():
                self.log.message("warn" if line.startswith("WARNING") else "error", line)
            return
        sys.stdout.flush()
        for line in text.splitlines():
            print(f"{self.prefix}{line}", file=sys.stderr)

    def verbose(self, text: str) -> None:
        """What is done, with -v."""
        if self.verbosity > 0:
            sys.stdout.flush()
            for line in text.splitlines():
                print(f"{self.prefix}{line}", file=sys.stderr)

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
