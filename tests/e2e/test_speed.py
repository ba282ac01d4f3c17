"""The benchmark's quick form: speed that is lost is seen on the day that it is.

Ratios to peers on the same machine in the same moment, with margins so wide that a busy machine
does not pass them: of some rounds the best for ulvm counts, and another round is run as long as it
is not good enough. What fails here is slower by a multiple.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench.bed import MIB, Bed, making
from bench.contestants import NBDKIT, Ulvm
from bench.fio import Load
from bench.loads import LoadRow

from tests import needs

pytestmark = [
    needs.program("fio"),
    needs.program("nbdkit"),
    needs.program("qemu-nbd"),
    needs.program("qemu-img"),
]

_ROUNDS = 6
"""At most, of each row."""
_SECONDS = 0.25

_FLOORS = [
    (
        "read-plain",
        LoadRow("", "", Load("randread"), (Ulvm(), NBDKIT)),
        0.4,
    ),
    (
        "read-snapshot",
        LoadRow("", "", Load("randread"), (Ulvm(snapshots=1, on="snapshot"), NBDKIT)),
        0.4,
    ),
    (
        "rewrite-origin",
        LoadRow("", "", Load("randwrite"), (Ulvm(snapshots=1), NBDKIT), written=True),
        0.25,
    ),
    (
        "sequential-read",
        LoadRow("", "", Load("read", "1M", depth=4), (Ulvm(), NBDKIT)),
        0.25,
    ),
]


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    images = tmp_path_factory.mktemp("speed")
    with making(images, 32 * MIB, 1, _SECONDS, lambda _: None) as made:
        yield made


@pytest.mark.parametrize(
    ("row", "floor"), [one[1:] for one in _FLOORS], ids=[o[0] for o in _FLOORS]
)
def test_ulvm_keeps_up(bed: Bed, row: LoadRow, floor: float) -> None:
    ratios: list[float] = []
    with row.trials(bed) as trials:
        while len(ratios) < _ROUNDS and max(ratios, default=0.0) < floor:
            ours, peer = (trial().value for trial in trials.values())
            ratios.append(ours / peer)
    assert max(ratios) >= floor, f"ulvm over its peer: {ratios}"
