"""The life of a volume group on four disks, thought out beforehand: steps, and what they lead to.

`Life.turn` thinks of the steps of a turn and keeps for each volume the bytes that it must hold, for
each snapshot how many chunks it has taken up, and for each group its PVs. Whoever takes the steps
is held to that. Disks are named `@0` to `@3` here:

    @0  one or two metadata areas, so small that the ring of metadata texts wraps
    @1  perhaps no metadata area
    @2  one volume, so that the disk can be split off, or go missing
    @3  joins the group and leaves it

A turn ends with a hand-over to the other side, as `HAND_OVERS` lists them.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = [
    "BLOCK",
    "DATA",
    "HAND_OVERS",
    "Away",
    "Back",
    "Cold",
    "Cut",
    "Life",
    "Merged",
    "Off",
    "Read",
    "Run",
    "Step",
    "Volume",
    "Warm",
    "Write",
]

BLOCK = 4096
"""Bytes in what is written at once."""

EXTENT = 64
"""Blocks in an extent of 256 KiB."""

DATA = random.Random(7).randbytes(2048 * BLOCK)
"""What is written, from a block of it on."""

HAND_OVERS = ("half a merge", "restored", "exported", "plain", "removed")
"""How a turn ends.

half a merge    the host dies while a merge is under way: kill -9 of the daemon, power off
restored        @2 is away for the other side, then comes back and is taken in again
removed         @2 is away for the other side, which removes it from the group
"""


PVCREATE = "pvcreate --dataalignment 64k --metadatasize 60k"


@dataclass(frozen=True)
class Run:
    """A command of LVM; `silent` when it must print nothing."""

    command: str
    rc: int = 0
    silent: bool = False


@dataclass(frozen=True)
class Write:
    """`times` pieces of `blocks` blocks, `every` so many blocks, from block `at` of a volume on.

    The first piece comes from block `source` of DATA, and each from where the one before ended.
    """

    volume: str
    at: int
    blocks: int
    source: int
    every: int = 0
    times: int = 1

    def pieces(self) -> Iterable[tuple[int, bytes]]:
        """(first block, content)"""
        for number in range(self.times):
            start = (self.source + number * self.blocks) % 1024 * BLOCK
            yield self.at + number * self.every, DATA[start : start + self.blocks * BLOCK]


@dataclass(frozen=True)
class Read:
    """Volumes hold bytes with this SHA-256; with None reading is an error."""

    sums: dict[str, str | None]


@dataclass(frozen=True)
class Merged:
    """No merge is under way in these groups, at the latest in a while."""

    groups: tuple[str, ...]


@dataclass(frozen=True)
class Warm:
    """Reports, tables and status lines of the active groups; alike for both sides under a `key`."""

    key: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Cold:
    """Metadata and reports of the groups while they are not active; likewise."""

    key: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Cut:
    """Begin to merge the snapshot of so many exceptions and die in the midst of it."""

    group: str
    snapshot: str
    exceptions: int


@dataclass(frozen=True)
class Off:
    """The host shuts down; its groups are not active."""


@dataclass(frozen=True)
class Away:
    """This disk cannot be seen from here on."""

    disk: int


@dataclass(frozen=True)
class Back:
    """All disks can be seen again."""


Step = Run | Write | Read | Merged | Warm | Cold | Cut | Off | Away | Back


@dataclass
class Volume:
    name: str
    group: str
    blocks: int
    disks: tuple[int, ...] = (0, 1)
    stripes: int = 1
    data: bytearray | None = None
    """None when it is invalid."""
    origin: Volume | None = None
    chunk: int = 0
    """Blocks in a chunk."""
    cow: int = 0
    """Blocks of the COW."""
    taken: set[int] = field(default_factory=set)
    """Chunks of the origin that have an exception."""

    @property
    def path(self) -> str:
        return f"{self.group}/{self.name}"

    def digest(self) -> str | None:
        return None if self.data is None else hashlib.sha256(self.data).hexdigest()

    def room(self) -> int:
        """How many exceptions the COW has room for (drivers/md/dm-snap-persistent.c): a header,
        then metadata areas of a chunk, each with the chunks that it has records for behind it."""
        records = self.chunk * BLOCK // 16
        found, free = 0, 2
        while free + 1 <= self.cow // self.chunk:
            found += 1
            free += 1
            if free % (records + 1) == 1:
                free += 1
        return found

    def chunks(self, at: int, blocks: int) -> set[int]:
        return set(range(at // self.chunk, (at + blocks - 1) // self.chunk + 1))

    def fits(self, chunks: set[int]) -> bool:
        return self.data is None or len(self.taken | chunks) <= self.room()

    def take(self, chunks: set[int]) -> None:
        if self.data is None:
            return
        if self.fits(chunks):
            self.taken |= chunks
        else:
            self.data = None


class Life:
    """A group of groups, from `Life.birth` on, turn by turn."""

    def __init__(self, name: str, choose: random.Random, hand_overs: Iterable[str]) -> None:
        self.name = name
        self.choose = choose
        self.group = name
        self.split: str | None = None
        """The group that @2 is in, when it is split off."""
        self.volumes: list[Volume] = []
        self.third = False
        """Whether @3 is in the group."""
        self.away = ""
        """Why @2 cannot be seen: it will be `restored` or `removed`."""
        self.back = ""
        """Why @2 could not be seen in the turn before."""
        self.alike = False
        """Whether the next turn begins with what was shown at the end of this one."""
        self.half: Volume | None = None
        """The origin whose merge was cut."""
        self.exported = False
        self.numbers = 0
        self.turns = 0
        self.done: dict[str, int] = {}
        """How many episodes of each kind there were."""
        self.steps: list[Step] = []
        self.hand_overs = deque(hand_overs)
        """How the next turns end; then from the first again."""
        self.deck: deque[Callable[[], bool]] = deque()

    # -- a turn -----------------------------------------------------------------------------

    def birth(self) -> list[Step]:
        """The first steps of the side that comes first."""
        copies = self.choose.choice([1, 2]), self.choose.choice([0, 1])
        self.steps = []
        self.count(f"@1 with {copies[1]} metadata areas")
        self.lvm(f"{PVCREATE} --pvmetadatacopies {copies[0]} @0")
        self.lvm(f"{PVCREATE} --pvmetadatacopies {copies[1]} @1")
        self.lvm(f"{PVCREATE} @2 @3")
        self.lvm(f"vgcreate -s 256k {self.group} @0 @1 @2")
        return self.steps

    def turn(self, episodes: int, *, last: bool = False) -> list[Step]:
        """The steps of the next turn. The last one is handed over as it is."""
        self.steps = []
        kind = "plain"
        if not self.begin():
            self.need_volumes()
            for _ in range(episodes):
                self.episode()
            if not last:
                kind = self.hand_overs[0]
                self.hand_overs.rotate(-1)
        self.look()
        self.hand_over(kind)
        self.turns += 1
        return self.steps

    def begin(self) -> bool:
        """Take the groups over; True when a disk is away."""
        if self.turns:
            self.steps += [Away(2) if self.away else Back(), Cold(f"{self.turns}", self.groups())]
        if self.exported:
            self.lvm(f"vgimport {self.group}")
            self.exported = False
        if self.back == "restored":
            self.lvm(f"vgextend --restoremissing {self.group} @2")
        elif self.back == "removed":
            self.lvm(f"vgck --updatemetadata {self.group}")
            self.lvm(f"vgextend {self.group} @2")
        self.back = ""
        if self.away:
            self.live_with_less()
        else:
            self.steps += [Run(f"vgck {group}", silent=True) for group in self.groups()]
            for group in self.groups():
                self.lvm(f"vgchange -ay {group}")
        if self.half is not None:
            # What is read and written while the merge goes on where the other side died.
            self.look([self.half])
            self.write_somewhere(self.half)
            self.steps.append(Merged((self.half.group,)))
            self.half = None
        self.look()
        if self.alike:
            self.steps.append(Warm(f"{self.turns}", self.groups()))
        return bool(self.away)

    def live_with_less(self) -> None:
        """@2 is not there."""
        lost = [v for v in self.volumes if 2 in v.disks]
        if self.away == "removed":
            self.lvm(f"vgreduce --removemissing --force {self.group}")
            for volume in lost:
                self.volumes.remove(volume)
            self.lvm(f"vgchange -ay {self.group}")
        else:
            self.steps.append(Run(f"vgchange -ay {self.group}", rc=5))
            # What LVM allows with a disk missing; it then notes in the metadata that it is.
            self.lvm(f"vgchange --addtag {self.new_name('t')} {self.group}")
            if not self.third:
                self.third_disk()
            for volume in self.volumes:
                self.lvm(f"lvchange --addtag {self.new_name('t')} {volume.path}")
            self.remove(next(v for v in self.plain() if v not in lost and not self.snaps(v)))
        for volume in self.valid():
            if volume not in lost:
                self.write_somewhere(volume)

    def look(self, volumes: Iterable[Volume] | None = None) -> None:
        """All that can be read holds what it must."""
        seen = [v for v in self.volumes if not (self.away and 2 in v.disks)]
        sums = {v.path: v.digest() for v in (seen if volumes is None else volumes)}
        self.steps.append(Read(sums))

    def hand_over(self, kind: str) -> None:
        self.count(f"handed over: {kind}")
        self.alike = kind in ("plain", "exported") and not self.away
        if kind == "half a merge":
            self.cut()
            return
        if kind in ("restored", "removed"):
            self.rejoin()
            self.need_volumes()
            if all(self.snaps(v) for v in self.plain() if 2 not in v.disks):
                self.make_volume((0, 1))
        if self.alike:
            self.steps.append(Warm(f"{self.turns + 1}", self.groups()))
        for group in self.groups():
            self.lvm(f"vgchange -an {group}")
        if kind == "exported":
            self.lvm(f"vgexport {self.group}")
            self.exported = True
        self.back, self.away = self.away, kind if kind in ("restored", "removed") else ""
        self.steps.append(Away(2) if self.away else Back())
        self.steps += [Cold(f"{self.turns + 1}", self.groups()), Off()]

    # -- small things -----------------------------------------------------------------------

    def groups(self) -> tuple[str, ...]:
        return (self.group, self.split) if self.split else (self.group,)

    def new_name(self, letter: str) -> str:
        self.numbers += 1
        return f"{letter}{self.numbers}"

    def lvm(self, command: str) -> None:
        self.steps.append(Run(command))

    def count(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    def snaps(self, origin: Volume) -> list[Volume]:
        return [v for v in self.volumes if v.origin is origin]

    def plain(self) -> list[Volume]:
        return [v for v in self.volumes if v.origin is None]

    def valid(self) -> list[Volume]:
        return [v for v in self.volumes if v.data is not None]

    def pick(self, volumes: Iterable[Volume]) -> Volume | None:
        found = list(volumes)
        return self.choose.choice(found) if found else None

    def blocks(self, low: int, high: int) -> int:
        """Of so many extents."""
        return self.choose.randrange(low, high + 1) * EXTENT

    def write(self, volume: Volume, at: int, blocks: int, every: int = 0, times: int = 1) -> None:
        step = Write(volume.path, at, blocks, self.choose.randrange(1024), every, times)
        self.steps.append(step)
        for where, content in step.pieces():
            for snap in self.snaps(volume):
                snap.take(snap.chunks(where, blocks))
            if volume.origin is not None:
                volume.take(volume.chunks(where, blocks))
            assert volume.data is not None
            volume.data[where * BLOCK : where * BLOCK + len(content)] = content

    def write_somewhere(self, volume: Volume) -> None:
        """Unless a snapshot has no room for it."""
        blocks = self.choose.randrange(1, 20)
        at = self.choose.randrange(volume.blocks - blocks + 1)
        concerned = [volume] if volume.origin is not None else self.snaps(volume)
        if all(snap.fits(snap.chunks(at, blocks)) for snap in concerned):
            self.write(volume, at, blocks)

    def make_volume(self, disks: tuple[int, ...], extents: int = 0, stripes: int = 1) -> Volume:
        blocks = extents * EXTENT if extents else self.blocks(4, 12)
        kind = ""
        if stripes > 1:
            blocks += blocks % (stripes * EXTENT)
            kind = f"-i {stripes} -I {self.choose.choice([4, 16, 64])}k "
        name = self.new_name("v")
        group = self.split if self.split and 2 in disks else self.group
        where = " ".join(f"@{disk}" for disk in disks)
        volume = Volume(name, group, blocks, disks, stripes, bytearray(blocks * BLOCK))
        self.lvm(f"lvcreate -y -Wn {kind}-L {blocks * 4}k -n {name} {group} {where}")
        self.volumes.append(volume)
        self.write(volume, 0, blocks)
        return volume

    def make_snapshot(self, origin: Volume, chunk: int, extents: int) -> Volume:
        name = self.new_name("s")
        self.lvm(
            f"lvcreate -s -c {chunk * 4}k -L {extents * EXTENT * 4}k -n {name} {origin.path} @0 @1"
        )
        assert origin.data is not None
        snap = Volume(name, origin.group, origin.blocks, data=bytearray(origin.data))
        snap.origin, snap.chunk, snap.cow = origin, chunk, extents * EXTENT
        self.volumes.append(snap)
        return snap

    def remove(self, volume: Volume) -> None:
        self.lvm(f"lvremove -y {volume.path}")
        self.volumes.remove(volume)

    def need_volumes(self) -> None:
        """One on @2, one beside it."""
        if not any(2 in v.disks for v in self.volumes):
            self.make_volume((2,))
        if not any(2 not in v.disks for v in self.plain()):
            self.make_volume((0, 1))

    # -- episodes ---------------------------------------------------------------------------

    def episode(self) -> None:
        """One that is possible now; each kind comes before one comes again."""
        kinds = (
            self.linear, self.striped, self.snapshot, self.snapshot, self.writes, self.scatter,
            self.fill_and_extend, self.overflow, self.remove_snapshot, self.remove_plain,
            self.extend, self.reduce, self.extend_snapshot, self.rename, self.rename_group,
            self.tag, self.merge, self.third_disk, self.split_or_join,
        )  # fmt: skip
        while True:
            if not self.deck:
                self.deck += self.choose.sample(kinds, len(kinds))
            kind = self.deck.popleft()
            if kind():
                self.count(kind.__name__.replace("_", " "))
                return

    def linear(self) -> bool:
        if len(self.plain()) > 4:
            return False
        self.make_volume(self.choose.choice([(0,), (1,), (0, 1)]))
        return True

    def striped(self) -> bool:
        if len(self.plain()) > 4:
            return False
        self.make_volume((0, 1), stripes=2)
        return True

    def snapshot(self) -> bool:
        origin = self.pick(v for v in self.plain() if 2 not in v.disks)
        if origin is None or len(self.volumes) - len(self.plain()) > 3:
            return False
        chunk = self.choose.choice([1, 2, 4, 16])
        extents = self.choose.randrange(2, origin.blocks // EXTENT)
        snap = self.make_snapshot(origin, chunk, extents)
        self.write_somewhere(snap)
        self.write_somewhere(origin)
        return True

    def writes(self) -> bool:
        for _ in range(4):
            self.write_somewhere(self.choose.choice(self.valid()))
        return True

    def scatter(self) -> bool:
        """Many small pieces, on a snapshot or beneath all of an origin."""
        volume = self.choose.choice(self.valid())
        every = self.choose.randrange(3, 9)
        times = (volume.blocks - 2) // every
        concerned = [volume] if volume.origin is not None else self.snaps(volume)
        pieces = [(n * every, 2) for n in range(times)]
        for snap in concerned:
            if not snap.fits(set().union(*(snap.chunks(*piece) for piece in pieces))):
                return False
        self.write(volume, 0, 2, every, times)
        return True

    def fill_and_extend(self) -> bool:
        """To the last chunk, or all but one; then more room, and some of it used."""
        snap = self.pick(
            v
            for v in self.valid()
            if v.origin is not None
            and v.cow + 2 * EXTENT < v.origin.blocks
            and v.room() < v.blocks // v.chunk
        )
        if snap is None:
            return False
        left = snap.room() - len(snap.taken) - self.choose.choice([0, 1])
        runs: list[list[int]] = []
        for chunk in sorted(set(range(snap.blocks // snap.chunk)) - snap.taken)[: max(left, 0)]:
            if runs and runs[-1][-1] == chunk - 1:
                runs[-1].append(chunk)
            else:
                runs.append([chunk])
        if len(runs) > 20:
            return False
        for run in runs:
            self.write(snap, run[0] * snap.chunk, len(run) * snap.chunk)
        self.look([snap])
        self.extend_by(snap, 1)
        self.write_somewhere(snap)
        return True

    def overflow(self) -> bool:
        """Of a snapshot with little room, by writes to its origin."""
        origin = self.pick(v for v in self.plain() if 2 not in v.disks and v.blocks >= 4 * EXTENT)
        if origin is None:
            return False
        snap = self.make_snapshot(origin, self.choose.choice([1, 4, 16]), 1)
        self.write_somewhere(snap)
        self.write(origin, 0, snap.cow)
        assert snap.data is None
        return True

    def remove_snapshot(self) -> bool:
        snap = self.pick(v for v in self.volumes if v.origin is not None)
        if snap is None:
            return False
        for volume in [snap, *(v for v in self.volumes if v.data is None and v is not snap)]:
            self.remove(volume)
        return True

    def remove_plain(self) -> bool:
        volume = self.pick(v for v in self.plain() if 2 not in v.disks and not self.snaps(v))
        if volume is None or len(self.plain()) < 4:
            return False
        self.remove(volume)
        return True

    def extend(self) -> bool:
        volume = self.pick(v for v in self.plain() if not self.snaps(v) and v.blocks < 16 * EXTENT)
        if volume is None:
            return False
        more = self.choose.randrange(1, 3) * EXTENT * volume.stripes
        where = " ".join(f"@{disk}" for disk in volume.disks)
        self.lvm(f"lvextend -L +{more * 4}k {volume.path} {where}")
        assert volume.data is not None
        volume.data += bytes(more * BLOCK)
        volume.blocks += more
        self.write(volume, volume.blocks - more, more)
        return True

    def reduce(self) -> bool:
        volume = self.pick(v for v in self.plain() if not self.snaps(v) and v.blocks > 6 * EXTENT)
        if volume is None:
            return False
        less = EXTENT * volume.stripes
        self.lvm(f"lvreduce -f -L -{less * 4}k {volume.path}")
        assert volume.data is not None
        volume.blocks -= less
        del volume.data[volume.blocks * BLOCK :]
        return True

    def extend_by(self, snap: Volume, extents: int) -> None:
        self.lvm(f"lvextend -L +{extents * EXTENT * 4}k {snap.path} @0 @1")
        snap.cow += extents * EXTENT

    def extend_snapshot(self) -> bool:
        snap = self.pick(
            v for v in self.valid() if v.origin is not None and v.cow + 2 * EXTENT < v.origin.blocks
        )
        if snap is None:
            return False
        self.extend_by(snap, self.choose.randrange(1, 3))
        return True

    def rename(self) -> bool:
        volume = self.choose.choice(self.volumes)
        new = self.new_name("r")
        self.lvm(f"lvrename {volume.group} {volume.name} {new}")
        volume.name = new
        return True

    def rename_group(self) -> bool:
        new = self.new_name(f"{self.name}r")
        self.lvm(f"vgrename {self.group} {new}")
        for volume in self.volumes:
            if volume.group == self.group:
                volume.group = new
        self.group = new
        return True

    def tag(self) -> bool:
        volume, tag = self.choose.choice(self.volumes), self.new_name("t")
        self.lvm(f"lvchange --addtag {tag} --addtag {tag}b {volume.path}")
        self.lvm(f"vgchange --addtag {tag} {self.group}")
        self.lvm(f"lvchange --deltag {tag}b {volume.path}")
        if self.choose.random() < 0.5:
            self.lvm(f"vgchange --deltag {tag} {self.group}")
        self.lvm(f"pvchange --addtag {tag} @0")
        return True

    def merge(self) -> bool:
        snap = self.pick(v for v in self.valid() if v.origin is not None)
        if snap is None:
            return False
        self.lvm(f"lvconvert -i 1 --merge {snap.path}")
        self.merge_done(snap)
        self.steps.append(Merged((snap.group,)))
        return True

    def merge_done(self, snap: Volume) -> None:
        """The origin's other snapshots take what is merged as they take a write."""
        assert snap.origin is not None
        origin = snap.origin
        for other in self.snaps(origin):
            if other is not snap:
                for chunk in snap.taken:
                    other.take(other.chunks(chunk * snap.chunk, snap.chunk))
        origin.data = snap.data
        self.volumes.remove(snap)

    def third_disk(self) -> bool:
        if self.third:
            self.lvm(f"vgreduce {self.group} @3")
        else:
            self.lvm(f"vgextend {self.group} @3")
        self.third = not self.third
        return True

    def split_or_join(self) -> bool:
        if self.split:
            self.rejoin()
            return True
        there = [v for v in self.volumes if 2 in v.disks]
        for volume in there:
            self.lvm(f"lvchange -an {volume.path}")
        self.split = self.new_name(f"{self.name}s")
        self.lvm(f"vgsplit {self.group} {self.split} @2")
        self.lvm(f"vgchange -ay {self.split}")
        for volume in there:
            volume.group = self.split
        return True

    def rejoin(self) -> None:
        if not self.split:
            return
        self.lvm(f"vgchange -an {self.split}")
        self.lvm(f"vgmerge {self.group} {self.split}")
        self.lvm(f"vgchange -ay {self.group}")
        for volume in self.volumes:
            volume.group = self.group
        self.split = None

    def cut(self) -> None:
        """Begin a merge of many pieces beside another snapshot, and die in the midst of it."""
        origin = self.make_volume((0, 1), extents=16)
        snap = self.make_snapshot(origin, 1, 15)
        self.write(origin, 0, 6, 7, 146)
        if self.choose.random() < 0.5:
            self.make_snapshot(origin, 4, self.choose.choice([3, 17]))
        # So that a merge that did nothing would be seen.
        self.write(snap, 3, 1)
        self.steps.append(Cut(snap.group, snap.name, len(snap.taken)))
        self.merge_done(snap)
        self.half = origin
