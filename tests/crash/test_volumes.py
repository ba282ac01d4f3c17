"""Random lives of a volume group under power cuts: metadata and data on the same disks.

Volumes are made, written to, snapshotted, extended, renamed, merged and removed, and a PV comes to
the group and goes by vgextend, vgreduce, vgsplit and vgmerge, all by the library calls of the
commands. At moments between any two writes of the disks a machine is started on what
they may hold then. It must find the group as it was before the operation that was under way, or as
it was after, whole; and in each volume what that state says: every flushed write, a snapshot its
origin of when it was made.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests import effort
from tests.crash.engine import Unsafe
from tests.unit.lvm.lab import MIB, SMALL_AREA, Kept, Lab
from ulvm.activation.activate import Activator
from ulvm.blockdev.faults import PowerCut
from ulvm.blockdev.memory import MemoryDevice
from ulvm.errors import RefusedError, TableError, UlvmError
from ulvm.lvm import lv, merge, regroup, snapshot
from ulvm.lvm import vg as lvm_vg
from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore import commit
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import scan

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

Tokens = tuple[int | None, ...]

BLOCK = 4096
EXTENT_BLOCKS = 16
STAGES = (0, 64 << 10, 1 << 20)
"""Bytes: none, one that is full at times, one that never is."""


@dataclass(frozen=True)
class Volume:
    """`blocks`: what may be found, by number, the newest last; None for what was there before."""

    extents: int
    origin: str | None = None
    blocks: dict[int, Tokens] = field(default_factory=dict)
    own: frozenset[int] = frozenset()
    """Blocks that were written to the snapshot itself."""

    def written(self, number: int, token: int) -> Volume:
        found = (*self.blocks.get(number, (None,)), token)
        return replace(self, blocks={**self.blocks, number: found}, own=self.own | {number})

    def durable(self, but: frozenset[int] = frozenset()) -> Volume:
        """Behind a flush."""
        kept = {n: t if n in but else t[-1:] for n, t in self.blocks.items()}
        return replace(self, blocks=kept)


State = dict[str, Volume]


def flushed(state: State, name: str) -> State:
    """What a snapshot has of its origin is durable when it is there."""
    return {
        n: v.durable() if n == name else v.durable(v.own) if v.origin == name else v
        for n, v in state.items()
    }


def block(token: int) -> bytes:
    return token.to_bytes(8, "little") * (BLOCK // 8)


@dataclass
class Operation:
    """What was allowed to be found between two times."""

    what: str
    begin: int
    end: int
    before: State
    after: State
    members: tuple[frozenset[str], frozenset[str]]
    """Paths of the group's PVs, before and after."""
    split: tuple[bool, bool]
    """Whether the spare disk is a group of its own, before and after."""


class Life:
    """A lab on record, and the states that it passed through."""

    def __init__(self, folder: Path, choose: random.Random, regroup: float) -> None:
        """`regroup`: how often the spare disk comes or goes, of 1."""
        self.folder = folder
        self.regroup = regroup
        self.choose = choose
        self.pvs = choose.choice([("a",), ("a", "b")])
        self.stage = choose.choice(STAGES)
        self.lab = Lab(folder, names=self.pvs, stage=self.stage)
        self.members = frozenset(self.lab.devices)
        self.pvs += ("spare",)
        (folder / "spare").touch()
        self.spare = str(folder / "spare")
        self.split = False
        """Whether the spare disk is a group of its own."""
        self.lab.devices[self.spare] = Kept(MemoryDevice(2 * MIB))
        self.state: State = {}
        self.done: Counter[str] = Counter()
        """Operations of each kind that were not refused."""
        self.operations: list[Operation] = []
        self.tokens = iter(range(1, 1 << 30))
        self.names = iter(range(1, 1 << 30))
        self.records: dict[str, PowerCut] = {p: d.record() for p, d in self.lab.devices.items()}

    def step(self) -> None:
        begin, before, members = PowerCut.now(), self.state, self.members
        split = self.split
        try:
            what, after = self._do()
            self.done[what.split()[0]] += 1
        except RefusedError as error:  # no room, or no such thing while a merge goes on
            what, after = str(error), before
        self.state = after
        now = (members, self.members)
        apart = (split, self.split)
        self.operations.append(Operation(what, begin, PowerCut.now(), before, after, now, apart))

    def _do(self) -> tuple[str, State]:
        choose, state, session = self.choose, self.state, self.lab.session
        plain = [n for n, v in state.items() if v.origin is None]
        snaps = [n for n, v in state.items() if v.origin is not None]
        if choose.random() < self.regroup:
            return self._regroup(), state
        what = choose.uniform(0.06, 1)
        if what < 0.15 or not plain:
            name, extents = f"v{next(self.names)}", choose.randrange(1, 4)
            lv.create(session, "vg", name, extents=extents)
            return f"create {name}", {**state, name: Volume(extents)}
        if what < 0.55:
            name = choose.choice([*plain, *snaps])
            volume = state[name]
            size = volume.extents if volume.origin is None else state[volume.origin].extents
            number, token = choose.randrange(size * EXTENT_BLOCKS), next(self.tokens)
            flush = choose.random() < 0.5
            self.lab.write(name, number * BLOCK, block(token), flush=flush)
            after = {**state, name: volume.written(number, token)}
            return f"write {name} {number}", flushed(after, name) if flush else after
        if what < 0.70:
            origin, name = choose.choice(plain), f"s{next(self.names)}"
            snapshot.create(
                session, "vg", origin, name, extents=choose.randrange(2, 5), chunk_size=8
            )
            found = self.lab.vg.lv(name)
            assert found is not None
            made = Volume(found.extent_count, origin, dict(state[origin].blocks))
            return f"snapshot {name}", {**state, name: made}
        if what < 0.78:
            name = choose.choice([*plain, *snaps])
            if any(v.origin == name for v in state.values()):
                return "nothing", state  # an origin grows only while it is inactive
            extents = state[name].extents + 1
            lv.extend(session, "vg", name, extents)
            return f"extend {name}", {**state, name: replace(state[name], extents=extents)}
        if what < 0.86:
            old, new = choose.choice([*plain, *snaps]), f"r{next(self.names)}"
            lv.rename(session, "vg", old, new)
            renamed = {
                new if n == old else n: replace(v, origin=new) if v.origin == old else v
                for n, v in state.items()
            }
            return f"rename {old}", renamed
        if what < 0.92 and snaps:
            name = choose.choice(snaps)
            origin = state[name].origin
            assert origin is not None
            merge.start(session, "vg", name)
            while not merge.poll(session, "vg", origin):
                pass
            merged = replace(state[origin], blocks=state[name].blocks)
            return f"merge {name}", {
                n: merged if n == origin else v for n, v in state.items() if n != name
            }
        name = choose.choice(snaps or plain)
        lv.remove(session, "vg", name)
        return f"remove {name}", {n: v for n, v in state.items() if n != name}

    def _regroup(self) -> str:
        session, spare = self.lab.session, self.spare
        if self.split:
            regroup.merge(session, "vg", "other")
            self.split, self.members = False, self.members | {spare}
            return "vgmerge"
        if spare not in self.members:
            lvm_vg.extend(session, "vg", [spare], options=SMALL_AREA)
            self.members |= {spare}
            return "vgextend"
        if self.choose.random() < 0.5:
            if not lvm_vg.reduce(session, "vg", [spare]):
                self.members -= {spare}
            return "vgreduce"
        regroup.split(session, "vg", "other", paths=[spare])
        self.split, self.members = True, self.members - {spare}
        return "vgsplit"

    # -- after the power cut ------------------------------------------------------------------

    def moments(self) -> list[int]:
        return sorted({t + 1 for record in self.records.values() for t in record.times})

    def check(self, moment: int, choose: random.Random) -> None:
        images = {
            path: record.image_at(record.events_until(moment), choose)
            for path, record in self.records.items()
        }
        members = (self.members, self.members)
        apart = (self.split, self.split)
        over = Operation("nothing", moment, moment, self.state, self.state, members, apart)
        operation = next((o for o in self.operations if moment <= o.end), over)
        states, groups = [operation.before], [operation.members[0]]
        if moment > operation.begin:
            states.append(operation.after)
            groups.append(operation.members[1])
        lab = Lab(self.folder, names=self.pvs, images=images, stage=self.stage)
        try:
            found = frozenset(pv.device for pv in lab.vg.pvs)
            if found not in groups:
                raise Unsafe(f"{operation.what}: the PVs are {sorted(found)}")
            self._look_at_other(lab, operation, moment, found)
            self._compare(lab, operation, states)
        except UlvmError as error:
            raise Unsafe(f"{operation.what}: {error}") from error
        finally:
            lab.mapper.shutdown()

    def _look_at_other(
        self, lab: Lab, operation: Operation, moment: int, members: frozenset[str]
    ) -> None:
        """The spare disk is in one of the groups, or in both while one is exported."""
        apart = {operation.split[0], operation.split[moment > operation.begin]}
        groups = {vg.name: vg for vg in scan(lab.host).vgs}
        other = groups.get("other")
        if other is None:
            if apart == {True} or (apart == {True, False} and self.spare not in members):
                raise Unsafe(f"{operation.what}: the spare disk is in no group")
            return
        if apart == {False}:
            raise Unsafe(f"{operation.what}: there is a group other")
        if {pv.device for pv in other.pvs} != {self.spare}:
            raise Unsafe(f"{operation.what}: other has {[pv.device for pv in other.pvs]}")
        exported = "EXPORTED" in other.status | groups["vg"].status
        if self.spare in members and not exported:
            raise Unsafe(f"{operation.what}: the spare disk is in both groups")

    def _compare(self, lab: Lab, operation: Operation, states: list[State]) -> None:
        vg = lab.vg
        shape = shape_of(vg)
        fitting = [s for s in states if {n: (v.extents, v.origin) for n, v in s.items()} == shape]
        if not fitting:
            raise Unsafe(f"{operation.what}: the group is {shape}")
        for volume in vg.visible_lvs():
            if not vg.is_cow(volume.name):
                lv.activate(lab.session, "vg", volume.name)
        for name in shape:
            numbers = {n for s in fitting for n in s[name].blocks}
            for number in numbers:
                found = lab.read(name, number * BLOCK, BLOCK)
                allowed = {t for s in fitting for t in s[name].blocks.get(number, (None,))}
                # Not written yet in one of the states: what it held then nobody knows.
                if None not in allowed:
                    check_block(found, [block(t) for t in allowed if t is not None], name, number)
        for segment in vg.snapshot_segments():
            if segment.merging:
                while not merge.poll(lab.session, "vg", segment.origin):
                    pass
                if lab.vg.merging_snapshot_of(segment.origin) is not None:
                    raise Unsafe("a merge was not seen through")


def shape_of(vg: VolumeGroup) -> dict[str, tuple[int, str | None]]:
    shape = {}
    for volume in vg.visible_lvs():
        tie = vg.snapshot_of(volume.name)
        shape[volume.name] = (volume.extent_count, tie.origin if tie else None)
    return shape


def check_block(found: bytes, allowed: list[bytes], name: str, number: int) -> None:
    """Each sector is that of one of the contents: a write under way may be torn."""
    for at in range(0, BLOCK, 512):
        if found[at : at + 512] not in {a[at : at + 512] for a in allowed}:
            token = int.from_bytes(found[at : at + 8], "little")
            raise Unsafe(f"{name}: block {number} holds {token}")


def check_life(
    folder: Path, name: str, images: int, done: Counter[str], *, regroup: float = 0.06
) -> int:
    """Live, and cut at so many moments; how many images there were. What was `done` is added."""
    folder.mkdir()
    life = Life(folder, effort.rng(name), regroup)
    for _ in range(25):
        life.step()
    life.lab.mapper.shutdown()
    done += life.done
    choose = effort.rng(name, "cuts")
    moments = life.moments()
    for count, moment in enumerate(choose.choices(moments, k=images), 1):
        try:
            life.check(moment, choose)
        except Unsafe as error:
            at = moments.index(moment)
            raise Unsafe(
                f"ULVM_SEED={effort.SEED}, {name}, moment {at} of {len(moments)}: {error}", count
            ) from error
    return images


KINDS = {"create", "write", "snapshot", "extend", "rename", "merge", "remove"}
REGROUPED = {"vgextend", "vgreduce", "vgsplit", "vgmerge"}


@pytest.mark.parametrize(
    ("name", "lives", "regroup", "kinds"),
    [("group", (5, 120), 0.06, KINDS), ("regrouped", (4, 60), 0.5, REGROUPED)],
)
def test_lives_of_a_volume_group(
    tmp_path: Path, name: str, lives: tuple[int, int], regroup: float, kinds: set[str]
) -> None:
    done: Counter[str] = Counter()
    for number in range(effort.amount(*lives)):
        images = check_life(
            tmp_path / str(number),
            f"{name} {number}",
            effort.amount(20, 60),
            done,
            regroup=regroup,
        )
        effort.tally("power-cut images of volume groups", images)
    assert done.keys() >= kinds, "what is always refused is not tried"


# -- without one of the barriers, it is seen ------------------------------------------------------


def images_until_seen(folder: Path, name: str, *errors: type[Exception]) -> None:
    """`errors`: of a command that shows it, without a cut."""
    images = 0
    while images < 5000:
        try:
            images += check_life(folder / str(images), f"{name} {images}", 30, Counter())
        except Unsafe as error:
            effort.tally(f"images until seen: {name}", images + int(error.args[1]))
            return
        except errors:
            effort.tally(f"images until seen: {name}", images)
            return
    pytest.fail(f"{name}: not seen in {images} images")


def _unflushed(host: Host, path: str, writes: Iterable[tuple[int, bytes]]) -> None:
    for offset, data in writes:
        host.opener(path, True).write(offset, data)


def test_metadata_that_are_not_flushed_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_write", _unflushed)
    images_until_seen(tmp_path, "metadata: no flush at all")


def test_a_commit_before_the_text_is_durable_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the flushes behind text and slot 1 would do; without both it is seen. The first stays:
    whoever reads slot 1 is to find its text."""
    real = commit.Pending._write_ahead

    def write_ahead(self: commit.Pending) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(commit, "_write", _unflushed)
            real(self)

    monkeypatch.setattr(commit.Pending, "_write_ahead", write_ahead)
    images_until_seen(tmp_path, "metadata: no flush before the commit")


def test_a_commit_before_the_tables_wait_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge whose tables are swapped before it is in the metadata."""
    real = Activator.swap

    def swap(
        self: Activator, old: VolumeGroup, new: VolumeGroup, commit: Any, **options: Any
    ) -> Any:
        report = real(self, old, new, lambda: None, **options)
        time.sleep(0.01)
        commit()
        return report

    monkeypatch.setattr(Activator, "swap", swap)
    images_until_seen(tmp_path, "volumes: tables swapped before the commit")


def test_a_cow_that_is_not_wiped_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "wipe_new", lambda *args, **options: None)
    images_until_seen(tmp_path, "snapshot: its COW is not wiped", TableError)
