"""TLS of the NBD server, from both ends of real sockets."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import needs
from tests.pki import authority, certificate, revoke
from tests.static_source import StaticSource
from ulvm.blockdev.memory import MemoryDevice
from ulvm.exports.nbd_server import NbdServer, _Client
from ulvm.exports.nbd_tls import Certificates, server_context

pytestmark = needs.program("openssl")

SIZE = 8 << 20
STARTTLS, ACK = b"IHAVEOPT\0\0\0\5\0\0\0\0", 1


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("pki")
    authority(base / "pki")
    authority(base / "other")
    certificate(base / "pki", base / "server", "server")
    certificate(base / "pki", base / "client", "client")
    certificate(base / "pki", base / "late", "client", days=-1)
    certificate(base / "other", base / "stranger", "client")
    return base


@pytest.fixture
def port(pki: Path) -> Iterator[int]:
    server = NbdServer(StaticSource({"vg/lv": MemoryDevice(SIZE)}))
    yield server.listen_tcp("127.0.0.1", 0, tls=Certificates(pki / "server"))
    server.stop()


def client_context(pki: Path, who: str | None) -> ssl.SSLContext:
    """It knows the right authority, and shows the certificate of `who`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki / "pki" / "ca-cert.pem")
    if who:
        context.load_cert_chain(pki / who / "client-cert.pem", pki / who / "client-key.pem")
    return context


def secured(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection that has asked for TLS and shaken hands, as far as the client can tell."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    assert sock.recv(18, socket.MSG_WAITALL)[:8] == b"NBDMAGIC"
    sock.sendall(b"\0\0\0\3" + STARTTLS)
    assert sock.recv(20, socket.MSG_WAITALL)[12:16] == ACK.to_bytes(4, "big")
    return context.wrap_socket(sock, server_hostname="127.0.0.1")


def served(port: int, context: ssl.SSLContext) -> bytes:
    """The size that the server says the export has."""
    with secured(port, context) as sock:
        sock.sendall(b"IHAVEOPT\0\0\0\1\0\0\0\5vg/lv")  # EXPORT_NAME
        return sock.recv(8)


def test_who_has_a_certificate_of_the_authority_is_served(pki: Path, port: int) -> None:
    assert served(port, client_context(pki, "client")) == SIZE.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("stranger", "CERTIFICATE_VERIFY_FAILED"),
        ("late", "CERTIFICATE_VERIFY_FAILED"),
        (None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
    ],
)
def test_nobody_else_is(
    pki: Path, port: int, who: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the server's own decision, which its log tells: the client trusts the server."""
    with caplog.at_level(logging.WARNING):
        with pytest.raises(OSError, match=r"ALERT|EOF|reset|pipe"):
            served(port, client_context(pki, who))
        assert served(port, client_context(pki, "client")) == SIZE.to_bytes(8, "big")
    assert f"TLS with 127.0.0.1 failed: {reason}" in caplog.text.replace("\n", " ")


def test_what_is_replaced_in_the_folder_counts_from_then_on(
    pki: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A daemon lives longer than certificates, and than a list of those that were revoked."""
    folder = tmp_path / "server"
    shutil.copytree(pki / "server", folder)
    server = NbdServer(StaticSource({"vg/lv": MemoryDevice(SIZE)}))
    port = server.listen_tcp("127.0.0.1", 0, tls=Certificates(folder))
    try:
        client = client_context(pki, "client")
        with secured(port, client) as sock:
            first = sock.getpeercert(binary_form=True)
        certificate(pki / "pki", tmp_path / "new", "server")
        shutil.copy(tmp_path / "new" / "server-cert.pem", folder)
        with secured(port, client) as sock:  # its key is another one's, for the moment
            assert sock.getpeercert(binary_form=True) == first
        assert "goes on with the certificates of before" in caplog.text
        key = folder / "server-key.pem"
        key.unlink()
        key.write_bytes((tmp_path / "new" / key.name).read_bytes())
        key.chmod(0o644)
        with secured(port, client) as sock:  # others can read it
            assert sock.getpeercert(binary_form=True) == first
        key.chmod(0o600)
        with secured(port, client) as sock:
            assert sock.getpeercert(binary_form=True) != first
        shutil.copy(revoke(pki / "pki", pki / "client" / "client-cert.pem"), folder)
        for _ in range(2):
            with pytest.raises(OSError, match=r"ALERT|EOF|reset|pipe"):
                served(port, client)
            (folder / "ca-crl.pem").unlink(missing_ok=True)  # nobody is let in by that
    finally:
        server.stop()


def test_a_hang_up_in_the_midst_of_a_write_yields_no_ciphertext(pki: Path) -> None:
    """What has come already is deciphered, or the connection is at its end."""
    near, far = socket.socketpair()
    context = server_context(pki / "server")
    client = _Client(near, "test", Certificates(pki / "server"))
    data = b"\x5a" * (32 << 10)

    with ThreadPoolExecutor(1) as other:
        wrap = client_context(pki, "client").wrap_socket
        there_later = other.submit(wrap, far, server_hostname="127.0.0.1")
        here = client.sock = context.wrap_socket(near, server_side=True)
        there = there_later.result(20)
    with here, there:
        there.sendall(data)
        assert here.recv(100) == data[:100]
        client.hang_up()
        rest = b""
        while piece := here.recv(1 << 16):
            rest += piece
    assert rest == data[100:][: len(rest)]
    assert len(rest) > len(data) // 2, "nothing was left to be deciphered: the test shows nothing"
