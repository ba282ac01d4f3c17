"""The user's own commands around a snapshot: bring an application to rest, let it go on.

    quiesce CMD -> (snapshot) -> resume CMD

Both run in one and the same `/bin/sh`, which waits in between. So what the first begins, the
second can end: a database's lock lives as long as the session that took it, and that session
can be a background job of this shell (`FLUSH TABLES WITH READ LOCK` of MySQL is gone as soon as
its client exits).

    state     event                      next       then
    started   quiesce exits 0            quiet      the snapshot is taken
    started   quiesce fails, times out   failed     resume runs, the backup is given up
    quiet     end of the block, any way  resumed    resume runs
    quiet     its shell is gone          failed     resume runs, the backup is given up

Resume runs once quiesce was begun, whatever happens: failure, Ctrl-C, SIGTERM; a quiesce that is
still at it is ended first, with all that it started, lest it freeze what was thawed. If the shell
is gone by then (`exit`, `exec`, a kill), resume runs in a new one. The shell is in a process group
of its own, so that a Ctrl-C at the terminal does not kill the holder of the lock before resume.
If ulvm itself is killed, the shell sees the end of the pipe it waits on and runs resume.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType

from ulvm.backup.groups import end_group
from ulvm.backup.interrupts import deferred
from ulvm.errors import RefusedError

__all__ = ["quiesced"]

_KILL_SECONDS = 10.0
"""After SIGKILL."""

_SCRIPT = """\
eval "$ULVM_QUIESCE"
ULVM_STATUS=$?
trap '' PIPE
echo "$ULVM_STATUS" >/dev/fd/"$ULVM_REPLY_FD"
trap - PIPE
read -r _ </dev/fd/"$ULVM_GO_FD" || :
eval "$ULVM_RESUME"
exit $?
"""


@contextmanager
def quiesced(
    quiesce: str | None,
    resume: str | None,
    *,
    environment: Mapping[str, str],
    warn: Callable[[str], None],
    timeout: float = 300.0,
) -> Iterator[None]:
    """Run `quiesce` before the block and `resume` after it, if given.

    Raises RefusedError when quiesce fails (the block does not run then, resume does) or when
    resume fails after a block that went well; after one that did not, `warn` says so.
    `timeout` in seconds holds for each of the commands.
    """
    if quiesce is None and resume is None:
        yield
        return
    with _Shell(quiesce or ":", resume or ":", environment, warn, timeout) as shell:
        shell.quiesce()
        yield


class _Shell:
    """The shell that both commands run in."""

    def __init__(
        self,
        quiesce: str,
        resume: str,
        environment: Mapping[str, str],
        warn: Callable[[str], None],
        timeout: float,
    ) -> None:
        self._resume = resume
        self._warn = warn
        self._timeout = timeout
        self._waiting_for_word = False
        self._process: subprocess.Popen[bytes] | None = None
        self._reply, self._reply_write = os.pipe()
        self._go_read, self._go = os.pipe()
        self._environment = {
            **os.environ,
            **environment,
            "ULVM_QUIESCE": quiesce,
            "ULVM_RESUME": resume,
            "ULVM_REPLY_FD": str(self._reply_write),
            "ULVM_GO_FD": str(self._go_read),
        }

    def __enter__(self) -> _Shell:
        return self

    def quiesce(self) -> None:
        """Run the first command; RefusedError unless it succeeds."""
        with deferred():  # between the start and the note of it nothing may come
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT],
                stdin=subprocess.DEVNULL,
                pass_fds=(self._reply_write, self._go_read),
                env=self._environment,
                start_new_session=True,
            )
            os.close(self._reply_write)
            os.close(self._go_read)
        status = self._wait_for_reply(self._process)
        if status != 0:
            raise RefusedError(f"The quiesce command failed ({status}); no snapshot was taken.")

    def _wait_for_reply(self, process: subprocess.Popen[bytes]) -> int | str:
        """Exit status of the quiesce command, or what became of it."""
        reply = b""
        deadline = time.monotonic() + self._timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._reply, selectors.EVENT_READ)
            while not reply.endswith(b"\n"):
                # Background jobs of the shell hold the pipe open, so its end is not enough.
                if selector.select(timeout=0.05):
                    piece = os.read(self._reply, 64)
                    if not piece:
                        break
                    reply += piece
                elif process.poll() is not None:
                    break
                elif time.monotonic() > deadline:
                    return f"no answer in {self._timeout:g} s"
        if not reply.endswith(b"\n"):
            status = process.wait()
            # `exit 0` would leave nobody to hold what was locked: not a success either.
            return f"its shell ended with status {status}"
        self._waiting_for_word = True
        return int(reply)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        process = self._process
        if process is None:  # none could be started
            for end in (self._reply, self._reply_write, self._go_read, self._go):
                os.close(end)
            return
        with deferred():
            failure = self._run_resume(process)
            os.close(self._reply)
        if failure is None:
            return
        if kind is None:
            raise RefusedError(failure)
        self._warn(failure)

    def _run_resume(self, process: subprocess.Popen[bytes]) -> str | None:
        """Run the second command; a sentence if it failed."""
        lost = False
        if self._waiting_for_word:
            lost = process.poll() is not None  # before our word, after which it may well end
        else:
            end_group(process)  # its shell may be gone, and what that started may not
        os.close(self._go)
        if lost or not self._waiting_for_word:  # one that is not ours to end hears no word
            try:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", self._resume],
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                    start_new_session=True,
                )
            except OSError as error:  # want of memory, say
                return f"The resume command could not be run: {error.strerror}."
        try:
            status = process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            fate = "was killed" if _kill(process) else "could not be killed"
            return f"The resume command did not end in {self._timeout:g} s and {fate}."
        if status:
            return f"The resume command failed with status {status}."
        if lost:  # the snapshot may be from after that
            return "The shell of the quiesce command was killed, and what it held let go too soon."
        return None


def _kill(process: subprocess.Popen[bytes]) -> bool:
    """Whether it went; another user's does not."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
