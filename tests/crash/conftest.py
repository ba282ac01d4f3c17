from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import host

__all__ = ["host"]


@pytest.fixture
def threads_that_died() -> Iterator[list[str]]:
    """The test fails if one does."""
    died: list[str] = []
    before = threading.excepthook
    threading.excepthook = lambda args: died.append(f"{args.thread}: {args.exc_value!r}")
    yield died
    threading.excepthook = before
    assert not died
