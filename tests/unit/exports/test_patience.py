"""When a thread looks for the next request, and when it sleeps at once."""

from __future__ import annotations

import os
import threading

import pytest

from ulvm.exports import patience
from ulvm.exports.patience import patient

BUFFER = memoryview(bytearray(1))


class Client:
    """`answers`: what each look finds; then nothing."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.sleeps = 0
        self.looks = 0
        self.wait = patient(self.look, self.sleep)

    def look(self, buffer: memoryview) -> int:
        self.looks += 1
        if not self.answers:
            raise BlockingIOError
        found = self.answers.pop(0)
        if not found:
            raise BlockingIOError
        return found

    def sleep(self, buffer: memoryview) -> int:
        self.sleeps += 1
        return 7


@pytest.fixture(autouse=True)
def processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    # The clock moves at each look, so all is as it would be at any speed.
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(patience, "perf_counter", lambda: next(ticks) * 10e-6)


def test_what_comes_soon_is_taken_without_a_sleep() -> None:
    client = Client(0, 0, 5)
    assert client.wait(BUFFER) == 5
    assert (client.looks, client.sleeps) == (3, 0)


def test_a_client_that_thinks_is_looked_for_less_and_less() -> None:
    client = Client()
    looked = []
    for _ in range(200):
        before = client.looks
        assert client.wait(BUFFER) == 7
        looked.append(client.looks > before)
    turns = [n for n, did in enumerate(looked) if did]
    assert turns == [0, 2, 6, 14, 30, 62, 126, 190]
    assert client.sleeps == 200


def test_one_thread_looks_at_a_time() -> None:
    entered, goes_on = threading.Event(), threading.Event()

    def hold(buffer: memoryview) -> int:
        entered.set()
        assert goes_on.wait(10)
        return 1

    first = threading.Thread(target=lambda: patient(hold, hold)(BUFFER))
    first.start()
    assert entered.wait(10)
    client = Client(5)
    assert client.wait(BUFFER) == 7
    assert client.looks == 0
    goes_on.set()
    first.join()
    assert client.wait(BUFFER) == 5


def test_with_one_processor_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    client = Client(5)
    assert client.wait(BUFFER) == 7
    assert client.looks == 0
