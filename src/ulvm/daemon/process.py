"""The daemon as a process: one for each run directory, and how kernel and interpreter treat it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
from pathlib import Path

from ulvm.errors import RefusedError

__all__ = ["hold_run_dir", "is_held", "lift_limits", "prepare"]

log = logging.getLogger("ulvmd")

_LOCK_FILE = "ulvmd.lock"
_PR_SET_IO_FLUSHER = 57  # linux/prctl.h
_M_MMAP_THRESHOLD = -3  # malloc.h
_M_ARENA_MAX = -8
_OOM_SCORE = -500
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}
"""System call, by machine: glibc has no function for it (ioprio_set(2)). Class 0 is the default."""
_IOPRIO_WHO_PROCESS = 1
_SWITCH_SECONDS = 0.5e-3
_OPEN_FILES = 1 << 16
_LIMITS = ("FSIZE", "CPU", "AS", "DATA", "NPROC")
"""Of a process, that have nothing to do with volumes (setrlimit(2))."""


def hold_run_dir(run_dir: Path) -> int | None:
    """The run directory's lock, held until the process ends; None if another daemon has it.

    RefusedError for another user's directory, but for root's: they could have us follow a link of
    theirs, or load the tables of a state of theirs."""
    owner = run_dir.stat().st_uid
    if owner not in (0, os.geteuid()):
        raise RefusedError(f"{run_dir} belongs to user {owner}, and only their daemon can use it.")
    descriptor = os.open(run_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(run_dir: Path) -> bool:
    """Whether a daemon has the run directory. For a moment none can take it."""
    descriptor = os.open(run_dir / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lift_limits() -> None:
    """What the command that started us was limited to is not for all volumes from then on: with its
    `ulimit -f` writes would fail, and a snapshot turn invalid for ever; with its `ulimit -t` we
    would be killed; with its `nice` or `ionice` whoever uses a volume waits. As far as we may: a
    user's hard limit stays, and is logged."""
    for name in _LIMITS:
        number = getattr(resource, f"RLIMIT_{name}")
        if not _set_limit(number, resource.RLIM_INFINITY):
            log.info("RLIMIT_%s is %d", name, resource.getrlimit(number)[0])
    _set_limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if os.getpriority(os.PRIO_PROCESS, 0) > 0:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        except OSError as error:
            log.info("nice: %s", error)
    call = _IOPRIO_SET.get(os.uname().machine)
    if call is not None and _libc().syscall(call, _IOPRIO_WHO_PROCESS, 0, 0) != 0:
        log.info("ionice: %s", os.strerror(ctypes.get_errno()))


def _set_limit(number: int, wanted: int) -> bool:
    """At least that; what the hard limit allows where it is not to be had."""
    hard = resource.getrlimit(number)[1]
    enough = hard == resource.RLIM_INFINITY or 0 <= wanted <= hard
    try:
        resource.setrlimit(number, (hard, hard) if enough else (wanted, wanted))
    except (OSError, ValueError):
        resource.setrlimit(number, (hard, hard))
        return False
    return True


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def prepare() -> None:
    """The kernel may need us to write pages out before it can have memory: PR_SET_IO_FLUSHER,
    and not the first to be killed for want of it. Both need rights that a user has not.

    Buffers of requests go back to the system when they are freed: by default glibc raises its
    threshold for that to 32 MiB, and each thread's heap keeps what its largest requests took.
    Threads share two heaps: they allocate one at a time anyway, under the interpreter's lock.

    For that lock no request waits longer than it must: not 5 ms, Python's default, beside a commit
    that lists its pages, nor the 20 ms that it takes to look for cycles among all that was
    imported, which stays anyway.

    What the command that started us was given to do with signals is not ours: a mask stays over all
    programs that follow, and with SIGTERM in it nobody could stop us."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else nobody learns how a program ended
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.freeze()
    libc = _libc()
    with contextlib.suppress(AttributeError):  # not glibc
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        libc.mallopt(_M_ARENA_MAX, 2)
    if libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:
        log.info("PR_SET_IO_FLUSHER: %s", os.strerror(ctypes.get_errno()))
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    except OSError as error:
        log.info("oom_score_adj: %s", error)
