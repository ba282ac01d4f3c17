"""Directories of our own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ulvm.errors import DeviceError
from ulvm.vgstore import files
from ulvm.vgstore.files import private_dir, write_atomically


def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    old = os.umask(0)
    try:
        write_atomically(tmp_path / "etc" / "ulvm" / "backup" / "vg", b"")
    finally:
        os.umask(old)
    made = [stat.S_IMODE(path.stat().st_mode) for path in sorted(tmp_path.rglob("*"))]
    assert made == [0o700, 0o700, 0o700, 0o600]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755, "what was there is left as it is"


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "etc").touch()
    with pytest.raises(DeviceError, match=r"Cannot create directory .*/etc/ulvm: "):
        private_dir(tmp_path / "etc" / "ulvm")


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """`vgcfgbackup -f /dev/null`, by root, made a file of it."""
    pipe, link = tmp_path / "pipe", tmp_path / "stdout"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (pipe, link):
            write_atomically(path, b"text")
            assert os.read(reader, 9) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    with pytest.raises(DeviceError, match="Is a directory"):
        write_atomically(tmp_path, b"text")


def test_standard_output_is_not_replaced_where_it_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to it, that is, in /dev; nor is what was said before written over."""
    out, link = tmp_path / "out", tmp_path / "stdout"
    link.symlink_to(out)
    with out.open("wb", buffering=0) as stream:
        monkeypatch.setattr(files, "_STREAMS", {str(link): stream.fileno()})
        stream.write(b"said, ")
        write_atomically(link, b"text, ")
        stream.write(b"said")
    assert link.is_symlink()
    assert out.read_bytes() == b"said, text, said"
