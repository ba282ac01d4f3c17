"""The command's end of the control socket: `DeviceMapper` over `<run_dir>/control.sock`.

One connection, one request at a time. With a lease (the default) what this connection suspends
is not left suspended when it dies: the daemon brings the devices to the committed metadata.
`dmsetup suspend`, which is meant to outlive its process, works without one.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ulvm.daemon.messages import (
    FOR_ALL,
    MAX_MESSAGE,
    PROTOCOL,
    decode,
    encode,
    error_of,
    info_of,
    lines_of,
    lines_to_json,
    of_another_version,
)
from ulvm.daemon.state import read_state
from ulvm.dm_ioctl import DeviceInfo, TableLine
from ulvm.errors import BusyError, DaemonGoneError, DeviceError, ProtocolError, RefusedError
from ulvm.faultpoints import reach

__all__ = ["CONTROL_SOCKET", "NBD_SOCKET", "DaemonClient", "connect"]

CONTROL_SOCKET = "control.sock"
NBD_SOCKET = "nbd.sock"
_START_SECONDS = 60.0
_PAUSE = 0.02
_RETRIES, _RETRY_SECONDS = 25, 0.2
"""Of removals, as libdevmapper."""
_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


_CHANGES = frozenset({"create", "load", "clear", "suspend", "resume", "remove", "rename"})
"""Requests that change devices."""


class DaemonClient:
    """For one thread. Errors are those of `DeviceMapper`; DeviceError when the daemon is gone."""

    def __init__(
        self, sock: socket.socket, *, lease: bool = True, run_dir: Path | None = None
    ) -> None:
        """`run_dir`: the daemon's, for `stop`."""
        self._sock = sock
        self._run_dir = run_dir
        self._lease = lease
        self._pending = bytearray()
        self._calls = 0

    def close(self) -> None:
        self._sock.close()

    def _call(self, op: str, args: Mapping[str, Any] | None = None) -> Any:
        if op in _CHANGES:
            reach(f"before {op}")
        self._calls += 1
        try:
            request = {"id": self._calls, "protocol": PROTOCOL, "op": op, "args": dict(args or {})}
            self._send(request)
            # What comes first may be for a caller that was interrupted before its reply came.
            while (reply := decode(self._line())).get("id", self._calls) != self._calls:
                pass
        except OSError as error:
            raise DaemonGoneError(f"The daemon does not answer: {error}.") from error
        if op in _CHANGES:
            reach(f"after {op}")
        if "error" in reply:
            raise error_of(reply["error"])
        if (theirs := reply.get("protocol", 0)) != PROTOCOL and op not in FOR_ALL:
            raise of_another_version(theirs, PROTOCOL)
        return reply.get("result")

    def _send(self, request: Mapping[str, Any]) -> None:
        sent = False
        try:
            self._sock.sendall(encode(request))
            sent = True
        finally:
            if not sent:
                self._sock.close()  # Half a request may have gone.

    def _line(self) -> bytes:
        while (end := self._pending.find(b"\n")) < 0:
            if len(self._pending) > MAX_MESSAGE:
                raise ProtocolError("a reply of the daemon is too long")
            more = self._sock.recv(1 << 16)
            if not more:
                raise DaemonGoneError("The daemon went away in the middle of a request.")
            self._pending += more
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return line

    # -- DeviceMapper -----------------------------------------------------------------------

    def create(
        self, name: str, uuid: str = "", *, minor: int | None = None, read_only: bool = False
    ) -> DeviceInfo:
        args = {"name": name, "uuid": uuid, "minor": minor, "read_only": read_only}
        return info_of(self._call("create", args))

    def load(
        self, device: str, table: Sequence[TableLine], *, read_only: bool = False
    ) -> DeviceInfo:
        args = {"device": device, "table": lines_to_json(table), "read_only": read_only}
        return info_of(self._call("load", args))

    def clear(self, device: str) -> DeviceInfo:
        return info_of(self._call("clear", {"device": device}))

    def suspend(self, device: str, *, lockfs: bool = True, flush: bool = True) -> DeviceInfo:
        args = {"device": device, "lockfs": lockfs, "flush": flush, "lease": self._lease}
        return info_of(self._call("suspend", args))

    def resume(self, device: str) -> DeviceInfo:
        return info_of(self._call("resume", {"device": device}))

    def remove(self, device: str, *, force: bool = False, retry: bool = False) -> None:
        for left in reversed(range(_RETRIES if retry else 1)):
            try:
                self._call("remove", {"device": device, "force": force})
                return
            except BusyError:
                if not left:
                    raise
            time.sleep(_RETRY_SECONDS)

    def rename(self, device: str, new_name: str) -> DeviceInfo:
        return info_of(self._call("rename", {"device": device, "new_name": new_name}))

    def set_uuid(self, device: str, uuid: str) -> DeviceInfo:
        return info_of(self._call("set_uuid", {"device": device, "uuid": uuid}))

    def table(self, device: str, *, inactive: bool = False) -> list[TableLine]:
        return lines_of(self._call("table", {"device": device, "inactive": inactive}))

    def status(self, device: str, *, flush: bool = True, inactive: bool = False) -> list[TableLine]:
        arguments = {"device": device, "flush": flush, "inactive": inactive}
        return lines_of(self._call("status", arguments))

    def info(self, device: str) -> DeviceInfo:
        return info_of(self._call("info", {"device": device}))

    def deps(self, device: str, *, inactive: bool = False) -> list[tuple[int, int]]:
        found = self._call("deps", {"device": device, "inactive": inactive})
        return [(int(major), int(minor)) for major, minor in found]

    def message(self, device: str, sector: int, message: str) -> str:
        args = {"device": device, "sector": sector, "message": message}
        return str(self._call("message", args))

    def wait(self, device: str, event_nr: int | None = None, timeout: float | None = None) -> int:
        args = {"device": device, "event_nr": event_nr, "timeout": timeout}
        return int(self._call("wait", args))

    def devices(self) -> list[DeviceInfo]:
        return [info_of(value) for value in self._call("devices")]

    def targets(self) -> list[tuple[str, tuple[int, int, int]]]:
        return [(str(name), (int(a), int(b), int(c))) for name, (a, b, c) in self._call("targets")]

    def device_name(self, major: int, minor: int) -> str | None:
        found = self._call("device_name", {"major": major, "minor": minor})
        return None if found is None else str(found)

    # -- the daemon itself ------------------------------------------------------------------

    def daemon_status(self) -> dict[str, Any]:
        """Process, sockets, and what is open; see `daemon.service`."""
        return dict(self._call("daemon_status"))

    def monitor_report(self) -> list[dict[str, Any]]:
        """See `daemon.monitor.Monitor.report`."""
        return [dict(value) for value in self._call("monitor_report")]

    def monitor(self, device: str, on: bool) -> None:
        """Watch a snapshot, or leave it alone, as long as it is active."""
        self._call("monitor", {"device": device, "on": on})

    def measure(self, device: str) -> list[int]:
        """Begin to note what is written to the device, for as long as this connection lives; the
        chunk sizes, in bytes, for which `measure_slot` answers. BusyError."""
        return [int(size) for size in self._call("measure", {"device": device})]

    def measure_slot(self) -> list[dict[int, int]]:
        """The chunks written since the last call; see `daemon.measure`."""
        return [
            {int(gap): int(count) for gap, count in histogram}
            for histogram in self._call("measure_slot")
        ]

    def listen(
        self, host: str, port: int, *, tls_certificates: str | None = None, force: bool = False
    ) -> int:
        """Serve NBD on a TCP port, too; returns the port. `tls_certificates`: an absolute folder;
        `force`: without it also on an address that is no loopback's."""
        args = {"host": host, "port": port, "tls_certificates": tls_certificates, "force": force}
        return int(self._call("listen", args))

    def stop(self, *, force: bool = False) -> list[str]:
        """Returns when the daemon has taken everything down and its process is gone; the names of
        devices that it had to leave to the next one. BusyError while volumes are open, unless
        `force`."""
        from ulvm.daemon.process import is_held  # for this alone

        pid, _, _ = _CREDENTIALS.unpack(_credentials(self._sock))
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            pass  # it has ended by itself
        except OSError:  # it is of another PID namespace, or we are not let
            self._call("stop", {"force": force})
            while self._run_dir is not None and is_held(self._run_dir):
                time.sleep(_PAUSE)
        else:
            try:
                self._call("stop", {"force": force})
                select.select([process], [], [])
            finally:
                os.close(process)
        state = None if self._run_dir is None else read_state(self._run_dir)
        if self._run_dir is None or state is None or is_held(self._run_dir):  # by another one
            return []
        return [device["name"] for device in state["devices"]]


def connect(
    run_dir: Path,
    *,
    start: bool,
    system_dir: Path | None = None,
    overrides: str = "",
    lease: bool = True,
) -> DaemonClient | None:
    """The daemon of this run directory.

    `start`: start one if none runs; it needs `system_dir`. Without it None if none runs, except
    that one which was killed with volumes active is started anew, and brings them back. (One that
    is about to stop looks like that until it has dropped its state.) `overrides`: what of --config
    counts for its life, and for what it runs. RefusedError if it is neither ours nor root's: what
    it told us of our volumes would be anything. Root may ask all.
    """

    def wanted() -> bool:
        return start or read_state(run_dir) is not None

    sock = _try(run_dir)
    if sock is None and system_dir is not None and wanted():
        sock = _start(run_dir, system_dir, overrides, wanted)
    return None if sock is None else DaemonClient(sock, lease=lease, run_dir=run_dir)


def _try(run_dir: Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(str(run_dir / CONTROL_SOCKET))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise DeviceError(
            f"Cannot connect to {run_dir / CONTROL_SOCKET}: {error.strerror or error}.",
            errno=error.errno,
        ) from error
    _, owner, _ = _CREDENTIALS.unpack(_credentials(sock))
    if os.geteuid() not in (0, owner) and owner != 0:
        sock.close()
        raise RefusedError(f"The daemon at {run_dir} is user {owner}'s.")
    return sock


def _credentials(sock: socket.socket) -> bytes:
    """Of who listens at the other end."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)


def _start(
    run_dir: Path, system_dir: Path, overrides: str, wanted: Callable[[], bool]
) -> socket.socket | None:
    """Start the daemon, detached, and wait until it serves. If another command started one at
    the same moment, that one is taken. None if it is not wanted any more."""
    deadline = time.monotonic() + _START_SECONDS
    while wanted():
        said = _launch(run_dir, system_dir, overrides)
        sock = _try(run_dir)
        if sock is not None:
            return sock
        if "already runs" not in said or time.monotonic() > deadline:
            reason = said.strip() or f"see {run_dir / 'ulvmd.log'}"
            raise DeviceError(f"The daemon did not start: {reason}")
        time.sleep(0.05)
    return None


def _launch(run_dir: Path, system_dir: Path, overrides: str) -> str:
    """Run the program; what it says on its ready pipe: nothing if all is well."""
    reader, writer = os.pipe()
    command = [sys.executable, "-P", "-m", "ulvm.daemon.service", "--detached"]
    command += ["--run-dir", str(run_dir), "--system-dir", str(system_dir)]
    command += ["--ready-fd", str(writer)]
    if overrides:
        command += ["--config", overrides]
    import subprocess  # not for those who find it running

    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writer,),
            start_new_session=True,
            cwd="/",
        ) as parent:
            os.close(writer)
            writer = -1
            with os.fdopen(reader, "rb") as stream:
                reader = -1
                said = stream.read().decode(errors="replace")
            parent.wait()  # the daemon itself goes on in a child of it
        return said
    finally:
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
