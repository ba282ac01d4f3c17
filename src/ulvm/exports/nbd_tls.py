"""TLS for NBD over TCP: who serves shows a certificate, and so does who connects.

The folder is laid out as nbdkit's and QEMU's: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`,
and `ca-crl.pem` where certificates were revoked. A client without a certificate of that authority
gets no further than the TLS handshake.
"""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

from ulvm.errors import RefusedError

__all__ = ["server_context"]


def server_context(folder: Path) -> ssl.SSLContext:
    """The settings for a listener. RefusedError if a file is missing, is not what it should be, or
    if others can read the key."""
    files = [folder / name for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem")]
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
    revoked = folder / "ca-crl.pem"
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
        if revoked.exists():
            context.load_verify_locations(revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, OSError) as error:
        raise RefusedError(f"Cannot use the certificates in {folder} for TLS: {error}.") from error
    return context
