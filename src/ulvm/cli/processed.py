"""What a command goes through, for its log (log/report_command_log): each object with its state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ulvm.cli.console import Console
from ulvm.errors import UlvmError
from ulvm.lvm.session import Session
from ulvm.metadata.model import VolumeGroup

if TYPE_CHECKING:
    from ulvm.report.log import LogObject

__all__ = ["Processed", "Told"]

_MISSING = re.compile(r'Failed to find logical volume "(.+)/(.+)"')


@dataclass
class Told:
    """Of one object: whether it was a failure."""

    failed: bool = False


class Processed:
    """Objects in the order in which a command takes them; a group after its volumes. Does nothing
    where no log is wanted."""

    def __init__(self, session: Session) -> None:
        messages = session.messages
        self._session = session
        self._log = messages.log if isinstance(messages, Console) else None
        self._group: VolumeGroup | None = None
        self._group_failed = False

    @contextmanager
    def volume(self, name: str) -> Iterator[Told]:
        """`name`: VG/LV."""
        vg_name, _, lv_name = name.partition("/")
        vg = self._find(vg_name)
        lv = vg.lv(lv_name) if vg is not None else None
        if vg is None or lv is None:
            yield Told()
            return
        with self._part(vg, "lv", lv_name, lv.uuid) as told:
            yield told

    @contextmanager
    def missing(self, sentence: str) -> Iterator[None]:
        """A volume that is not there, by what is said of it."""
        found = _MISSING.fullmatch(sentence)
        vg = self._find(found[1]) if found is not None else None
        if found is None or vg is None:
            yield
            return
        with self._part(vg, "lv", found[2], "") as told:
            told.failed = True
            yield

    @contextmanager
    def device(self, path: str) -> Iterator[Told]:
        """A PV, and its group if it has one."""
        pv = next((pv for pv in self._session.last_scan.pvs if pv.path == path), None)
        vg = self._find(pv.vg_name) if pv is not None and pv.vg_name else None
        if pv is None or vg is None:
            yield Told()
            return
        with self._part(vg, "pv", path, pv.uuid) as told:
            yield told

    @contextmanager
    def _part(self, vg: VolumeGroup, kind: str, name: str, uuid: str) -> Iterator[Told]:
        from ulvm.report.log import LogObject

        assert self._log is not None
        if self._group is not None and self._group.uuid != vg.uuid:
            self.end()
        self._group = vg
        told = Told()
        thing = LogObject(kind, name, uuid, vg.name, vg.uuid)
        with self._log.about(thing):
            yield told
        self._log.state(thing, failed=told.failed)
        self._group_failed |= told.failed

    @contextmanager
    def group(self, name: str) -> Iterator[Told]:
        vg = self._find(name)
        if vg is None or self._log is None:
            yield Told()
            return
        self._group = vg
        told = Told()
        with self._log.about(self._group_object()):
            yield told
        self._group_failed = told.failed
        self.end()

    def end(self) -> None:
        """There is nothing more of the group."""
        if self._log is not None and self._group is not None:
            self._log.state(self._group_object(), failed=self._group_failed)
        self._group, self._group_failed = None, False

    def _group_object(self) -> LogObject:
        from ulvm.report.log import LogObject

        assert self._group is not None
        return LogObject("vg", self._group.name, self._group.uuid)

    def _find(self, name: str) -> VolumeGroup | None:
        if self._log is None:
            return None
        try:
            return self._session.last_scan.vg(name)
        except UlvmError:  # It is told of where it is looked for.
            return None
