"""What nobody sees to its end any more, because a command or the last daemon was killed.

Volumes left suspended are brought to the committed metadata by `ulvm vgchange --refresh`, a merge
or a pvmove is waited for by `ulvm lvpoll`: processes of their own, which take the VG's lock and
read the metadata. They are told the VG's UUID: another may have its name. A device that is no LVM
volume's is resumed. What cannot be repaired is logged, and hinders no other repair.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence

from ulvm.activation.names import is_top_level, split_dm_name, vg_uuid_of
from ulvm.daemon.commands import end_commands, start_command
from ulvm.dm.device import MappedDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.errors import FormatError, UlvmError

__all__ = ["Repairs"]

log = logging.getLogger("ulvmd")


class Repairs:
    """`command(*words)` gives the argv of an ulvm command. Thread safe."""

    def __init__(self, mapper: LocalMapper, command: Callable[..., Sequence[str]]) -> None:
        self._mapper = mapper
        self._command = command
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []

    def abandoned(self, devices: Iterable[MappedDevice]) -> None:
        """Those of the devices that are suspended: nobody is going to resume them."""
        groups = {}
        for device in devices:
            if device.removed or not device.suspended:
                continue
            try:
                groups[vg_uuid_of(device.uuid)] = split_dm_name(device.name)[0]
            except FormatError:
                self._resume(device)
        for uuid, vg in groups.items():
            log.warning("volumes of %s were left suspended; bringing them to the metadata", vg)
            self._start("vgchange", "--refresh", "-S", f'vg_uuid="{uuid}"')

    def _resume(self, device: MappedDevice) -> None:
        log.warning("%s was left suspended by a command that died; resuming it", device.name)
        try:
            self._mapper.clear(device.name)
            self._mapper.resume(device.name)
        except UlvmError as error:
            log.error("%s is not resumed: %s", device.name, error)

    def see_merges_through(self) -> None:
        """Who waited for the end of a merge or a move may have been killed with the last daemon."""
        for device in self._mapper.all_mapped():
            kinds = {target.type_name for target in device.targets}
            kind = "merge" if "snapshot-merge" in kinds else "pvmove" if "mirror" in kinds else ""
            if kind and is_top_level(device.uuid):
                try:
                    vg, lv, _ = split_dm_name(device.name)
                    owner = vg_uuid_of(device.uuid)
                except FormatError as error:  # renamed by hand
                    log.error("nobody waits for the end of a %s: %s", kind, error)
                    continue
                words = ("--polloperation", kind, "--vguuid", owner, f"{vg}/{lv}")
                self._start("lvpoll", *words)

    def _start(self, *words: str) -> None:
        try:
            process = start_command(self._command(*words))
        except OSError as error:
            log.error("cannot run ulvm %s: %s", " ".join(words), error)
            return
        with self._lock:
            self._running = [p for p in self._running if p.poll() is None]
            self._running.append(process)

    def stop(self) -> None:
        """End the commands that run."""
        with self._lock:
            end_commands(self._running)
