"""How a stage begins: empty, or with what a killed process left for its device (dm.stage)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.stage import Stage
from ulvm.dm.stage_file import PAGE, StageSettings

if TYPE_CHECKING:
    from ulvm.dm.device import MappedDevice

__all__ = ["begin_stage"]


def begin_stage(
    device: BlockDevice,
    lock: threading.RLock,
    settings: StageSettings,
    writer: MappedDevice,
    *,
    settle: Callable[[], None],
    allocate: Callable[[int, int], None],
    log: Callable[[str], None],
) -> Stage | None:
    """Of what is written through `writer`: if that goes on where a killed process stopped, with a
    stage of that size and what is in it, of which `allocate` is told each page's [offset, end),
    under the lock. None if there is to be none; one that cannot be had is done without, which is
    said. TableError if nobody knows what a killed process left."""
    slots = (settings.slots_left(writer.minor) if writer.goes_on else 0) or settings.slots
    if not slots:
        return None
    try:
        stage = Stage(
            device,
            lock,
            settle=settle,
            log=log,
            slots=slots,
            path=settings.path(writer.minor),
            whose=writer.uuid,
            goes_on=writer.goes_on,
        )
    except OSError as error:
        log(f"no stage, so each first write waits for its copy: {error}")
        return None
    try:
        with lock:
            left = stage.left()
            if left:
                for page in sorted(left):
                    allocate(page * PAGE, min((page + 1) * PAGE, device.size))
                stage.adopt(left)
                if device.read_only:
                    log(
                        "what was written to it before a kill waits until what lies below can be"
                        " written; a disk that could not is opened anew by the next daemon"
                    )
            else:
                stage.begin()
    except BaseException:
        stage.close(keep=True)
        raise
    writer.goes_on = False  # A device has one file of staged data, and a table one beginning.
    return stage
