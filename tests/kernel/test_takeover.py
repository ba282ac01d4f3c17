"""Volume groups that change hands in the middle of their life, between ulvm and LVM2 on a kernel.

Each life is a group on two images, one of them with two metadata areas. Turn by turn one side goes
on where the other stopped: volumes made, snapshots partly filled, extended, renamed, merged and
removed, tags set and taken away so that there are many commits, and the daemon killed when a merge
was begun. What one side left, volumes and their bytes, the other must find.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import effort, needs
from tests.e2e.host import UlvmHost
from tests.kernel import vm

pytestmark = [needs.qemu, pytest.mark.qemu, pytest.mark.timeout(effort.amount(600, 0))]

BLOCK = 4096
LIVES = effort.amount(2, 6)
TURNS = effort.amount(4, 12)
LIST = "lvs --noheadings -o lv_name,lv_size,origin --units k --separator : {vg}"


class Life:
    """The steps of one group; names of its volumes as both sides know them by now."""

    def __init__(self, host: UlvmHost, number: int) -> None:
        self.vg = f"life{number}"
        self.choose: random.Random = effort.rng("takeover", number)
        self.images = [host.image(f"{self.vg}-{n}.img", "96M") for n in "ab"]
        self.plain: dict[str, int] = {}
        self.snaps: dict[str, str] = {}
        self.names = 0

    def steps(self) -> list[str]:
        """A turn: LVM's command lines, and `write VOLUME block blocks from`."""
        found = ["tags"]
        for _ in range(8):
            found += self.step()
        return found

    def name(self, letter: str) -> str:
        self.names += 1
        return f"{letter}{self.names}"

    def step(self) -> list[str]:
        choose, vg = self.choose, self.vg
        what = choose.random()
        if len(self.plain) < 2:
            name = self.name("v")
            self.plain[name] = 8
            return [f"lvcreate -y -Wn -L 8m -n {name} {vg}", f"write {name} 0 512 0"]
        if what < 0.45:
            name = choose.choice([*self.plain, *self.snaps])
            at, count = choose.randrange(1500), choose.randrange(1, 30)
            return [f"write {name} {at} {count} {choose.randrange(200)}"]
        if what < 0.65 and len(self.snaps) < 3:
            origin, name = choose.choice(list(self.plain)), self.name("s")
            self.snaps[name] = origin
            chunk = choose.choice([4, 16, 64])
            return [f"lvcreate -s -L 8m -c {chunk}k -n {name} {vg}/{origin}"]
        if what < 0.75 and self.snaps:
            return [f"lvextend -L +4m {vg}/{choose.choice(list(self.snaps))}"]
        if what < 0.85:
            group = self.snaps if self.snaps and choose.random() < 0.5 else self.plain
            old, new = choose.choice(list(group)), self.name("r")
            group[new] = group.pop(old)  # type: ignore[assignment,arg-type,index]
            self.snaps = {s: new if o == old else o for s, o in self.snaps.items()}
            return [f"lvrename {vg} {old} {new}"]
        if what < 0.93 and self.snaps:
            name = choose.choice(list(self.snaps))
            del self.snaps[name]
            return [f"lvremove -y {vg}/{name}"]
        if self.snaps:
            name = choose.choice(list(self.snaps))
            del self.snaps[name]
            return [f"lvconvert -i 1 --merge {vg}/{name}"]
        return [f"vgchange --addtag t{self.names} {vg}"]

    def volumes(self) -> list[str]:
        return sorted([*self.plain, *self.snaps])

    def half_a_merge(self) -> str | None:
        """A snapshot whose merge is begun and not seen to its end."""
        if not self.snaps:
            return None
        name = self.choose.choice(list(self.snaps))
        del self.snaps[name]
        return name


DATA = random.Random(7).randbytes(1 << 21)
"""What is written, on both sides, from a block of it on."""


@pytest.fixture
def host(short_base: Path) -> Iterator[UlvmHost]:
    base = Path(tempfile.mkdtemp(dir=short_base))
    host = UlvmHost(base)
    try:
        yield host
    finally:
        host.close()
        shutil.rmtree(base)


Seen = tuple[list[str], dict[str, str]]
"""Lines of `lvs`, and sha256 of each volume."""


def plain_lines(text: str) -> list[str]:
    return sorted(line.strip() for line in text.splitlines() if ":" in line)


def ours(host: UlvmHost, life: Life, steps: list[str]) -> tuple[Seen, Seen]:
    """A turn on ulvm: (what was found, what is left)."""
    host.run(f"vgchange -ay {life.vg}")
    found = look(host, life, None)
    for step in steps:
        words = step.split()
        if step == "tags":
            for n in range(13):
                host.run(f"vgchange --addtag x{n} {life.vg}")
                host.run(f"vgchange --deltag x{n} {life.vg}")
        elif words[0] == "write":
            at, count, source = (int(w) for w in words[2:])
            with host.path(f"{life.vg}/{words[1]}").open("r+b") as file:
                file.seek(at * BLOCK)
                file.write(DATA[source * BLOCK : (source + count) * BLOCK])
        else:
            host.run(step)
    left = look(host, life, life.volumes())
    return found, left


def look(host: UlvmHost, life: Life, names: list[str] | None) -> Seen:
    listed = plain_lines(host.run(LIST.format(vg=life.vg)).stdout)
    chosen = names if names is not None else [line.split(":")[0] for line in listed]
    sums = {
        name: hashlib.sha256(host.path(f"{life.vg}/{name}").read_bytes()).hexdigest()
        for name in chosen
    }
    return listed, sums


class Machine:
    """The commands of one turn of all lives in one boot."""

    def __init__(self) -> None:
        self.script: dict[str, str] = {}
        self.drives: list[Path] = []

    def add(self, life: Life, volumes: list[str], steps: list[str], after: list[str]) -> None:
        letters = [chr(ord("a") + len(self.drives) + n) for n in range(2)]
        self.drives += life.images
        config = f"""--config 'devices/filter=["a|^/dev/vd[{letters[0]}{letters[1]}]$|","r|.*|"]'"""

        def lvm(line: str) -> str:
            name, _, rest = line.partition(" ")
            return f"lvm {name} {config} {rest}"

        merging = lvm(f"lvs --noheadings -o lv_attr {life.vg}") + " | grep -q '^ *O'"
        self._say(life, "on", lvm(f"vgck {life.vg}") + " && " + lvm(f"vgchange -ay {life.vg}"))
        self._say(life, "merged", f"for n in $(seq 90); do {merging} || break; sleep 1; done")
        self._look(life, "found", lvm, volumes)
        for number, step in enumerate(steps):
            words = step.split()
            if step == "tags":
                change = f"vgchange --addtag x {life.vg}", f"vgchange --deltag x {life.vg}"
                loop = " && ".join(map(lvm, change))
                command = f"for n in $(seq 13); do {loop} || exit 1; done"
            elif words[0] == "write":
                at, count, source = words[2:]
                command = (
                    f"dd if=/files/data of=/dev/{life.vg}/{words[1]} bs={BLOCK} seek={at} "
                    f"count={count} skip={source} conv=notrunc,fsync"
                )
            else:
                command = lvm(step)
            self._say(life, f"step {number} {step}", command)
        self._look(life, "left", lvm, after)
        self._say(life, "off", lvm(f"vgchange -an {life.vg}"))

    def _say(self, life: Life, key: str, command: str) -> None:
        self.script[f"{life.vg} {key}"] = command

    def _look(self, life: Life, key: str, lvm: object, volumes: list[str]) -> None:
        self._say(life, f"{key} lvs", lvm(LIST.format(vg=life.vg)))  # type: ignore[operator]
        for name in volumes:
            self._say(life, f"{key} sum {name}", f"sha256sum </dev/{life.vg}/{name}")

    def run(self) -> None:
        self.outcomes = vm.run(self.script, self.drives, timeout=1200, files={"data": DATA})
        for key, outcome in self.outcomes.items():
            assert outcome.rc == 0, (key, outcome)

    def seen(self, life: Life, key: str, volumes: list[str]) -> Seen:
        listed = plain_lines(self.outcomes[f"{life.vg} {key} lvs"].stdout)
        return listed, {
            name: self.outcomes[f"{life.vg} {key} sum {name}"].stdout.split()[0] for name in volumes
        }


def test_groups_change_hands(host: UlvmHost) -> None:
    lives = [Life(host, number) for number in range(LIVES)]
    left: dict[str, Seen] = {}
    for life in lives:
        first, second = life.images
        host.run(f"pvcreate --pvmetadatacopies 2 --metadatasize 64k {first}")
        host.run(f"pvcreate --metadatasize 64k {second}")
        host.run(f"vgcreate -s 1m {life.vg} {first} {second}")
    for turn in range(TURNS):
        if turn % 2 == 0:
            for life in lives:
                steps = life.steps()
                found, after = ours(host, life, steps)
                if life.vg in left:
                    same(left[life.vg], found, f"turn {turn} of {life.vg}, found by ulvm")
                left[life.vg] = after
                half = life.half_a_merge()
                if half is not None:
                    cut_off(host, life, half, left)
                else:
                    host.run(f"vgchange -an {life.vg}")
            host.run("daemon stop --force")
        else:
            machine = Machine()
            before = {life.vg: life.volumes() for life in lives}
            for life in lives:
                steps = life.steps()
                machine.add(life, before[life.vg], steps, life.volumes())
            machine.run()
            for life in lives:
                found = machine.seen(life, "found", before[life.vg])
                same(left[life.vg], found, f"turn {turn} of {life.vg}, found by LVM2")
                left[life.vg] = machine.seen(life, "left", life.volumes())
        effort.tally("turns of volume groups", len(lives))
    for life in lives:
        host.run(f"vgchange -ay {life.vg}")
        same(left[life.vg], look(host, life, life.volumes()), f"the end of {life.vg}")
        seqno = int(host.run(f"vgs --noheadings -o vg_seqno {life.vg}").stdout)
        assert seqno > 26 * TURNS, "fewer commits than were made"
        effort.tally("commits of volume groups that changed hands", seqno)


def cut_off(host: UlvmHost, life: Life, snap: str, left: dict[str, Seen]) -> None:
    """Begin a merge and kill the daemon: the other side goes on with it. The origin is then what
    the snapshot was."""
    listed, sums = left[life.vg]
    (line,) = [entry for entry in listed if entry.startswith(f"{snap}:")]
    origin = line.split(":")[2]
    host.run(f"lvconvert --background --merge {life.vg}/{snap}")
    os.kill(host.daemon_pid(), signal.SIGKILL)
    sums[origin] = sums.pop(snap)
    left[life.vg] = [entry for entry in listed if not entry.startswith(f"{snap}:")], sums


def same(expected: Seen, found: Seen, what: str) -> None:
    assert found[0] == expected[0], f"ULVM_SEED={effort.SEED}, {what}"
    differing = [n for n in expected[1] if found[1].get(n) != expected[1][n]]
    assert not differing, f"ULVM_SEED={effort.SEED}, {what}: {differing} hold other bytes"
