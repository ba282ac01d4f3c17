"""TLS for NBD over TCP: who serves shows a certificate, and so does who connects.

The folder is laid out as nbdkit's and QEMU's: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`,
and `ca-crl.pem` where certificates were revoked. A client without a certificate of that authority
gets no further than the TLS handshake.

A daemon outlives its certificates, and a list of what was revoked even sooner: what is replaced in
the folder counts from the next connection on.
"""

from __future__ import annotations

import logging
import os
import ssl
import stat
import threading
from pathlib import Path

from ulvm.errors import RefusedError

__all__ = ["Certificates", "server_context"]

log = logging.getLogger(__name__)

_FILES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
_REVOKED = "ca-crl.pem"


class Certificates:
    """Those of a folder, as they are. While what is there cannot be used, or the list of what was
    revoked is gone, what was there before counts, and the log says so. Thread safe."""

    def __init__(self, folder: Path) -> None:
        """RefusedError as `server_context`."""
        self._folder = folder
        self._lock = threading.Lock()
        self._seen = self._look()
        self._context = server_context(folder)
        self._revokes = self._seen[-1] is not None

    def context(self) -> ssl.SSLContext:
        """For one connection."""
        with self._lock:
            seen = self._look()  # before they are read: what changes meanwhile is seen next time
            if seen != self._seen:
                self._seen = seen
                self._read(revokes=seen[-1] is not None)
            return self._context

    def _read(self, *, revokes: bool) -> None:
        try:
            if self._revokes and not revokes:
                raise RefusedError(f"{self._folder / _REVOKED} is gone.")
            self._context, self._revokes = server_context(self._folder), revokes
        except RefusedError as error:
            log.warning("NBD: TLS goes on with the certificates of before: %s", error)
        else:
            log.info("NBD: TLS with the new certificates in %s", self._folder)

    def _look(self) -> list[tuple[int, ...] | None]:
        """What tells each file from the one that it was, its mode included; None for one that is
        not there."""
        found: list[tuple[int, ...] | None] = []
        for name in (*_FILES, _REVOKED):
            try:
                status = os.stat(self._folder / name)
            except OSError:
                found.append(None)
            else:
                times = status.st_mtime_ns, status.st_ctime_ns
                found.append((status.st_ino, status.st_size, *times))
        return found


def server_context(folder: Path) -> ssl.SSLContext:
    """The settings for a listener. RefusedError if a file is missing, is not what it should be, or
    if others can read the key."""
    files = [folder / name for name in _FILES]
    authority, certificate, key = files
    for file in files:
        try:
            mode = os.stat(file).st_mode
        except OSError as error:
            raise RefusedError(f"Cannot use {file} for TLS: {error.strerror}.") from error
        if file == key and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise RefusedError(f"Others can read {file}: use chmod 600.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_RENEGOTIATION
    revoked = folder / _REVOKED
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
        if revoked.exists():
            context.load_verify_locations(revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, OSError) as error:
        raise RefusedError(f"Cannot use the certificates in {folder} for TLS: {error}.") from error
    return context
