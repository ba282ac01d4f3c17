"""Scans that did not look in the midst of another command's change: readers take no locks.

A scan that finds nothing odd did not, or what it saw is as good as before or after. One that does
looks again when nobody is at work any more; what is odd then is so, and told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import contextmanager

from ulvm.vgstore.host import Host
from ulvm.vgstore.locks import nobody_at_work
from ulvm.vgstore.read import Texts
from ulvm.vgstore.scan import Scan, scan

__all__ = ["SettledScans", "what_is_odd"]

_LAST_SEEN = " (last written to"
_REASON = " because device "
_PATIENCE = 10.0
"""Seconds for which what is odd is put down to a command at work. One that holds its locks for
longer may wait for this one itself: a freeze hook that lists volumes."""
_PATIENCE_LOCKED = 0.5
"""While we hold a lock ourselves: that command may be waiting for us, with as much patience."""
_PAUSE = 0.005


def what_is_odd(warning: str) -> str:
    """A warning without what a change makes another: where a missing PV was, and why one of two
    devices is preferred."""
    return warning.partition(_LAST_SEEN)[0].partition(_REASON)[0]


class SettledScans:
    """Of one command. `held`: the names of the locks that it holds; `said`: the warnings that it
    has given (`what_is_odd`), which are not odd any more; `in_use`: as for `vgstore.scan.scan`."""

    def __init__(
        self,
        host: Host,
        held: Collection[str],
        said: Container[str],
        in_use: Callable[[], Container[str]],
    ) -> None:
        self._host = host
        self._held = held
        self._said = said
        self._in_use = in_use
        self._texts = Texts()
        self._quiet = False  # whether shared locks are held

    def scan(self, extra_paths: Iterable[str]) -> Scan:
        found = self._scan(extra_paths)
        if not self._host.locking or not self._is_odd(found):
            return found
        patience = _PATIENCE_LOCKED if self._held or self._quiet else _PATIENCE
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            named = {"", *found.broken, *(vg.name for vg in (*found.vgs, *found.foreign))}
            others = [name for name in sorted(named) if name not in self._held]
            with nobody_at_work(self._host, others) as alone:
                if alone:
                    return self._scan(extra_paths)
            if not self._held and not self._waits:
                break
            time.sleep(_PAUSE)
            found = self._scan(extra_paths)
            if not self._is_odd(found):
                break
        return found

    @contextmanager
    def quiet(self, vg_names: Iterable[str]) -> Iterator[None]:
        """No other command changes these VGs meanwhile, if none that is at work takes too long."""
        others = [name for name in vg_names if name not in self._held]
        deadline = time.monotonic() + (_PATIENCE if self._waits else 0)
        while True:
            with nobody_at_work(self._host, others) as alone:
                if alone or time.monotonic() >= deadline:
                    self._quiet = True
                    try:
                        yield
                    finally:
                        self._quiet = False
                    return
            time.sleep(_PAUSE)

    @property
    def _waits(self) -> bool:
        return self._host.config.get_bool("global/wait_for_locks", True)

    def _scan(self, extra_paths: Iterable[str]) -> Scan:
        return scan(self._host, extra_paths, self._texts, self._in_use)

    def _is_odd(self, found: Scan) -> bool:
        return (
            bool(found.broken)
            or any(pv.unowned for pv in found.pvs)
            or any(what_is_odd(text) not in self._said for text in found.warnings)
        )
