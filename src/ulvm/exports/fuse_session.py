"""A FUSE session: mount, threads that take requests from the kernel, unmount. Mechanism only.

mfusepy is used for what it is good at: finding the library and the layout of libfuse's
structures in every version of libfuse. Its `FUSE` class is not used, since that runs
`fuse_main`, which changes the working directory and signal handlers of the whole process, copies
each read and write, and cannot say whether the mount came about. Here libfuse mounts, decodes and
answers; the threads are ours:

* A Python thread reads a request from /dev/fuse (GIL released) and answers reads and writes itself
  (`fuse_requests`, the fast path); the others it gives to `fuse_session_process_buf`, which calls
  our operation and writes the reply. A thread of libfuse's own would need a new interpreter
  thread state for each request.
* One thread receives, and answers what it receives: Python runs one thread at a time, and each that
  waits in the kernel would be woken for some request that another has taken by then. But requests
  may take long: a flush, a write to a suspended volume, a read of a slow disk. So who is about to
  call libfuse lets another thread receive, as does who took _SLOW_SECONDS for the last request, if
  one waits for its turn; and from one whose request takes longer than _LONG_SECONDS the watcher
  takes the turn. A volume holds up the others for such a moment, as long as fewer requests than
  MOST_THREADS are held. Who has answered and is not the one that receives waits for its turn, or
  ends if _SPARE_THREADS do.
* Asynchronous requests (AIO, a loop device with direct I/O) beyond MAX_BACKGROUND are held back by
  the kernel, for the whole tree: they never use up all threads, but so many of them that wait for
  one volume hold up the asynchronous ones (no others) to all volumes.
* Signals are blocked in these threads; they belong to the main thread.
* The end comes from the kernel: unmounting (or aborting the connection) makes the read return
  ENODEV. Where a copy of the mount keeps the connection it comes from `stop`.

Locking: `_lock` guards the thread list, the turn and the count of those who wait for it; `stop` and
`start` are for one caller.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from types import ModuleType
from typing import Any

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import BusyError, NotSupportedError, RefusedError
from ulvm.exports.fuse_nodes import OpenNodes, Place
from ulvm.exports.fuse_requests import MAX_IO, Requests
from ulvm.exports.heard import standard_error
from ulvm.mounts.table import mount_at
from ulvm.mounts.unmount import clear_stale, unmount

__all__ = [
    "MAX_BACKGROUND",
    "MAX_IO",
    "MOST_THREADS",
    "SERVING_THREADS",
    "FuseSession",
    "load_mfusepy",
]

log = logging.getLogger(__name__)

MAX_BACKGROUND = 32
MOST_THREADS = 512
_SPARE_THREADS = 2
SERVING_THREADS = 1 + _SPARE_THREADS
"""So many stay when nothing is held."""
_SLOW_SECONDS = 0.0001
_LONG_SECONDS = 0.002
_LOOKS = 50
"""After so many looks at nothing the watcher rests."""
_MANY_THREADS = 48
"""From so many on the log says that requests wait."""

# fuse_common.h: capabilities that libfuse would ask for by itself.
_ATOMIC_O_TRUNC = 1 << 3
_SPLICE = 1 << 7 | 1 << 8 | 1 << 9
_READDIRPLUS = 1 << 13 | 1 << 14
_ASYNC_DIO = 1 << 15


def load_mfusepy() -> ModuleType:
    """mfusepy on libfuse3; NotSupportedError where there is no libfuse3.

    Left alone it takes libfuse2 where both are installed.
    """
    saved = os.environ.get("FUSE_LIBRARY_NAME")
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"
    try:
        import mfusepy
    except (OSError, AttributeError) as error:
        raise NotSupportedError(f"FUSE needs libfuse3: {error}.") from error
    finally:
        if saved is None:
            del os.environ["FUSE_LIBRARY_NAME"]
        else:
            os.environ["FUSE_LIBRARY_NAME"] = saved
    if mfusepy.fuse_version_major != 3:
        raise NotSupportedError("FUSE needs libfuse3, but libfuse2 is loaded in this process.")
    module: ModuleType = mfusepy
    return module


class _Args(ctypes.Structure):
    """struct fuse_args (fuse_opt.h)."""

    _fields_ = (("argc", c_int), ("argv", ctypes.POINTER(c_char_p)), ("allocated", c_int))


class _Buffer(ctypes.Structure):
    """struct fuse_buf (fuse_common.h), with room for what later versions add at its end."""

    _fields_ = (
        ("size", c_size_t),
        ("flags", c_int),
        ("mem", c_void_p),
        ("fd", c_int),
        ("pos", ctypes.c_int64),
        ("later", c_size_t * 8),
    )


def _declare(library: Any) -> None:
    for name, result, *arguments in (
        ("fuse_new", c_void_p, c_void_p, c_void_p, c_size_t, c_void_p),
        ("fuse_mount", c_int, c_void_p, c_char_p),
        ("fuse_unmount", None, c_void_p),
        ("fuse_destroy", None, c_void_p),
        ("fuse_get_session", c_void_p, c_void_p),
        ("fuse_session_exited", c_int, c_void_p),
        ("fuse_session_exit", None, c_void_p),
        ("fuse_session_fd", c_int, c_void_p),
        ("fuse_session_process_buf", None, c_void_p, c_void_p),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


def _flat(prototype: Any) -> Any:
    """The same C function type with pointers as plain addresses, which are cheap to pass."""
    plain = [c_void_p if hasattr(kind, "contents") else kind for kind in prototype._argtypes_]
    return ctypes.CFUNCTYPE(prototype._restype_, *plain)


class FuseSession:
    """One mounted tree whose operations are Python functions.

    `operations` maps names of struct fuse_operations (fuse.h) to functions that take its
    arguments, pointers as addresses (None for NULL), and return its result (-errno for a failure).
    They must not raise. `devices` are the open files by the numbers that the operation `open` gives
    to their handles; they are read and written without an operation. `ended` is called, by any
    thread and perhaps more than once, when the file system is unmounted or its connection aborted,
    also by somebody else: no release of what is still open will come. `outdated` says whether a
    name stands for another device than those of `nodes` that are open by it; it must not raise.
    """

    def __init__(
        self,
        mountpoint: Path,
        operations: Mapping[str, Callable[..., int]],
        devices: Mapping[int, BlockDevice],
        options: list[str],
        ended: Callable[[], None],
        *,
        nodes: OpenNodes,
        outdated: Callable[[Place], bool],
    ) -> None:
        self._nodes = nodes
        self._outdated = outdated
        self.mountpoint = Path(os.path.abspath(mountpoint))
        self._options = options
        self._ended = ended
        self._devices = devices
        self._fuse = load_mfusepy()
        self._library: Any = self._fuse._libfuse
        _declare(self._library)
        self._table = self._fuse.fuse_operations()
        self._callbacks: list[Any] = []
        for name, function in {**operations, "init": self._init}.items():
            self._set_operation(name, function)
        self._handle: int | None = None
        self._session: int | None = None
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._parked = 0
        """Threads that wait for their turn."""
        self._receiver: threading.Thread | None = None
        """Whose turn it is to receive. One that has just lost it may do so once more."""
        self._begun: dict[threading.Thread, float] = {}
        """When each thread that is at work took its request."""
        self._watching = False
        self._called = threading.Event()
        """There are requests: the watcher is to look at them."""
        self._over = False
        """The file system is unmounted."""
        self._ending = threading.Event()
        self._end = -1
        """Can be read when it is. The connection may outlive the unmounting: a copy of the mount in
        another mount namespace, of a container say, keeps it."""
        self._watcher = threading.Thread()
        self._short = False
        """The last try to start a thread has failed."""
        self._agreed = threading.Event()
        """The first request, INIT, has been answered."""
        self._asked = threading.local()
        self._parting = threading.Lock()
        """Who has it takes a name from its node."""

    def _set_operation(self, name: str, function: Callable[..., int]) -> None:
        prototype = dict(field[:2] for field in self._fuse.fuse_operations._fields_)[name]
        callback = _flat(prototype)(function)
        self._callbacks.append(callback)
        setattr(self._table, name, ctypes.cast(callback, prototype))

    def _init(self, connection: int, config: int) -> int:
        """struct fuse_operations.init: what is agreed with the kernel. Nothing is cached."""
        conn = self._fuse.fuse_conn_info.from_address(connection)
        conn.want = (conn.want | _ASYNC_DIO) & ~(_ATOMIC_O_TRUNC | _SPLICE | _READDIRPLUS)
        conn.max_write = MAX_IO
        conn.max_background = MAX_BACKGROUND
        conn.congestion_threshold = MAX_BACKGROUND * 3 // 4
        conf = self._fuse.fuse_config.from_address(config)
        conf.entry_timeout = conf.negative_timeout = conf.attr_timeout = 0.0
        conf.use_ino = 1
        conf.direct_io = 1
        conf.hard_remove = 1  # of `_look_up_anew` alone, and no renaming of what is open
        conf.nullpath_ok = 1
        if hasattr(conf, "parallel_direct_writes"):
            conf.parallel_direct_writes = 1
        return 0

    @property
    def request(self) -> Requests:
        """What the operation in this thread is called for. The kernel's LOOKUP is for libfuse a
        getattr as well."""
        request: Requests = self._asked.request
        return request

    def _look_up_anew(self, requests: Requests, session: int | None, address: int) -> None:
        """Before a lookup: the name is to get another node if it is another device's."""
        with self._parting:
            if self._outdated(requests.place):
                with requests.as_unlink():
                    self._library.fuse_session_process_buf(session, address)
                self._nodes.renounce(requests.place)

    @property
    def mounted(self) -> bool:
        """False before start, after stop and when somebody else has unmounted the tree."""
        session = self._session
        return session is not None and not self._library.fuse_session_exited(session)

    def start(self) -> None:
        """Mount and begin to serve; the mount is there when this returns.

        BusyError if another server has the mount point; RefusedError if it cannot be mounted.
        """
        if self._handle is not None:
            raise BusyError(f"{self.mountpoint} is already being served.")
        clear_stale(self.mountpoint)
        if not os.path.exists("/dev/fuse"):
            raise NotSupportedError("FUSE needs /dev/fuse, which is not there.")
        if os.geteuid() != 0 and shutil.which("fusermount3") is None:
            raise NotSupportedError("FUSE needs the program fusermount3 when not root.")
        if not os.path.isdir(self.mountpoint):
            raise RefusedError(f"{self.mountpoint} is not a directory to mount on.")
        self._end = os.eventfd(0)  # what cannot be had is missed before there is a mount
        try:
            self._mount()
        except BaseException:
            os.close(self._end)
            raise
        try:
            self._begin()
        except (RuntimeError, MemoryError) as error:
            self.stop()
            raise RefusedError(f"The volumes cannot be served by FUSE: {error!r}.") from error
        except BaseException:
            self.stop()
            raise
        self._agreed.wait()
        if not self.mounted:
            self.stop()
            raise RefusedError(f"libfuse and the kernel do not agree on {self.mountpoint}.")

    def _mount(self) -> None:
        words = [b"ulvm", b"-o", ",".join(self._options).encode()]
        args = _Args(len(words), (c_char_p * len(words))(*words), 0)
        handle = self._library.fuse_new(
            ctypes.byref(args), ctypes.byref(self._table), ctypes.sizeof(self._table), None
        )
        if not handle:
            raise RefusedError(f"libfuse refuses the mount options {','.join(self._options)}.")
        with standard_error() as said:
            status = self._library.fuse_mount(handle, os.fsencode(self.mountpoint))
        if status != 0:
            self._library.fuse_destroy(handle)
            reason = "; ".join(said) or "libfuse does not say why"
            raise RefusedError(f"The volumes cannot be mounted on {self.mountpoint}: {reason}.")
        self._handle = handle
        self._session = self._library.fuse_get_session(handle)

    def _begin(self) -> None:
        """Serve what is mounted. RuntimeError or MemoryError for want of threads."""
        self._agreed.clear()
        self._ending.clear()
        self._called.clear()
        self._over = False
        os.set_blocking(self._library.fuse_session_fd(self._session), False)
        self._watcher = threading.Thread(target=self._watch, name="ulvm-fuse-watch", daemon=True)
        self._watcher.start()
        with self._lock:
            self._add_thread()

    def _add_thread(self) -> None:
        """Caller holds `_lock`. RuntimeError or MemoryError if the system has no more."""
        name = f"ulvm-fuse-{len(self._threads)}"
        requests = Requests(self._library.fuse_session_fd(self._session), self._end, self._devices)
        thread = threading.Thread(target=self._serve, args=(requests,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _try_thread(self) -> None:
        """Caller holds `_lock`. Without another one it is the turn of the first that has answered
        what it has, or of one that the watcher gets later."""
        try:
            self._add_thread()
            self._short = False
        except (RuntimeError, MemoryError) as error:
            if not self._short:
                log.error("FUSE has %d threads and gets no more: %r", len(self._threads), error)
            self._short = True

    def _serve(self, requests: Requests) -> None:
        """One thread: in its turn take a request, answer it, until the file system is unmounted."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        process = self._library.fuse_session_process_buf
        session = self._session
        buffer = _Buffer(mem=requests.address, fd=-1)
        address = ctypes.addressof(buffer)
        begun, me = self._begun, threading.current_thread()
        slow = False
        while self._has_turn(me, session):
            try:
                buffer.size = requests.receive()
            except OSError as error:
                log.error("FUSE on %s ends: %s", self.mountpoint, error)
                buffer.size = 0
            if not buffer.size:
                self._library.fuse_session_exit(session)
                with self._turn:
                    ours = self._session == session
                    self._over = self._over or ours
                    self._turn.notify_all()
                if ours:
                    self._ended()
                break
            begun[me] = now = time.monotonic()
            if not self._watching:  # it says that it rests before it looks at `begun` again
                self._called.set()
            if slow and self._parked:
                with self._turn:
                    self._let_another(me)
            if not requests.answer():
                with self._turn:
                    self._let_another(me)
                self._asked.request = requests
                if requests.is_lookup:
                    if self._nodes.any_at(requests.place):
                        self._look_up_anew(requests, session, address)
                elif requests.is_getattr and self._nodes.on(requests.node) is not None:
                    requests.ask_the_handle()
                process(session, address)
                self._agreed.set()
            slow = time.monotonic() - now > _SLOW_SECONDS
            begun.pop(me, None)
        # INIT was not answered, if it has not been by now.
        self._agreed.set()

    def _has_turn(self, me: threading.Thread, session: int | None) -> bool:
        """Wait for it; False: there are enough without us, or it is over, which it is as well for
        one that was left behind by `stop`."""
        if self._receiver is me:
            return True
        with self._turn:
            if self._session != session:
                return False
            if self._receiver is not None and self._parked < _SPARE_THREADS:
                self._parked += 1
                self._turn.wait_for(lambda: self._receiver is None or self._over)
                self._parked -= 1
            if self._receiver is None and not self._over:
                self._receiver = me
                return True
            self._threads.remove(me)
            return False

    def _let_another(self, receiver: threading.Thread) -> None:
        """If it still is this one's turn. Caller holds `_lock`."""
        if self._receiver is not receiver:
            return
        self._receiver = None
        if self._parked:
            self._turn.notify()
        elif len(self._threads) < MOST_THREADS:
            self._try_thread()

    def _taken(self) -> float | None:
        """When the request was taken that the receiver is at; None if it waits for one."""
        receiver = self._receiver
        return self._begun.get(receiver) if receiver is not None else None

    def _lacks_one(self) -> bool:
        """Nobody receives, and the thread that was to could not be started."""
        return self._short and self._receiver is None and not self._parked and not self._over

    def _watch(self) -> None:
        """Let another thread receive when one is held by its request. It sleeps when no requests
        come."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        looks = 0
        said = False
        while True:
            if looks == 0:
                self._watching = False
                if self._taken() is None and not self._lacks_one():
                    self._called.wait()
                self._called.clear()
                self._watching, looks = True, _LOOKS
            if self._ending.wait(_LONG_SECONDS):
                return
            with self._lock:
                if self._lacks_one() and len(self._threads) < MOST_THREADS:
                    self._try_thread()
                begun, receiver = self._taken(), self._receiver
                if begun is None or receiver is None:
                    looks -= 1
                    continue
                looks = _LOOKS
                if time.monotonic() - begun > _LONG_SECONDS:
                    self._let_another(receiver)
                    many = len(self._threads) >= _MANY_THREADS
                    if many and not said:
                        log.warning("FUSE: %d requests wait", len(self._threads))
                    said = many

    def stop(self, timeout: float = 10.0) -> None:
        """Unmount and end the threads. Idempotent.

        If files are open or a process stands in the tree, it is detached and the connection
        aborted: their requests then fail. A thread that a device holds for longer than `timeout`
        seconds is left behind (it keeps the session's memory), which is logged.
        """
        if self._handle is None or self._session is None:
            return
        self._unmount()
        self._ending.set()
        os.eventfd_write(self._end, 1)
        self._called.set()
        if self._watcher.is_alive():
            self._watcher.join()
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            log.error("FUSE requests on %s did not end in %g seconds", self.mountpoint, timeout)
        else:
            self._library.fuse_unmount(self._handle)
            self._library.fuse_destroy(self._handle)
            os.close(self._end)
        self._handle = self._session = None
        self._threads = []
        self._begun.clear()
        self._receiver = None
        self._parked = 0

    def _unmount(self) -> None:
        mount = mount_at(self.mountpoint)
        if mount is None or not mount.is_fuse:  # somebody else has done it
            return
        if self.mounted:
            try:
                unmount(self.mountpoint)
            except BusyError:
                unmount(self.mountpoint, force=True)
        else:
            unmount(self.mountpoint, force=True)
