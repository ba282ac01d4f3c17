"""Which device each open file of the tree is, whatever has its name by now.

libfuse knows files by their names: who opens a name gets the node that the name has, as long as
anybody has it open, and with it the kernel's one inode, which has one size. When a volume was
renamed and another one got its name, both would be one inode, and reads of the longer one, of a
mount that had been there all the time say, end where the shorter one does. So a name is given a new
node when it stands for another device than a file that is open by it: before the kernel's LOOKUP
libfuse is told, in the kernel's words, that the name was removed (`Requests.as_unlink`). Where the
name changes its meaning in between, the answer is ESTALE, on which the kernel asks again.

What the old node is asked then (GETATTR) is answered by the file that is open.
"""

from __future__ import annotations

import threading

__all__ = ["OpenNodes", "Place"]

Place = tuple[int, bytes]
"""The number of a directory's node, and a name there."""


class OpenNodes:
    """Handles by their numbers, with what the device is that each one has open. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on: dict[int, dict[int, object]] = {}
        """Of each node the handles, and their devices: one device, by `add`."""
        self._at: dict[Place, dict[int, object]] = {}
        """By the place where the file was opened, as long as its node is found there."""
        self._of: dict[int, tuple[int, Place]] = {}

    def add(self, number: int, node: int, place: Place, device: object) -> bool:
        """False, and nothing happens, if the node is another device's."""
        with self._lock:
            there = self._on.setdefault(node, {})
            if any(other is not device for other in there.values()):
                return False
            there[number] = device
            self._at.setdefault(place, {})[number] = device
            self._of[number] = node, place
            return True

    def remove(self, number: int) -> None:
        with self._lock:
            if number not in self._of:
                return
            node, place = self._of.pop(number)
            del self._on[node][number]
            if not self._on[node]:
                del self._on[node]
            here = self._at.get(place, {})
            if here.pop(number, None) is not None and not here:
                del self._at[place]

    def on(self, node: int) -> int | None:
        """A handle that has it open."""
        with self._lock:
            return next(iter(self._on.get(node, ())), None)

    def at(self, place: Place) -> int | None:
        """A handle that was opened there."""
        with self._lock:
            return next(iter(self._at.get(place, ())), None)

    def any_at(self, place: Place) -> bool:
        return place in self._at

    def is_other(self, place: Place, device: object) -> bool:
        """Whether the node that is found there is another device's than this one."""
        with self._lock:
            return any(other is not device for other in self._at.get(place, {}).values())

    def renounce(self, place: Place) -> None:
        """The node is not found there any more."""
        with self._lock:
            self._at.pop(place, None)
