"""Random lives of origins and snapshots, and what a power cut at any moment of them leaves.

See `tests.crash.engine`. Every failure names the seed, the life and the moment.
"""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from tests import effort
from tests.crash.engine import SECTORS, Machine, Unsafe

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

LIVES = effort.amount(8, 340)
IMAGES = effort.amount(20, 40)
"""Of each life, at each level of durability."""


def check_life(machine: Machine, name: str, images: int) -> int:
    """Cut the power of a life that is over at so many moments; how many images there were."""
    choose = effort.rng(name, "cuts")
    moments = machine.moments()
    cursor = machine.cursor()
    chosen = sorted(choose.choices(moments, k=images))
    for moment in chosen:
        try:
            machine.check_moment(cursor, moment, choose)
        except Unsafe as error:
            at = moments.index(moment)
            raise Unsafe(
                f"ULVM_SEED={effort.SEED}, {name}, moment {at} of {len(moments)}: {error}"
            ) from error
        effort.tally("power-cut images of dm devices")
    return len(chosen)


@pytest.mark.parametrize("durability", ["host", "process"])
def test_lives(tmp_path: Path, durability: str) -> None:
    """First writes of all sizes, several snapshots, their writes, overflow, growth, merge."""
    for number in range(LIVES):
        name = f"life {number} {durability}"
        machine = Machine(tmp_path / str(number), effort.rng(name), durability)
        machine.live()
        with machine.watched():
            machine.look_at_all()
        machine.close()
        check_life(machine, name, IMAGES)


@pytest.mark.parametrize("kind", ["fill", "spread", "merge_under_load"])
def test_special_lives(tmp_path: Path, kind: str) -> None:
    for number in range(effort.amount(3, 60)):
        name = f"{kind} {number}"
        machine = Machine(tmp_path / str(number), effort.rng(name))
        getattr(machine, kind)()
        with machine.watched():
            machine.look_at_all()
        machine.close()
        assert kind != "fill" or machine.dead == {"s1"}
        check_life(machine, name, IMAGES)


def test_many_writers_share_commits(tmp_path: Path) -> None:
    """Threads write to parts of the origin of their own, and flush; commits are shared."""
    for number in range(effort.amount(3, 60)):
        name = f"writers {number}"
        machine = Machine(tmp_path / str(number), effort.rng(name))
        for chunk in (1, 4, 16):
            machine.snapshot("P", chunk, 1400)

        mine = SECTORS // 4

        def work(
            part: int, choose: random.Random, machine: Machine = machine, mine: int = mine
        ) -> None:
            for _ in range(12):
                if choose.random() < 0.2:
                    machine.flush("origin")
                else:
                    count = choose.randrange(1, 30)
                    sector = part * mine + choose.randrange(mine - count + 1)
                    machine.write("origin", sector, count, fua=choose.random() < 0.1)

        threads = [
            threading.Thread(target=work, args=(part, effort.rng(name, part)), daemon=True)
            for part in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a writer hangs"
        with machine.watched():
            machine.look_at_all()
        machine.close()
        check_life(machine, name, IMAGES)
