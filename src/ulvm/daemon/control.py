"""The daemon's end of the control socket: a thread for each connection, one request at a time.

Only the owner of the daemon and root get an answer (SO_PEERCRED; the socket is 0600 as well).
A malformed request ends its connection and nothing else. A connection that suspended devices with
a lease and dies before it resumed them is reported to `abandoned`. For want of descriptors a client
waits in the backlog until there are some again; for want of threads it is refused.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ulvm.daemon.messages import (
    FOR_ALL,
    MAX_MESSAGE,
    PROTOCOL,
    decode,
    encode,
    error_to_json,
    of_another_version,
)
from ulvm.errors import BusyError, DeviceError, ProtocolError, UlvmError
from ulvm.faultpoints import reach

__all__ = ["Connection", "ControlServer", "Handler"]

log = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("3i")
_BACKLOG = 64
_PATIENCE = 10.0
_PAUSE = 0.1
"""Seconds before the next try when a connection could not be accepted."""


class Connection:
    """One client, as the handlers see it. `leased`: the devices that it holds suspended, not their
    names, which change."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.leased: set[Any] = set()
        self.after_reply: Callable[[], None] | None = None
        """Run once the reply to this request is on its way."""
        self.measured: object = None
        """What this connection measures, for the handlers alone."""
        self.at_end: list[Callable[[], None]] = []
        """Run when the connection is closed."""

    def hung_up(self) -> bool:
        """Whether the client has gone away."""
        try:
            return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


Handler = Callable[[Connection, Mapping[str, Any]], Any]
"""Gets the arguments of a request and returns what is JSON; raises UlvmError."""


class ControlServer:
    """`handlers` by operation. Thread safe."""

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        *,
        abandoned: Callable[[set[Any]], None],
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._abandoned = abandoned
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._ended = threading.Condition(self._lock)
        self._listener: socket.socket | None = None
        """None: it has been stopped, and no request begins any more."""
        self._acceptor = threading.Thread()

    def start(self) -> None:
        """Listen. The caller holds the run directory's lock, so a socket there is a dead one's."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listener.fileno(), 0o600)  # bind takes the mode from the socket
            listener.bind(str(self._path))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise DeviceError(
                f"Cannot listen on {self._path}: {error.strerror or error}."
            ) from error
        self._listener = listener
        self._acceptor = threading.Thread(
            target=self._accept, args=(listener,), name="control", daemon=True
        )
        self._acceptor.start()

    def stop(self, patience: float = _PATIENCE) -> None:
        """Take no more connections nor requests, hang up, and wait until the requests under way
        are through; one that takes longer than `patience` seconds is left, and logged."""
        with self._lock:
            listener, self._listener = self._listener, None
            for connection in self._connections:
                _hang_up(connection.sock)
        if listener is not None:
            self._path.unlink(missing_ok=True)
            _hang_up(listener)
            self._acceptor.join()
            listener.close()
        with self._ended:
            if not self._ended.wait_for(lambda: not self._connections, patience):
                log.error("control socket: %d requests do not end", len(self._connections))

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if self._listener is not listener:
                    return
                log.error("control socket: %s", error)
                time.sleep(_PAUSE)  # out of descriptors, most likely
                continue
            try:
                threading.Thread(
                    target=self._run, args=(sock,), name="control-client", daemon=True
                ).start()
            except (RuntimeError, MemoryError) as error:  # no more threads: the hang-up tells
                log.error("control socket: a connection refused: %r", error)
                sock.close()

    def _run(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        with self._lock:
            if self._listener is None:
                sock.close()
                return
            self._connections.add(connection)
        try:
            _check_peer(sock)
            self._serve(connection)
        except (ProtocolError, BusyError) as error:
            log.warning("control client: %s", error)
        except OSError as error:
            log.debug("control client: %s", error)
        finally:
            sock.close()
            try:
                for step in connection.at_end:
                    step()
            except Exception:
                log.exception("at the end of a control client")
            try:
                if connection.leased and self._listener is not None:
                    self._abandoned(connection.leased)
            finally:
                with self._ended:
                    self._connections.discard(connection)
                    self._ended.notify_all()

    def _serve(self, connection: Connection) -> None:
        pending = bytearray()
        while self._listener is not None:
            end = pending.find(b"\n")
            if end >= 0:
                line = bytes(pending[:end])
                del pending[: end + 1]
                request = decode(line)
                reply = self._answer(connection, request)
                answered = {"id": request.get("id"), "protocol": PROTOCOL}
                connection.sock.sendall(encode({**answered, **reply}))
                if connection.after_reply is not None:
                    connection.after_reply()
                continue
            if len(pending) > MAX_MESSAGE:
                raise ProtocolError("a request is too long")
            more = connection.sock.recv(1 << 16)
            if not more:
                return
            pending += more

    def _answer(self, connection: Connection, request: Mapping[str, Any]) -> dict[str, Any]:
        op, args = request.get("op"), request.get("args", {})
        theirs = request.get("protocol", PROTOCOL)
        if theirs != PROTOCOL and isinstance(op, str) and op not in FOR_ALL:
            return {"error": error_to_json(of_another_version(PROTOCOL, theirs))}
        handler = self._handlers.get(op) if isinstance(op, str) else None
        if handler is None or not isinstance(args, dict):
            raise ProtocolError(f"unknown request {str(op)[:64]!r}")
        try:
            reach(f"before {op}")
            result = handler(connection, args)
            reach(f"after {op}")
            return {"result": result}
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            # Arguments of the wrong shape, since the handlers convert what they take; or a defect,
            # for which the place is there.
            (place,) = traceback.extract_tb(error.__traceback__, limit=-1)
            log.warning("request %s: %r at %s:%s", op, error, place.filename, place.lineno)
            return {"error": error_to_json(ProtocolError(f"bad arguments of {op}: {error!r}"))}
        except UlvmError as error:
            return {"error": error_to_json(error)}
        except Exception as error:  # a defect, or something that the system refused
            log.exception("request %s failed", op)
            return {"error": error_to_json(UlvmError(f"The daemon failed in {op}: {error}"))}


def _check_peer(sock: socket.socket) -> None:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    if uid not in (0, os.geteuid()):
        raise ProtocolError(f"process {pid} of user {uid} has no business here")


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("hang up: %s", error)
