"""The NBD server against the programs people use: libnbd's tools, QEMU's and fio."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import needs
from tests.conformance.devices import serving
from tests.static_source import StaticSource
from ulvm.blockdev.file import FileDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table
from ulvm.exports.nbd_server import NbdServer

MIB = 1 << 20
SIZE = 16 * MIB


def run(*command: str, rc: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == rc, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@dataclass
class Served:
    """An image of 16 MiB whose MiB 1 and 5 hold data, and its URI."""

    image: Path
    device: FileDevice
    uri: str
    socket: str

    def content(self) -> bytes:
        return self.image.read_bytes()


@pytest.fixture(params=["unix", "tcp"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    image = tmp_path / "image"
    with image.open("wb") as stream:
        for place in (1, 5):
            stream.seek(place * MIB)
            stream.write(random.Random(place).randbytes(MIB))
        stream.truncate(SIZE)
    device = FileDevice(str(image))
    with serving(device, tcp=request.param == "tcp") as address:
        if isinstance(address, str):
            yield Served(image, device, f"nbd+unix:///vg/lv?socket={address}", address)
        else:
            yield Served(image, device, f"nbd://{address[0]}:{address[1]}/vg/lv", "")
    device.close()


# -- libnbd ------------------------------------------------------------------------------------


@needs.program("nbdinfo")
def test_nbdinfo(served: Served) -> None:
    found = json.loads(run("nbdinfo", "--no-content", "--json", served.uri))
    export = found["exports"][0]
    assert found["protocol"] == "newstyle-fixed"
    assert found["structured"]
    assert export["export-size"] == SIZE
    assert not export["is_read_only"]
    for ability in ("can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df"):
        assert export[ability], ability
    assert export["contexts"] == ["base:allocation"]
    base = served.uri.replace("/vg/lv", "/")
    assert [e["export-name"] for e in json.loads(run("nbdinfo", "--list", "--json", base))[
        "exports"
    ]] == ["vg/lv"]  # fmt: skip
    assert run("nbdinfo", "--size", served.uri).strip() == str(SIZE)
    run("nbdinfo", served.uri + "x", rc=1)


@needs.program("nbdinfo")
def test_nbdinfo_map(served: Served) -> None:
    found = json.loads(run("nbdinfo", "--map", "--json", served.uri))
    assert [(e["offset"] // MIB, e["length"] // MIB, e["type"]) for e in found] == [
        (0, 1, 3),
        (1, 1, 0),
        (2, 3, 3),
        (5, 1, 0),
        (6, 10, 3),
    ]


@needs.program("nbdcopy")
def test_nbdcopy_out_keeps_content_and_holes(served: Served, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run("nbdcopy", served.uri, str(copy))
    assert copy.read_bytes() == served.content()
    assert os.stat(copy).st_blocks * 512 < 4 * MIB


@needs.program("nbdcopy")
@pytest.mark.parametrize("options", [[], ["--request-size=4096"], ["--synchronous"]])
def test_nbdcopy_in(served: Served, tmp_path: Path, options: list[str]) -> None:
    source = tmp_path / "source"
    data = bytes(3 * MIB) + random.Random(9).randbytes(2 * MIB) + bytes(SIZE - 5 * MIB)
    source.write_bytes(data)
    run("nbdcopy", "--flush", *options, str(source), served.uri)
    assert served.content() == data


# -- QEMU --------------------------------------------------------------------------------------


@needs.program("qemu-img")
def test_qemu_img_out_and_in(served: Served, tmp_path: Path) -> None:
    copy = tmp_path / "copy.qcow2"
    before = served.content()
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", served.uri, str(copy))
    assert "identical" in run(
        "qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(copy), served.uri
    )
    served.device.write_zeroes(0, SIZE)
    run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", str(copy), served.uri)
    assert served.content() == before


@needs.program("qemu-img")
def test_qemu_img_map(served: Served) -> None:
    found = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", served.uri))
    data = [(e["start"] // MIB, e["length"] // MIB) for e in found if e["data"]]
    assert data == [(1, 1), (5, 1)]


@needs.program("qemu-io")
def test_qemu_io(served: Served) -> None:
    text = run(
        "qemu-io", "-f", "raw",
        "-c", "write -P 0xab 8M 64k",
        "-c", "read -P 0xab 8M 64k",
        "-c", "write -f -P 0xcd 9M 4k",
        "-c", "write -z 1M 4k",
        "-c", "write -z -u 1028k 4k",
        "-c", "read -P 0 1M 8k",
        "-c", "discard 5M 1M",
        "-c", "flush",
        "-c", "aio_write -P 0x11 10M 32M",
        "-c", "read 15M 1M",
        served.uri,
    )  # fmt: skip
    assert "Pattern verification failed" not in text
    content = served.content()
    assert content[8 * MIB : 8 * MIB + 65536] == b"\xab" * 65536
    assert content[9 * MIB : 9 * MIB + 4096] == b"\xcd" * 4096
    assert content[MIB : MIB + 8192] == bytes(8192)
    assert content[5 * MIB : 6 * MIB] == bytes(MIB)


# -- fio ---------------------------------------------------------------------------------------


@needs.program("fio")
@pytest.mark.parametrize("block", ["4k", "37k", "1m"])
def test_fio_writes_and_verifies(served: Served, tmp_path: Path, block: str) -> None:
    text = run(
        "fio", "--name=verify", "--ioengine=nbd", f"--uri={served.uri}", "--rw=randrw",
        f"--bs={block}", "--iodepth=16", f"--size={SIZE}", "--verify=crc32c", "--fsync=64",
        "--do_verify=1", f"--aux-path={tmp_path}", "--trim_percentage=5",
    )  # fmt: skip
    assert "err= 0" in text


# -- a snapshot --------------------------------------------------------------------------------


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[str]:
    """The URI of a snapshot whose origin changed in three chunks of 4 KiB since."""
    for name in ("image", "cow"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(SIZE)
    mapper = LocalMapper()
    sectors = SIZE // 512
    for name, line in (
        ("org", f"0 {sectors} snapshot-origin {tmp_path}/image"),
        ("snap", f"0 {sectors} snapshot {tmp_path}/image {tmp_path}/cow P 8"),
    ):
        mapper.create(name)
        mapper.load(name, parse_table(line))
        mapper.resume(name)
    origin = mapper.mapped("org")
    origin.write(MIB, b"x" * 8192)
    origin.write(3 * MIB, b"y")
    server = NbdServer(StaticSource({"snap": mapper.mapped("snap"), "org": origin}))
    with serving(origin) as address:
        folder = os.path.dirname(str(address))
        server.listen_unix(f"{folder}/snap")
        yield f"nbd+unix:///snap?socket={folder}/snap"
        server.stop()
    mapper.shutdown()


@needs.program("nbdinfo")
def test_what_a_snapshot_changed(snapshot: str) -> None:
    found = json.loads(run("nbdinfo", "--map=ulvm:changed", "--json", snapshot))
    changed = [(e["offset"], e["length"]) for e in found if e["type"] == 1]
    assert changed == [(MIB, 8192), (3 * MIB, 4096)]
    (export,) = json.loads(run("nbdinfo", "--no-content", "--json", snapshot))["exports"]
    assert export["contexts"] == ["base:allocation", "ulvm:changed"]
    run("nbdinfo", "--map=ulvm:changed", snapshot.replace("/snap?", "/org?"), rc=1)


@needs.program("nbdcopy")
def test_a_snapshot_is_copied_as_of_its_creation(snapshot: str, tmp_path: Path) -> None:
    run("nbdcopy", snapshot, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == bytes(SIZE)
