"""Signals: they interrupt, they wait where they must, they leave no trace."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import pytest

from ulvm.backup.interrupts import Interrupted, deferred, interruptible
from ulvm.backup.pipeline import SerialWorker


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_exception(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught, interruptible():
        signal.raise_signal(signum)
    assert caught.value.exit_code == 128 + signum
    assert signal.getsignal(signum) is before


def test_it_is_not_an_exception_that_code_swallows() -> None:
    assert not issubclass(Interrupted, Exception)


def interrupt_deferred(done: list[str], *, fail: bool) -> None:
    with interruptible():
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done.append("block")
            if fail:
                raise KeyError("own")
        done.append("never")


def test_deferred_finishes_the_block_first() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted) as caught:
        interrupt_deferred(done, fail=False)
    assert done == ["block"]
    assert caught.value.signum == signal.SIGTERM


def test_an_error_in_a_deferred_block_comes_first() -> None:
    with pytest.raises(KeyError, match="own"):
        interrupt_deferred([], fail=True)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
            with deferred():
                signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@interruptible()
def undo(done: list[str]) -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.raise_signal(signal.SIGINT)
        with deferred():
            signal.raise_signal(signal.SIGINT)
        done.append("undone")


def test_a_second_signal_does_not_disturb_what_is_being_undone() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted) as caught:
        undo(done)
    assert caught.value.signum == signal.SIGTERM
    assert done == ["undone"]


@interruptible()
def lose_one(done: list[str]) -> None:
    with suppress(Interrupted):
        signal.raise_signal(signal.SIGINT)
    done.append("lost")
    signal.raise_signal(signal.SIGTERM)
    done.append("never")


def test_an_interrupt_that_got_lost_does_not_make_deaf() -> None:
    """As what is raised in a finalizer is printed and dropped."""
    done: list[str] = []
    with pytest.raises(Interrupted) as caught:
        lose_one(done)
    assert caught.value.signum == signal.SIGTERM
    assert done == ["lost"]


@interruptible()
def release_twice(*, interrupted: bool) -> None:
    lock = threading.Lock()
    with lock:
        try:
            if interrupted:
                signal.raise_signal(signal.SIGINT)
        finally:
            lock.release()


def test_an_interrupt_that_broke_a_lock_comes_out() -> None:
    with pytest.raises(Interrupted):
        release_twice(interrupted=True)
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        release_twice(interrupted=False)


@interruptible()
def defer_twice(done: list[str]) -> None:
    with deferred():
        with deferred():
            signal.raise_signal(signal.SIGTERM)
        done.append("outer")
    done.append("never")


def test_blocks_in_blocks_end_with_the_outermost() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted):
        defer_twice(done)
    assert done == ["outer"]


def test_other_threads_are_left_alone() -> None:
    errors = []

    def use() -> None:
        try:
            with interruptible(), deferred():
                pass
        except ValueError as error:  # what signal.signal raises outside the main thread
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert errors == []


def test_a_worker_is_waited_for_though_a_signal_comes() -> None:
    """What it uses is closed next."""
    begun, go = threading.Event(), threading.Event()
    handled: list[int] = []

    def handle(item: int) -> None:
        begun.set()
        go.wait(10)
        handled.append(item)

    def interrupt() -> None:
        begun.wait(10)
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.1)
        go.set()

    def finish() -> None:
        worker = SerialWorker(handle, depth=1, name="worker")
        threading.Thread(target=interrupt).start()
        try:
            worker.put(1)
            worker.finish()
        finally:
            worker.close()
            assert handled == [1]

    with pytest.raises(Interrupted), interruptible():
        finish()
