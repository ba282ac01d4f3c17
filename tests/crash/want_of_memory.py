"""Want of memory at a line of the mapper: MemoryError where Python could raise it.

A line is one of those that call or build something; none that opens or leaves a `with`, whose end
would then not come either, nor one that is there for an error already. A tracer counts such lines
of one file and raises at one of them, once.
"""

from __future__ import annotations

import ast
import random
import sys
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import ulvm.dm

__all__ = ["Want"]

_ROOT = Path(ulvm.dm.__file__).parent
FILES = (
    "commit.py",
    "copies.py",
    "cow.py",
    "device.py",
    "exceptions/map.py",
    "exceptions/persistent.py",
    "mapper.py",
    "origins.py",
    "snapshot_stage.py",
    "stage.py",
    "targets/merge.py",
    "targets/origin.py",
    "targets/snapshot.py",
)
_TAKES = (ast.Call, ast.List, ast.ListComp, ast.Dict, ast.DictComp, ast.Set, ast.SetComp)


@cache
def _lines(file: str) -> frozenset[int]:
    """Where memory may be wanting."""
    takes, never = set(), set()
    for node in ast.walk(ast.parse(Path(file).read_text())):
        match node:
            case ast.Try():
                for part in (*node.handlers, *node.finalbody):
                    never.update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
            case ast.With() | ast.FunctionDef() | ast.ClassDef():
                never.update(range(node.lineno, node.body[0].lineno))
            case ast.Raise():
                never.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            case _ if isinstance(node, _TAKES):
                takes.add(node.lineno)
    return frozenset(takes - never)


class Want:
    """While it is entered memory is wanting once, in this thread: at such a line of `FILES`, if it
    comes to that. `where` is then that line."""

    def __init__(self, choose: random.Random) -> None:
        self._file = str(_ROOT / choose.choice(FILES))
        self._left = int(10 ** choose.uniform(0, 2.3))
        self.where = ""

    def __enter__(self) -> Want:
        sys.settrace(self._call)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename == self._file and not self.where else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and not self.where and frame.f_lineno in _lines(self._file):
            self._left -= 1
            if self._left <= 0:
                names = []
                at: FrameType | None = frame
                while at is not None and at.f_code.co_filename.startswith(str(_ROOT)):
                    names.append(at.f_code.co_name)
                    at = at.f_back
                file = Path(self._file).relative_to(_ROOT)
                self.where = f"{file}:{frame.f_lineno}, in {' < '.join(names)}"
                raise MemoryError("injected")
        return self._line
