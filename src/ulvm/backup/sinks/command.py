"""Handing a snapshot to any backup program: `--exec 'tar -C {mount} -cf x.tar .'`.

    {mount}   a directory where the snapshot's file system is mounted read-only
    {device}  the file (or path) of the snapshot as a disk
    {nbd}     its NBD URI, for programs that speak it (nbdcopy, qemu-img)

The words are replaced by shell-quoted values and the whole is run by /bin/sh. `{{` and `}}`
are not special: anything but these three words is left as it is, since shells use braces too.

The command gets a process group of its own and no terminal, so that its end can be waited for
and enforced: whatever it started must be gone before the snapshot is unmounted and removed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping

from ulvm.backup.groups import end_group
from ulvm.backup.interrupts import deferred
from ulvm.errors import UsageError

__all__ = ["run_command", "words_in"]

_PATTERN = re.compile(r"\{(mount|device|nbd)\}")


def words_in(command: str) -> frozenset[str]:
    """Which of the words a command uses; UsageError if none."""
    words = frozenset(_PATTERN.findall(command))
    if not words:
        raise UsageError("The command of --exec uses none of {mount}, {device} and {nbd}.")
    return words


def run_command(command: str, values: Mapping[str, str], environment: Mapping[str, str]) -> int:
    """Run the command with the words replaced; its exit status (128 + n for signal n)."""
    text = _PATTERN.sub(lambda match: shlex.quote(values[match[1]]), command)
    process: subprocess.Popen[bytes] | None = None
    try:
        with deferred():  # between the start and the note of it nothing may come
            process = subprocess.Popen(
                ["/bin/sh", "-c", text],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        status = process.wait()
    except BaseException:
        if process is not None:
            with deferred():
                end_group(process)
        raise
    end_group(process)
    return 128 - status if status < 0 else status
