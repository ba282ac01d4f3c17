from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.dm.lab import Lab


@pytest.fixture(params=[0, 1 << 16], ids=["", "staged"])
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = Lab(tmp_path, stage=request.param)
    yield lab
    lab.dm.shutdown()
