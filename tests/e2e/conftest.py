"""Fixtures of the tests that run the real commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.host import UlvmHost


@pytest.fixture
def host(short_tmp: Path) -> Iterator[UlvmHost]:
    """A host of its own, stopped and cleared after the test."""
    host = UlvmHost(short_tmp)
    yield host
    host.close()
