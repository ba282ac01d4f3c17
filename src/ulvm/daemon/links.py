"""Links in /dev to the volumes, which udev makes for LVM2: /dev/<vg>/<lv>, /dev/mapper/<dm name>.

A link leads to a file of the FUSE tree. `mkfs`, `mount` (by a loop device of its own), `dd` and
scripts that know a volume by that path alone work with it; what insists on a block device does not.

    <dev>/<vg>              a directory, made when it is needed, removed when it is empty
    <dev>/<vg>/<lv>         -> <run_dir>/dev/<vg>/<lv>
    <dev>/mapper/<name>     -> <run_dir>/dev/mapper/<name>

Only links into our own tree are ever removed or replaced; whatever else is there (the kernel's own
LVM may have a volume group of that name) stays, and is said once. A daemon that was killed leaves
its links, which lead nowhere; the next one takes them over or away. Failures are logged: a volume
is as good without its link.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

__all__ = ["DeviceLinks"]

log = logging.getLogger(__name__)

_MAPPER = "mapper"


class DeviceLinks:
    """In `directory`, to the FUSE tree at `tree`. Thread safe."""

    def __init__(self, directory: Path, tree: Path) -> None:
        self._directory = directory
        self._tree = tree
        self._lock = threading.Lock()
        self._made: set[str] | None = None
        """None before the first update: a killed daemon may have left some."""
        self._said: set[str] = set()

    def update(self, names: Iterable[str]) -> None:
        """Have links of exactly these names: `vg/lv` and `mapper/<dm name>`."""
        wanted = set(names)
        with self._lock:
            made = self._left_over() if self._made is None else self._made
            for name in made - wanted:
                self._remove(name)
            for name in wanted - (self._made or set()):
                self._make(name)
            self._made = wanted

    def clear(self) -> None:
        self.update(())

    def _left_over(self) -> set[str]:
        """Our links in the directory."""
        found = set()
        with contextlib.suppress(OSError):
            for entry in sorted(self._directory.iterdir()):
                if entry.is_symlink() or not entry.is_dir():
                    continue
                with contextlib.suppress(OSError):
                    for link in os.scandir(entry):
                        if link.is_symlink() and self._is_ours(link.path):
                            found.add(f"{entry.name}/{link.name}")
        return found

    def _is_ours(self, path: str | Path) -> bool:
        return os.readlink(path).startswith(f"{self._tree}/")

    def _make(self, name: str) -> None:
        link = self._directory / name
        try:
            if not link.parent.exists():
                link.parent.mkdir(parents=True)
                link.parent.chmod(0o755)  # whatever the umask
            if link.is_symlink():
                if os.readlink(link) == str(self._tree / name):
                    return
                if self._is_ours(link):
                    link.unlink()
            link.symlink_to(self._tree / name)
        except OSError as error:
            if name not in self._said:
                self._said.add(name)
                log.warning("no link %s: %s", link, error.strerror)

    def _remove(self, name: str) -> None:
        link = self._directory / name
        try:
            if not link.is_symlink() or not self._is_ours(link):
                return
            link.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("cannot remove the link %s: %s", link, error.strerror)
            return
        if link.parent.name != _MAPPER:
            with contextlib.suppress(OSError):  # others are in it
                link.parent.rmdir()
