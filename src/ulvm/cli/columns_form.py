"""Commands that show things at length, and with -C in columns: lvdisplay -C is lvs."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

import click

from ulvm.errors import UsageError

__all__ = ["OrColumns"]

_FLAGS = re.compile(r"-[A-BD-Za-z]*C[a-zA-Z]*")

_REPORTS = {"lvdisplay": "lvs", "vgdisplay": "vgs", "pvdisplay": "pvs"}
_ONLY_LONG = {"-c", "--colon", "-m", "--maps", "-s", "--short"}
"""Options that say how the long form looks."""


class OrColumns(click.Command):
    """The command, or with -C the report of the same things with all the report's options."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        words = list(args or ())
        assert self.name is not None
        if not any(word == "--columns" or _FLAGS.fullmatch(word) for word in words):
            return super().main(words, *rest, **extra)
        if any(word in _ONLY_LONG for word in words):
            raise UsageError("Incompatible options selected")
        left = []
        for word in words:
            if word in {"--columns", "-C"}:
                continue
            left.append(word.replace("C", "", 1) if _FLAGS.fullmatch(word) else word)
        module = importlib.import_module("ulvm.cli.reports")
        report = getattr(module, _REPORTS[self.name])
        assert isinstance(report, click.Command)
        return report.main(left, *rest, **extra)
