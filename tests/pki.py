"""Certificates for tests of TLS, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["authority", "certificate", "revoke"]


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def authority(folder: Path) -> None:
    """A new one, its key and certificate in `folder`."""
    folder.mkdir()
    openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
            "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca-cert.pem")  # fmt: skip


def certificate(pki: Path, folder: Path, kind: str, *, days: int = 2) -> Path:
    """`kind`-cert.pem and -key.pem of the authority in `pki`, with its certificate beside."""
    folder.mkdir(exist_ok=True)
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={kind}", "-keyout",
            f"{kind}-key.pem", "-out", "request.pem")  # fmt: skip
    openssl(folder, "x509", "-req", "-in", "request.pem", "-CA", f"{pki}/ca-cert.pem", "-CAkey",
            f"{pki}/ca-key.pem", "-CAcreateserial", "-days", str(days), "-extfile", "ext", "-out",
            f"{kind}-cert.pem")  # fmt: skip
    (folder / "ca-cert.pem").write_bytes((pki / "ca-cert.pem").read_bytes())
    (folder / f"{kind}-key.pem").chmod(0o600)
    return folder


def revoke(pki: Path, file: Path) -> Path:
    """ca-crl.pem, the list of what the authority has revoked: that certificate."""
    (pki / "index.txt").write_text("")
    (pki / "ca.cnf").write_text(
        "[ca]\ndefault_ca = here\n[here]\ndatabase = index.txt\ndefault_md = sha256\n"
        "default_crl_days = 2\n"
    )
    words = ("-config", "ca.cnf", "-cert", "ca-cert.pem", "-keyfile", "ca-key.pem")
    openssl(pki, "ca", *words, "-revoke", str(file))
    openssl(pki, "ca", *words, "-gencrl", "-out", "ca-crl.pem")
    return pki / "ca-crl.pem"
