"""Programs over the dm layer: what they are, random ones, and how ulvm runs them.

A program is JSON: `fill` (sector, token, count) and `regions` (name, sector, count) of a disk, and
`steps`, each a list of a word and its operands (sectors, names, table lines):

    create N  remove N  rename N M  load N [[start, length, type, params]]  clear N
    suspend N  resume N  message N sector text  deps N
    write N sector count token  read N sector count  zero / discard N sector count  flush N
    merged N            wait until a merge has ended

In table lines `{N}` is the number of device N, `{disk}` the disk's. Written sectors hold tokens
that count up from `token`. `agent` runs the same programs on a real kernel.
"""

from __future__ import annotations

import errno
import hashlib
import random
import re
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage_file import StageSettings
from ulvm.dm_ioctl import TableLine
from ulvm.errors import BusyError, NotFoundError, NotSupportedError, UlvmError

__all__ = ["REGION", "Local", "Program", "make"]

Program = dict[str, Any]
Step = list[Any]

SECTOR = 512
REGION = 16384
"""Sectors of the disk that a program may use."""
_COW_AT = 4096
_COW_ROOM = 2048
_COWS = 4


class Local:
    """Runs a program on a mapper of this process; outcomes as the agent prints them. `stage`: bytes
    of new data that its origins may keep in memory."""

    def __init__(self, folder: Path, stage: int = 0) -> None:
        self.disk = folder / "disk"
        self.stage = stage

    def run(self, program: Program) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """(outcome of each step, of each region four digits of each sector's sha256)."""
        with self.disk.open("wb") as file:
            file.truncate(REGION * SECTOR)
            for sector, token, count in program["fill"]:
                file.seek(sector * SECTOR)
                file.write(content(token, count))
        self.dm = LocalMapper(stage=StageSettings(self.stage))
        self.names = {"disk": ""}
        self.known: list[str] = []
        self.shown: dict[str, Any] = {}
        outcomes = []
        for step in program["steps"]:
            outcome = self._timed(step)
            outcome["dev"] = self._changes()
            outcomes.append(outcome)
            if outcome["rc"] == errno.ETIMEDOUT:
                break
        self.dm.shutdown()
        data = self.disk.read_bytes()
        sums = {
            name: "".join(
                hashlib.sha256(data[n * SECTOR : (n + 1) * SECTOR]).hexdigest()[:4]
                for n in range(at, at + count)
            )
            for name, at, count in program["regions"]
        }
        return outcomes, sums

    def _timed(self, step: Step) -> dict[str, Any]:
        """The step's outcome; ETIMEDOUT if it does not end, as a read of a suspended device."""
        outcome: dict[str, Any] = {"rc": errno.ETIMEDOUT}

        def work() -> None:
            rc, data = 0, None
            try:
                data = getattr(self, step[0])(*step[1:])
            except UlvmError as error:
                rc = number_of(error)
            outcome["rc"] = rc
            if data is not None:
                outcome["data"] = data

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(30 if step[0] == "merged" else 3)
        return dict(outcome)

    # -- looking ----------------------------------------------------------------------------

    def _changes(self) -> dict[str, Any]:
        found = {}
        for name in self.known:
            shown = self._describe(name)
            if shown != self.shown.get(name):
                found[name] = self.shown[name] = shown
        return found

    def _describe(self, name: str) -> list[Any]:
        status = self.dm.status(name)  # First: it counts what is staged, which may be an event.
        info = self.dm.info(name)
        flags = {
            "ro": info.read_only,
            "suspended": info.suspended,
            "live": info.live_table,
            "inactive": info.inactive_table,
        }
        words = " ".join(word for word, is_set in flags.items() if is_set)
        return [
            words,
            info.open_count,
            [self._named(str(line)) for line in self.dm.table(name)],
            [self._named(str(line)) for line in self.dm.table(name, inactive=True)],
            [self.deps(name), self.deps(name, inactive=True)],
            info.event_nr,
            [self._named(str(line)) for line in status],
        ]

    def _named(self, text: str) -> str:
        def name(match: re.Match[str]) -> str:
            try:
                return self.dm.mapped(match[0]).name
            except NotFoundError:
                return "disk" if match[0].startswith("240:") else match[0]

        return re.sub(r"\b\d+:\d+\b", name, text)

    # -- steps ------------------------------------------------------------------------------

    def create(self, name: str) -> None:
        self.dm.create(name)
        self.known.append(name)

    def remove(self, name: str) -> None:
        self.dm.remove(name)
        self.known.remove(name)
        self.shown.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        self.dm.rename(old, new)
        self.known[self.known.index(old)] = new
        self.shown.pop(old, None)

    def load(self, name: str, lines: list[list[Any]]) -> None:
        def device(match: re.Match[str]) -> str:
            if match[1] == "disk":
                return str(self.disk)
            return self.dm.mapped(match[1]).number if match[1] in self.known else "99:99"

        self.dm.load(
            name,
            [
                TableLine(start, length, kind, re.sub(r"\{([\w.-]+)\}", device, text))
                for start, length, kind, text in lines
            ],
        )

    def clear(self, name: str) -> None:
        self.dm.clear(name)

    def suspend(self, name: str) -> None:
        self.dm.suspend(name, lockfs=False)

    def resume(self, name: str) -> None:
        self.dm.resume(name)

    def message(self, name: str, sector: int, text: str) -> None:
        self.dm.message(name, sector, text)

    def deps(self, name: str, *, inactive: bool = False) -> list[str]:
        found = self.dm.deps(name, inactive=inactive)
        return [self._named(f"{major}:{minor}") for major, minor in found]

    def write(self, name: str, sector: int, count: int, token: int) -> None:
        self.dm.mapped(name).write(sector * SECTOR, content(token, count))

    def read(self, name: str, sector: int, count: int) -> str:
        data = self.dm.mapped(name).read(sector * SECTOR, count * SECTOR)
        return hashlib.sha256(data).hexdigest()[:24]

    def flush(self, name: str) -> None:
        self.dm.mapped(name).flush()

    def zero(self, name: str, sector: int, count: int) -> None:
        self.dm.mapped(name).write_zeroes(sector * SECTOR, count * SECTOR)

    def discard(self, name: str, sector: int, count: int) -> None:
        self.dm.mapped(name).discard(sector * SECTOR, count * SECTOR)

    def merged(self, name: str) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            text = "".join(map(str, self.dm.status(name)))[-60:].split("merge ")[-1]
            if "/" not in text:
                return text
            used, _, metadata = text.replace("/", " ").split()
            if used == metadata:
                return "merged"
            time.sleep(0.001)
        return "no end"


def content(token: int, count: int) -> bytes:
    return b"".join(
        struct.pack("<Q", token + n if token else 0) * (SECTOR // 8) for n in range(count)
    )


def number_of(error: UlvmError) -> int:
    """The errno that the kernel would give."""
    if isinstance(error, NotFoundError):
        return errno.ENXIO
    if isinstance(error, BusyError):
        return errno.EBUSY
    if isinstance(error, NotSupportedError):
        return errno.EOPNOTSUPP
    return getattr(error, "errno", None) or errno.EINVAL


# -- random programs ------------------------------------------------------------------------------


@dataclass
class _Snap:
    name: str
    cow: int
    kind: str
    chunk: int
    length: int
    features: str

    def line(self, kind: str = "snapshot") -> list[list[Any]]:
        params = f"{{b}} {{c{self.cow}}} {self.kind} {self.chunk}{self.features}"
        return [[0, self.length, kind, params]]


class _Maker:
    """Knows as much of the devices as is needed to write mostly sensible steps."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.steps: list[Step] = []
        self.token = 1 << 32
        self.length = choose.randrange(200, 3500)
        self.cows = [choose.choice([70, 200, 500, 1500]) for _ in range(_COWS)]
        self.snaps: list[_Snap] = []
        self.names = 0
        self.misc: list[str] = []

    def make(self, steps: int) -> Program:
        fill = [[0, 1, self.length]]
        for n in range(_COWS):
            # Old data behind a wiped beginning.
            fill.append([_COW_AT + n * _COW_ROOM + 8, 1 << (40 + n), _COW_ROOM - 8])
        self.add("create", "b")
        self.add("load", "b", [[0, self.length, "linear", "{disk} 0"]])
        self.add("resume", "b")
        for n in range(_COWS):
            self.add("create", f"c{n}")
            self.add("load", f"c{n}", self.cow_line(n))
            self.add("resume", f"c{n}")
        self.add("create", "o")
        self.add("load", "o", self.origin_line())
        self.add("resume", "o")
        while len(self.steps) < steps:
            self.step()
        for snap in self.snaps:
            self.add("read", snap.name, 0, snap.length)
        self.add("read", "o", 0, self.length)
        regions = [["b", 0, self.length]]
        regions += [[f"c{n}", _COW_AT + n * _COW_ROOM, _COW_ROOM] for n in range(_COWS)]
        return {"fill": fill, "regions": regions, "steps": self.steps}

    def add(self, *step: Any) -> None:
        self.steps.append(list(step))

    def cow_line(self, n: int) -> list[list[Any]]:
        return [[0, self.cows[n], "linear", f"{{disk}} {_COW_AT + n * _COW_ROOM}"]]

    def origin_line(self) -> list[list[Any]]:
        return [[0, self.length, "snapshot-origin", "{b}"]]

    def range(self, length: int) -> tuple[int, int]:
        choose = self.choose
        count = min(length, choose.choice([1, 2, 3, 8, 16, 24, 64, 200]))
        sector = choose.randrange(length - count + 1)
        if choose.random() < 0.4:
            sector &= ~7
        return sector, count

    def new_token(self, count: int) -> int:
        self.token += count
        return self.token - count

    def step(self) -> None:
        choose = self.choose
        actions: list[tuple[int, Any]] = [
            (26, self.write_origin), (8, self.read), (2, self.flush), (4, self.zero),
            (4, self.wrong), (2, self.other), (2, self.pause),
        ]  # fmt: skip
        if len(self.snaps) < _COWS:
            actions.append((7, self.add_snapshot))
        if self.snaps:
            actions += [
                (16, self.write_snapshot), (3, self.remove_snapshot), (3, self.handover),
                (3, self.grow), (3, self.discard), (3, self.merge), (1, self.rename),
                (2, self.again),
            ]  # fmt: skip
        weights = [weight for weight, _ in actions]
        choose.choices([action for _, action in actions], weights)[0]()

    def write_origin(self) -> None:
        sector, count = self.range(self.length)
        self.add("write", "o", sector, count, self.new_token(count))

    def write_snapshot(self) -> None:
        snap = self.choose.choice(self.snaps)
        sector, count = self.range(snap.length)
        self.add("write", snap.name, sector, count, self.new_token(count))

    def read(self) -> None:
        name, length = self.choose.choice(
            [("o", self.length), *((s.name, s.length) for s in self.snaps)]
        )
        self.add("read", name, *self.range(length))

    def flush(self) -> None:
        self.add("flush", self.choose.choice(["o", *(s.name for s in self.snaps)]))

    def zero(self) -> None:
        name, length = self.choose.choice(
            [("o", self.length), *((s.name, s.length) for s in self.snaps)]
        )
        self.add("zero", name, *self.range(length))

    def discard(self) -> None:
        snap = self.choose.choice(self.snaps)
        sector, count = self.range(snap.length)
        # The kernel drops what is not aligned to the granularity that it says; whole chunks only.
        sector = sector // snap.chunk * snap.chunk
        count = snap.chunk
        if sector + count <= snap.length:
            self.add("discard", snap.name, sector, count)

    def pause(self) -> None:
        for word in ("suspend", "resume"):
            self.add(word, self.choose.choice(["o", *(s.name for s in self.snaps)]))
        # Whatever it was that was suspended goes on, so that nothing waits for ever.
        for name in ("o", *(s.name for s in self.snaps)):
            self.add("resume", name)

    def add_snapshot(self) -> None:
        choose = self.choose
        used = {snap.cow for snap in self.snaps}
        cow = choose.choice([n for n in range(_COWS) if n not in used])
        self.names += 1
        length = self.length if choose.random() < 0.8 else choose.randrange(100, self.length)
        features = choose.choice(
            ["", "", "", " 0", " 1 discard_zeroes_cow",
             " 2 discard_zeroes_cow discard_passdown_origin"]
        )  # fmt: skip
        kind = choose.choice(["P", "P", "PO", "PO", "N", "p", "pO"])
        chunk = choose.choice([1, 2, 4, 8, 8, 16, 32, 64, 128, 1024])
        while 2 * chunk > self.cows[cow]:
            chunk //= 2
        snap = _Snap(f"s{self.names}", cow, kind, chunk, length, features)
        if choose.random() < 0.8:
            # Without it the store that lies there, if there is one, is used again.
            self.add("zero", f"c{cow}", 0, 8)
        self.add("suspend", "o")
        self.add("create", snap.name)
        self.add("load", snap.name, snap.line())
        self.add("resume", snap.name)
        self.add("resume", "o")
        self.snaps.append(snap)

    def remove_snapshot(self) -> None:
        snap = self.choose.choice(self.snaps)
        self.snaps.remove(snap)
        suspended = self.choose.random() < 0.5
        if suspended:
            self.add("suspend", "o")
        self.add("remove", snap.name)
        if suspended:
            self.add("resume", "o")

    def again(self) -> None:
        """Removed and made again on the store that is there."""
        snap = self.choose.choice(self.snaps)
        self.add("suspend", "o")
        self.add("remove", snap.name)
        self.add("create", snap.name)
        self.add("load", snap.name, snap.line())
        self.add("resume", snap.name)
        self.add("resume", "o")

    def handover(self) -> None:
        """To itself, or to another device; now and then in an order that is refused."""
        snap = self.choose.choice(self.snaps)
        kind = self.choose.random()
        if kind < 0.6:
            self.add("load", snap.name, snap.line())
            order = ["o", snap.name]
            if kind < 0.3:
                order.reverse()
            for name in order:
                self.add("suspend", name)
            self.add("resume", snap.name)
            self.add("resume", "o")
        elif kind < 0.7:
            self.add("load", snap.name, snap.line())
            self.add("clear", snap.name)
        else:
            self.names += 1
            other = f"s{self.names}"
            self.add("create", other)
            self.add("load", other, snap.line())
            self.add("suspend", "o")
            if kind < 0.9:
                self.add("suspend", snap.name)
            self.add("resume", other)
            self.add("resume", "o")
            if kind < 0.9:
                self.add("remove", snap.name)
                snap.name = other
            else:
                self.add("remove", other)

    def grow(self) -> None:
        snap = self.choose.choice(self.snaps)
        self.cows[snap.cow] = min(_COW_ROOM, self.cows[snap.cow] + self.choose.choice([8, 100]))
        self.add("load", f"c{snap.cow}", self.cow_line(snap.cow))
        for name in ("o", snap.name, f"c{snap.cow}"):
            self.add("suspend", name)
        for name in (f"c{snap.cow}", snap.name, "o"):
            self.add("resume", name)

    def merge(self) -> None:
        """Whole, stopped and gone on with, or taken back to a snapshot."""
        choose = self.choose
        snap = choose.choice(self.snaps)
        if snap.length != self.length:
            return
        self.add("load", "o", snap.line("snapshot-merge"))
        for name in ("o", snap.name):
            self.add("suspend", name)
        self.add("resume", "o")
        if choose.random() < 0.5:
            self.add("suspend", "o")
            self.add("read", "b", 0, 1)
            self.add("resume", "o")
        self.add("merged", "o")
        self.add("remove", snap.name)
        if choose.random() < 0.5:
            self.write_origin()
            self.read()
        self.add("load", "o", self.origin_line())
        self.add("suspend", "o")
        self.add("resume", "o")
        self.snaps.remove(snap)

    def rename(self) -> None:
        snap = self.choose.choice(self.snaps)
        self.names += 1
        self.add("rename", snap.name, f"s{self.names}")
        snap.name = f"s{self.names}"

    def other(self) -> None:
        """Devices of the other targets, of several lines."""
        choose = self.choose
        self.names += 1
        name = f"t{self.names}"
        size = choose.randrange(8, 60)
        lines = choose.choice(
            [
                [[0, size, "zero", ""]],
                [[0, size, "error", ""], [size, 8, "linear", "{b} 3"]],
                [[0, 8, "linear", "{b} 9"], [8, size, "zero", ""], [8 + size, 5, "error", "x y"]],
                [[0, 64, "striped", "2 8 {b} 1 {b} 43"]],
                [[0, 48, "striped", "3 4 {b} 0 {b} 50 {b} 100"], [48, 3, "linear", "{b} 0"]],
            ]
        )
        self.add("create", name)
        self.add("load", name, lines)
        self.add("resume", name)
        self.add("flush", "o")
        end = sum(line[1] for line in lines)
        self.add("read", name, 0, min(end, 8))
        self.add("read", name, *self.range(end))
        if lines[0][2] == "zero":
            self.add("write", name, 0, 3, self.new_token(3))
            self.add("read", name, 0, 8)
        self.add("deps", name)
        self.add("remove", name)

    def wrong(self) -> None:
        """What must be refused, and how."""
        choose = self.choose
        some = choose.choice(["b", "c0", "o", *(s.name for s in self.snaps)])
        bad = choose.choice(
            [
                [[0, 8, "linear", "{b}"]], [[0, 8, "linear", "{b} x"]],
                [[0, 1 << 40, "linear", "{b} 0"]], [[0, 8, "linear", "{b} 99999999"]],
                [[1, 8, "zero", ""]], [[0, 8, "zero", ""], [9, 8, "zero", ""]],
                [[0, 0, "zero", ""]], [[0, 8, "zero", "1"]], [[0, 8, "nothing", ""]],
                [[0, 8, "snapshot-origin", ""]], [[0, 8, "snapshot-origin", "{b} {b}"]],
                [[0, 8, "snapshot", "{b} {c0} P"]], [[0, 8, "snapshot", "{b} {b} P 8"]],
                [[0, 8, "snapshot", "{b} {nope} P 8"]], [[0, 8, "snapshot", "{b} {c0} X 8"]],
                [[0, 8, "snapshot", "{b} {c0} P 3"]], [[0, 8, "snapshot", "{b} {c0} PX 8"]],
                [[0, 8, "snapshot", "{b} {c0} P 8 3"]], [[0, 8, "snapshot", "{b} {c0} P 8 1 x"]],
                [[0, 8, "snapshot", "{b} {c0} P 8 1 discard_passdown_origin"]],
                [[0, 8, "snapshot-merge", "{b} {c0} N 8"]], [[0, 8, "snapshot", "{b} {c0} P -1"]],
                [[0, 9, "striped", "2 8 {b} 0 {b} 8"]], [[0, 16, "striped", "0 8"]],
                [[0, 16, "striped", "2 8 {b} 0"]], [[0, 16, "striped", "2 0 {b} 0 {b} 8"]],
            ]
        )  # fmt: skip
        what = choose.randrange(9)
        if what < 4:
            self.add("create", "w")
            self.add("load", "w", bad)
            self.add("resume", "w")
            self.add("remove", "w")
        elif what == 4:
            self.add("create", some)
        elif what == 5:
            self.add("remove", choose.choice(["b", "nope", "c0"]) if self.snaps else "nope")
        elif what == 6:
            self.add("message", some, choose.choice([0, 0, 1 << 30]), choose.choice(["hello", ""]))
        elif what == 7:
            self.add("rename", choose.choice([some, "nope"]), choose.choice(["b", "o"]))
        else:
            self.add(choose.choice(["suspend", "resume", "clear", "deps"]), "nope")


def make(choose: random.Random, steps: int) -> Program:
    """A random program of about so many steps."""
    return _Maker(choose).make(steps)
