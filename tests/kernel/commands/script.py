"""Reads scripts: what is typed to LVM2 and to ulvm.

A script is a text of UTF-8, one step a line:

    # What it is about; empty lines and lines that start so are no steps.
    vgcreate -s 1m va /dev/vda           a command, in the words of a shell
    lvremove va/l1 <<< 'y\\n'             what its standard input holds; else that is empty
    LVM_VG_NAME=va lvcreate -l1          variables of its environment
    ~ lvchange -ay va/l1                 what it does to the disks counts with the next step, since
                                         something goes on in the background
    !open va/l1                          something else that happens, see below

Every script starts with empty disks, /dev/vda to /dev/vdh, of the sizes in `DISKS`. What else can
happen, numbers being bytes:

    !open VG/LV, !close VG/LV            somebody holds the volume open
    !write VG/LV START LENGTH            data that are not zero are written to it
    !sum VG/LV                           how many 4-KiB blocks are zero, and how many are not
    !merged                              wait until no volume is merging
    !put DISK START HEX, !get ...        bytes on a disk: !put vda 510 55aa; !get vda 510 2
    !copy vda vdb                        the head of a disk is cloned
    !hide vda, !show vda                 a disk goes away, and comes back
    !config TEXT                         further settings of lvm.conf and ulvm.conf
    !backup VG, !archives                the backup file; archives with their descriptions
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["DISKS", "SCRIPTS", "Script", "Step", "read_scripts"]

SCRIPTS = Path(__file__).parent / "scripts"

_MIB = 1 << 20
DISKS = {
    "vda": 64 * _MIB,
    "vdb": 64 * _MIB,
    "vdc": 64 * _MIB,
    "vdd": 64 * _MIB,
    "vde": 100 * _MIB,
    # What does not divide by extents; room for large volumes; too small for a PV.
    "vdf": 33 * _MIB + 512 * 7,
    "vdg": 8192 * _MIB,
    "vdh": 1 * _MIB,
}
"""Names and sizes in bytes; sparse."""

_INPUT = re.compile(r"\s<<<\s+('[^']*'|\S+)$")
_VARIABLE = re.compile(r"([A-Z_]+)=(.*)")


class Step(NamedTuple):
    """One line of a script."""

    line: str
    words: list[str]
    env: dict[str, str]
    input: str | None
    goes_on: bool = False

    def job(self) -> dict[str, Any]:
        """As the runner takes it."""
        step = self._asdict()
        del step["line"]
        return step


class Script(NamedTuple):
    """A script under the name of its file without the ending."""

    name: str
    steps: list[Step]


def read_scripts(names: Iterable[str] = ()) -> list[Script]:
    """The scripts of these names, all if none is given, in the order of their names."""
    paths = [SCRIPTS / f"{name}.txt" for name in names] or sorted(SCRIPTS.glob("*.txt"))
    return [Script(path.stem, _steps(path)) for path in paths]


def _steps(path: Path) -> list[Step]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [_step(line) for line in lines if line and not line.startswith("#")]


def _step(line: str) -> Step:
    if line.startswith("!config"):
        return Step(line, line.split(), {}, None)
    text, given = line, None
    found = _INPUT.search(line)
    if found:
        text = line[: found.start()]
        given = found[1].strip("'").replace("\\n", "\n")
    words = shlex.split(text)
    goes_on = words[0] == "~"
    if goes_on:
        del words[0]
    env = {}
    while variable := _VARIABLE.fullmatch(words[0]):
        env[variable[1]] = variable[2]
        del words[0]
    return Step(line, words, env, given, goes_on)
