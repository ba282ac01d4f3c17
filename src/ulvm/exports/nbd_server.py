"""The NBD server: sockets, and a thread per connection.

A connection's thread blocks on its own socket and its own device, so one that waits for a suspended
device or a slow client holds up nobody else. Everything a client can do is bounded: the handshake
in time and length, a request in length, connections in number. When the machine has no more
descriptors or threads, connections are refused or wait; the listeners go on.

Who may connect: a Unix socket is mode 0600 from the moment it exists. TCP has no such guard: with
TLS who has a certificate of the right authority (`nbd_tls`); without, only loopback addresses are
listened on unless that is forced, and any user of the machine can then connect.

An open connection counts as an open of its device; so over TCP it is asked now and then whether the
client's machine is still there. When a device is taken away all the same, its requests fail with
ENXIO and end the connection.

Locking: `_lock` guards the sets of listeners and connections and is held for moments.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import ssl
import stat
import threading
import time

from ulvm.errors import BusyError, DeviceError, FormatError, RefusedError
from ulvm.exports.nbd_handshake import Handshake
from ulvm.exports.nbd_tls import Certificates
from ulvm.exports.nbd_transmission import serve
from ulvm.exports.source import ExportSource

__all__ = ["NbdServer"]

log = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 30.0
_MAX_CONNECTIONS = 256
"""Of each listener: who may not come by the Unix socket cannot fill that up by TCP."""
_BACKLOG = 64
_JOIN_SECONDS = 2.0
_QUIET_SECONDS = 10.0
_SEND_BUFFER = 4 << 20
"""As much of it as the system allows (net.core.wmem_max)."""
_KEEP_ALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 6}
"""A machine that went without a goodbye is given up after two minutes, one that has not taken what
was sent to it after the system's time for that (tcp_retries2, a quarter of an hour). Shorter by
TCP_USER_TIMEOUT, that would hang up on a client that lives and does not read (tcp(7))."""


class _Client:
    """A connection and its thread. `where`: by which listener it came."""

    def __init__(
        self, sock: socket.socket, peer: str, tls: Certificates | None = None, where: str = ""
    ) -> None:
        self.sock = sock
        self.peer = peer
        self.tls = tls
        self.where = where
        self.thread: threading.Thread | None = None

    def hang_up(self) -> None:
        """Wake the thread; it closes the socket itself.

        Not by `SSLSocket.shutdown`: that drops the TLS state first, and a thread in the midst of a
        long write would take the ciphertext that has already come for the data."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise


class NbdServer:
    """Serves the source's exports until `stop`. Thread safe."""

    def __init__(self, source: ExportSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._listeners: list[tuple[socket.socket, threading.Thread, str]] = []
        self._clients: set[_Client] = set()
        self._stopping = False
        self._number = 0
        self._quiet_until = 0.0

    # -- listening --------------------------------------------------------------------------

    def listen_unix(self, path: str) -> None:
        """BusyError if somebody answers there; a socket left behind is replaced."""
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(sock.fileno(), 0o600)  # bind takes the mode from the socket
            sock.bind(path)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            raise DeviceError(
                f"Cannot listen on {path}: {error.strerror}.", errno=error.errno or errno.EIO
            ) from error
        self._listen(sock, path, path)

    def listen_tcp(
        self, host: str, port: int, *, tls: Certificates | None = None, force: bool = False
    ) -> int:
        """Returns the port (for port 0 the one chosen). Without `tls` RefusedError unless `host` is
        a loopback address or a name of one, or it is forced."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise RefusedError(f"Cannot listen on {host}: {error.strerror}.") from error
        except UnicodeError as error:
            raise RefusedError(f"Cannot listen on {host}: it is no host name.") from error
        family, kind, protocol, _, address = found[0]
        loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        if not (loopback or tls or force):
            raise RefusedError(
                f"Cannot listen on {host}: without TLS whoever reaches it could read and write all "
                "volumes; use --tls-certificates, a loopback address, or --force."
            )
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            raise DeviceError(
                f"Cannot listen on {host} port {port}: {error.strerror}.",
                errno=error.errno or errno.EIO,
            ) from error
        chosen = int(sock.getsockname()[1])
        self._listen(sock, f"{host}:{chosen}", "", tls)
        return chosen

    def _listen(
        self, sock: socket.socket, where: str, path: str, tls: Certificates | None = None
    ) -> None:
        thread = threading.Thread(
            target=self._accept, args=(sock, where, tls), name=f"nbd-listen {where}", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # no more threads: nobody would ever accept
            if path:
                _remove_own(path)
            sock.close()
            reason = str(error) or "out of memory"
            raise DeviceError(f"Cannot listen on {where}: {reason}.", errno=errno.EAGAIN) from error
        with self._lock:
            self._listeners.append((sock, thread, path))

    def _accept(self, listener: socket.socket, where: str, tls: Certificates | None) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError as error:
                if self._stopping:
                    return
                log.warning("NBD: accept on %s: %s", where, error.strerror)
                time.sleep(0.1)  # out of descriptors, most likely
                continue
            peer = where if isinstance(address, str) else f"{address[0]}"
            self._start(_Client(sock, peer, tls, where))

    def _start(self, client: _Client) -> None:
        refused = ""
        with self._lock:
            beside = sum(other.where == client.where for other in self._clients)
            if self._stopping or beside >= _MAX_CONNECTIONS:
                refused = f"{_MAX_CONNECTIONS} are served on {client.where}"
            else:
                self._number += 1
                client.thread = threading.Thread(
                    target=self._run, args=(client,), name=f"nbd-{self._number}", daemon=True
                )
                self._clients.add(client)
                try:
                    client.thread.start()
                except (RuntimeError, MemoryError) as error:  # no more threads
                    self._clients.discard(client)
                    refused = str(error) or "out of memory"
        if refused:
            self._warn("NBD: a connection refused, %s", refused)
            client.sock.close()

    def _warn(self, text: str, *words: object) -> None:
        """Of what a stranger can do as often as they like: who fills the log up fills the run
        directory, where the daemon's state and the stages are."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            log.warning(text, *words)

    # -- one connection ---------------------------------------------------------------------

    def _run(self, client: _Client) -> None:
        try:
            self._serve(client)
        except ssl.SSLError as error:
            self._warn("NBD: TLS with %s failed: %s", client.peer, error.reason or error)
        except (OSError, EOFError, FormatError) as error:
            log.debug("NBD: connection of %s ended: %s", client.peer, error)
        except Exception:
            log.exception("NBD: connection of %s failed", client.peer)
        finally:
            client.sock.close()
            with self._lock:
                self._clients.discard(client)

    def _serve(self, client: _Client) -> None:
        if client.sock.family == socket.AF_UNIX:
            # A reply of 1 MiB goes out in one piece. TCP finds a size of its own.
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        else:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE.items():
                client.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        handshake = Handshake(self._source, tls=client.tls is not None)
        try:
            _negotiate(client, handshake)
        except BaseException:
            if handshake.agreed is not None:
                handshake.agreed.device.close()
            raise
        agreed = handshake.agreed
        if agreed is None:
            return
        try:
            if not self._stopping:
                serve(client.sock, agreed, handshake.rest)
        finally:
            agreed.device.close()

    # -- ending -----------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop listening and end all connections. A thread whose request waits for a suspended
        device ends after that request."""
        self._stopping = True
        with self._lock:
            listeners, self._listeners = self._listeners, []
            clients = list(self._clients)
        for sock, _, path in listeners:
            if path:
                _remove_own(path)
            sock.shutdown(socket.SHUT_RDWR)
        for client in clients:
            client.hang_up()
        for sock, thread, _ in listeners:
            thread.join()
            sock.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for client in clients:
            if client.thread is not None:
                client.thread.join(max(0.0, deadline - time.monotonic()))


def _negotiate(client: _Client, handshake: Handshake) -> None:
    """Within a time, TLS included, so that nobody holds a thread by silence, or by talk."""
    deadline = time.monotonic() + _HANDSHAKE_SECONDS
    client.sock.settimeout(_HANDSHAKE_SECONDS)
    client.sock.sendall(handshake.greeting)
    while handshake.agreed is None and not handshake.closed:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the handshake does not end")
        client.sock.settimeout(left)
        data = client.sock.recv(1 << 16)
        if not data:
            raise EOFError("gone during the handshake")
        client.sock.sendall(handshake.feed(data))
        if handshake.starting_tls:
            handshake.secured()
            assert client.tls is not None
            client.sock = client.tls.context().wrap_socket(
                client.sock, server_side=True, do_handshake_on_connect=False
            )
            client.sock.settimeout(max(0.001, deadline - time.monotonic()))
            client.sock.do_handshake()
    client.sock.settimeout(None)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise BusyError(f"{path} exists and is not a socket.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise DeviceError(f"{path}: {error.strerror}", errno=error.errno) from error
    raise BusyError(f"Another server listens on {path}.")


def _remove_own(path: str) -> None:
    """Unlink before the socket is closed: nobody can have put a new one there meanwhile."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        log.info("NBD: the socket %s was removed by somebody else", path)
