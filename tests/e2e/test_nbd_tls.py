"""NBD over TCP with TLS: who has a certificate of the authority is served, nobody else."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.pki import authority, certificate

pytestmark = [needs.program("openssl"), needs.program("nbdcopy"), needs.program("qemu-img")]


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    authority(tmp_path / "pki")
    certificate(tmp_path / "pki", tmp_path / "server", "server")
    certificate(tmp_path / "pki", tmp_path / "client", "client")
    return tmp_path


@pytest.fixture
def port(host: UlvmHost, pki: Path) -> int:
    host.image("a.img", "64M")
    host.run("vgcreate vg a.img")
    host.run("lvcreate -L 16M -n lv vg")
    said = host.run(f"daemon listen --port 0 --tls-certificates {pki}/server").stdout
    found = re.search(r"Serving NBD with TLS on 127.0.0.1 port (\d+)", said)
    assert found, said
    return int(found[1])


def attempt(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def qemu(port: int, folder: Path) -> tuple[str, ...]:
    creds = f"tls-creds-x509,id=t,endpoint=client,dir={folder}"
    image = f"driver=nbd,host=127.0.0.1,port={port},export=vg/lv,tls-creds=t"
    return ("qemu-img", "info", "--object", creds, "--image-opts", image)


def test_data_go_both_ways(host: UlvmHost, pki: Path, port: int) -> None:
    uri = f"nbds://127.0.0.1:{port}/vg/lv?tls-certificates={pki}/client"
    data = bytes(range(256)) * 4096 * 16
    source, back = pki / "data", pki / "back"
    source.write_bytes(data)
    for words in (("nbdcopy", str(source), uri), ("nbdcopy", uri, str(back))):
        done = attempt(*words)
        assert done.returncode == 0, done.stderr
    assert back.read_bytes()[: len(data)] == data
    assert "with TLS" in host.run("daemon status").stdout
    done = attempt(*qemu(port, pki / "client"))
    assert done.returncode == 0, done.stderr
    assert "16 MiB" in done.stdout


def test_nobody_else_is_served(pki: Path, port: int) -> None:
    """tests/unit/exports/test_nbd_tls.py tries the wrong certificates."""
    # In the clear.
    done = attempt("nbdinfo", f"nbd://127.0.0.1:{port}/vg/lv")
    assert done.returncode != 0
    assert "opt_go" in done.stderr
    # A server that is not whom the client's authority knows is refused by the client.
    assert attempt(*qemu(port, pki / "client")).returncode == 0
    authority(pki / "other")
    (pki / "client" / "ca-cert.pem").write_bytes((pki / "other" / "ca-cert.pem").read_bytes())
    assert attempt(*qemu(port, pki / "client")).returncode != 0


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    assert sock.recv(18, socket.MSG_WAITALL)[:8] == b"NBDMAGIC"
    sock.sendall(struct.pack(">I", 3))
    return sock


def option(kind: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", kind, len(data)) + data


def reply(sock: socket.socket) -> int:
    magic, _, kind, length = struct.unpack(">QIII", sock.recv(20, socket.MSG_WAITALL))
    assert magic == 0x3E889045565A9
    if length:
        sock.recv(length, socket.MSG_WAITALL)
    return int(kind)


def test_nothing_is_said_before_tls(port: int) -> None:
    with connected(port) as sock:
        for kind in (3, 6, 7, 8, 9, 10):  # LIST, INFO, GO, STRUCTURED_REPLY, meta contexts
            sock.sendall(option(kind, b"\0\0\0\5vg/lv\0\0" if kind in (6, 7) else b""))
            assert reply(sock) == (1 << 31) + 5, kind  # TLS_REQD
        sock.sendall(option(1, b"vg/lv"))
        assert sock.recv(1) == b""


def test_what_is_slipped_in_behind_starttls_does_not_count(pki: Path, port: int) -> None:
    """Bytes in the clear behind STARTTLS must not be taken for what the TLS client said."""
    with connected(port) as sock:
        sock.sendall(option(5) + option(3))
        assert reply(sock) == 1
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki / "client/ca-cert.pem")
        context.load_cert_chain(pki / "client/client-cert.pem", pki / "client/client-key.pem")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(sock, server_hostname="127.0.0.1").recv(1)


def test_garbage_and_silence_hold_up_nobody(host: UlvmHost, pki: Path, port: int) -> None:
    silent = [connected(port) for _ in range(20)]
    for sock in silent:
        sock.sendall(option(5))
        assert reply(sock) == 1
    with connected(port) as sock:
        sock.sendall(option(5))
        assert reply(sock) == 1
        sock.sendall(b"\x16\x03\x01" + b"\xff" * 3000)
        with contextlib.suppress(ConnectionError):
            while sock.recv(4096):
                pass
    assert attempt(*qemu(port, pki / "client")).returncode == 0
    for sock in silent:
        sock.close()


def test_what_is_refused(host: UlvmHost, pki: Path) -> None:
    host.image("a.img", "64M")
    host.run("vgcreate vg a.img")
    host.run("lvcreate -L 16M -n lv vg")
    said = host.run("daemon listen --port 0 --address 0.0.0.0", rc=5).stderr
    assert "without TLS whoever reaches it could read and write all volumes" in said
    said = host.run(f"daemon listen --port 0 --tls-certificates {pki}/none", rc=5).stderr
    assert f"Cannot use {pki}/none/ca-cert.pem for TLS: No such file or directory." in said
    key = pki / "server" / "server-key.pem"
    key.chmod(0o644)
    said = host.run(f"daemon listen --port 0 --tls-certificates {pki}/server", rc=5).stderr
    assert f"Others can read {key}: use chmod 600." in said
    key.write_bytes((pki / "client" / "client-key.pem").read_bytes())
    key.chmod(0o600)
    said = host.run(f"daemon listen --port 0 --tls-certificates {pki}/server", rc=5).stderr
    assert "Cannot use the certificates" in said
