"""Hostile input to all that is read: only errors of our own come out, soon, and in little memory.

Each target is fed mutations of good inputs, and what `corpus/<target>/` holds of earlier finds.
A failure shows the input; put it in the corpus with the mend.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tests import effort
from tests.crash.engine import start_mapper
from tests.fuzz.mutate import mutate
from tests.static_source import StaticSource
from tests.unit.lvm.lab import KIB, Lab
from ulvm.backup.image import write_image
from ulvm.backup.manifest import ImageInfo, Manifest, VolumeInfo
from ulvm.backup.reader import Backup
from ulvm.backup.verify import verify
from ulvm.blockdev.file import FileDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.blockdev.nbd import NbdDevice
from ulvm.daemon.control import ControlServer
from ulvm.daemon.messages import MAX_MESSAGE
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table
from ulvm.errors import UlvmError
from ulvm.exports.nbd_server import NbdServer
from ulvm.lvm import lv, snapshot
from ulvm.lvm.names import split_volume
from ulvm.lvm.sizes import parse_extents, parse_size
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.label import find_label
from ulvm.metadata.mda import MdaHeader
from ulvm.metadata.text import TextHeader, vg_from_text, vg_to_text
from ulvm.report.select import parse_selection
from ulvm.vgstore.config import Config
from ulvm.vgstore.devices import read_devices
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import scan

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

DATA = Path(__file__).parents[1] / "unit" / "metadata" / "data"
CORPUS = Path(__file__).with_name("corpus")
MEMORY = 64 << 20
"""Bytes that one input may cost, of what Python allocates."""

Target = Callable[[bytes], None]


@contextmanager
def in_time(seconds: int = 20) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def feed(target: Target, data: bytes, what: str, *, may_refuse: bool = True) -> None:
    """One input. UlvmError is an answer; anything else that is raised is a failure."""
    try:
        with in_time(), suppress(*([UlvmError] if may_refuse else [])):
            target(data)
    except BaseException as error:
        shown = data if len(data) < 3000 else data[:3000] + b"..."
        raise AssertionError(f"ULVM_SEED={effort.SEED} {what}: {error!r}: {shown!r}") from error


def fuzz(name: str, goods: list[bytes], target: Target, count: int, long: int) -> None:
    """Feed a target with the good inputs, which it takes, the corpus, and mutations."""
    assert goods
    for good in goods:
        feed(target, good, name, may_refuse=False)
    for path in sorted((CORPUS / name).glob("*")):
        feed(target, path.read_bytes(), f"{name}, corpus {path.name}")
    choose = effort.rng("fuzz", name)
    pool = list(goods)
    tracemalloc.start()
    try:
        for number in range(effort.amount(count, long)):
            data = mutate(choose, choose.choice(pool))
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            feed(target, data, f"{name} {number}")
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < MEMORY, f"{name} {number} takes {peak} bytes: {data[:2000]!r}"
            if choose.random() < 0.02:
                pool = [*goods, *pool[-40:], data]
    finally:
        tracemalloc.stop()
    effort.tally(f"hostile inputs: {name}", effort.amount(count, long))


# -- metadata -------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    lv.create(lab.session, "vg", "base", extents=4)
    snapshot.create(lab.session, "vg", "base", "snap", extents=2, chunk_size=8)
    lab.write("base", 0, b"x" * 64 * KIB)
    yield lab
    lab.mapper.shutdown()


def test_labels_and_pv_headers(lab: Lab) -> None:
    for path in lab.devices:
        good = lab.contents()[path][:2048]

        def target(data: bytes) -> None:
            # As a scan would have it, with a right checksum, or it is no label at all.
            sector = bytearray(data[512:1024].ljust(512, b"\0"))
            sector[16:20] = struct.pack("<L", lvm_crc(bytes(sector[20:])))
            find_label(data[:512] + bytes(sector) + data[1024:])
            find_label(data)

        fuzz("label", [good], target, 1500, 60_000)


def test_metadata_area_headers(lab: Lab) -> None:
    good = lab.contents()[next(iter(lab.devices))][4096:4608]

    def target(data: bytes) -> None:
        data = data.ljust(512, b"\0")[:512]
        for raw in (data, struct.pack("<L", lvm_crc(data[4:])) + data[4:]):
            with suppress(UlvmError):
                MdaHeader.unpack(raw, start=4096)

    fuzz("mda", [good], target, 1500, 60_000)


def test_metadata_texts(lab: Lab) -> None:
    header = TextHeader("", "h", 0, "s")
    goods = [
        vg_to_text(lab.vg, header).encode(),
        vg_to_text(lab.vg, header, file_form=True).encode(),
        *(p.read_bytes() for p in DATA.glob("*") if p.is_file()),
    ]

    def target(data: bytes) -> None:
        vg_from_text(data)

    fuzz("text", goods, target, 600, 30_000)


def test_whole_disks(lab: Lab, tmp_path: Path) -> None:
    """A scan never fails as a whole, activates nothing outside, writes nothing."""
    path = next(iter(lab.devices))
    good = lab.contents()
    head = good[path][: 200 * KIB]

    def target(data: bytes) -> None:
        image = data[: len(head)].ljust(len(head), b"\0") + good[path][len(head) :]
        images = {**good, path: image}
        host = Host(
            lab.host.system_dir,
            lab.host.run_dir,
            opener=lambda p, writable: MemoryDevice(images[p]),
        )
        found = scan(host)
        for vg in found.vgs:
            for volume in vg.lvs:
                assert "/" not in volume.name
                assert volume.name not in (".", "..")

    fuzz("disk", [head[: 40 * KIB], head], partial(target), 300, 20_000)


@pytest.mark.parametrize("name", ["../x", "..", ".", "a/b", "-x", "", "x" * 200, "a\nb", "a b"])
@pytest.mark.parametrize("old", ["base", "vg"])
def test_names_in_metadata_lead_nowhere(lab: Lab, tmp_path: Path, name: str, old: str) -> None:
    """A disk whose metadata name a volume or a group so: it is refused, and no file is made."""
    path, device = next(iter(lab.devices.items()))
    raw = device.read(4096, 512)
    header = MdaHeader.unpack(raw, start=4096)
    locn = header.committed
    text = device.read(4096 + locn.offset, locn.size)
    new = text.replace(f"{old} {{".encode(), f'"{name}" {{'.encode(), 1)
    if old == "base":
        new = new.replace(b'"base"', f'"{name}"'.encode())
    assert new != text
    device.write(4096 + locn.offset, new)
    device.write(4096, header.with_commit(type(locn).of_text(locn.offset, new)).pack())
    (other,) = [p for p in lab.devices if p != path]
    lab.devices[other].write(0, bytes(2048))
    before = sorted(p for p in tmp_path.rglob("*"))
    found = scan(lab.host)
    assert all(vg.lv(name) is None and vg.name != name for vg in found.vgs)
    assert sorted(p for p in tmp_path.rglob("*")) == before


# -- settings and words ---------------------------------------------------------------------------


def test_configuration(tmp_path: Path) -> None:
    good = b"""devices { dir = "/dev" scan = [ "/dev", "/x" ] filter = [ "a|x|", "r|.*|" ] }
    backup { backup = 1 retain_min = 3 } # a comment
    activation/snapshot_autoextend_threshold = 70
    ulvm { durability = "process" }"""
    file = tmp_path / "ulvm.conf"

    def target(data: bytes) -> None:
        file.write_bytes(data)
        config = Config.load(file)
        for key in ("backup/backup", "backup/retain_min", "devices/scan", "ulvm/durability"):
            for get in (
                lambda k=key: config.get_bool(k, True),
                lambda k=key: config.get_int(k, 1),
                lambda k=key: config.get_str(k, ""),
                lambda k=key: config.get_list(k, []),
            ):
                with suppress(UlvmError):
                    get()
        config.with_overrides(data.decode(errors="surrogateescape"))

    fuzz("config", [good], target, 800, 40_000)


def test_devices_files(tmp_path: Path) -> None:
    host = Host(tmp_path / "etc", tmp_path / "run")
    host.devices_file.parent.mkdir(parents=True)
    good = b"# devices\nVERSION=1.1.1\nIDTYPE=devname IDNAME=/a DEVNAME=/a PVID=abc PART=1\n"

    def target(data: bytes) -> None:
        host.devices_file.write_bytes(data)
        for entry in read_devices(host):
            assert isinstance(entry.path, str)

    fuzz("devices", [good], target, 800, 20_000)


def test_words_of_the_command_line(tmp_path: Path) -> None:
    goods = [
        b"lv_name=~x && (size>10m || tags={a|b}) && !lv_active=y",
        b"10.5g", b"+100%FREE", b"50%ORIGIN", b"/dev/vg/lv", b"vg/lv", b"origin_size!=0",
    ]  # fmt: skip

    def target(data: bytes) -> None:
        text = data.decode(errors="surrogateescape")
        for parse in (
            lambda: parse_selection(text, "lv_name"),
            lambda: parse_size(text, signs="+-"),
            lambda: parse_extents(text),
            lambda: split_volume(text, tmp_path),
        ):
            with suppress(UlvmError):
                parse()

    fuzz("words", goods, target, 2000, 80_000)


# -- the device mapper ----------------------------------------------------------------------------


def test_table_lines(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 20)
    a, b = tmp_path / "a", tmp_path / "b"
    goods = [
        f"0 2048 linear {a} 0".encode(), f"0 64 striped 2 8 {a} 0 {b} 8".encode(),
        f"0 2048 snapshot {a} {b} P 8 1 discard_zeroes_cow".encode(),
        f"0 2048 snapshot-origin {a}".encode(), b"0 8 zero\n8 8 error",
        f"0 2048 snapshot {a} {b} N 16".encode(),
    ]  # fmt: skip

    def target(data: bytes) -> None:
        lines = parse_table(data.decode(errors="surrogateescape"))
        if any("/" in word and not word.startswith(str(tmp_path)) for word in str(lines).split()):
            return
        mapper = LocalMapper()
        try:
            mapper.create("x")
            mapper.load("x", lines)
            mapper.resume("x")
            mapper.table("x")
            mapper.status("x")
        finally:
            mapper.shutdown()

    fuzz("table", goods, target, 800, 40_000)


def test_exception_stores(tmp_path: Path) -> None:
    """A store from a stranger's image: loaded, read and written to, or refused."""
    chunk, size = 8 * 512, 256 * 512
    records = b"".join(struct.pack("<QQ", old, new) for old, new in ((3, 2), (4, 3), (9, 4)))
    good = struct.pack("<IIII", 0x70416E53, 1, 1, 8).ljust(chunk, b"\0") + records

    def target(data: bytes) -> None:
        disks = {
            "o": MemoryDevice(128 * 512),
            "c": MemoryDevice(data[:size].ljust(size, b"\0")),
        }
        mapper = start_mapper(tmp_path, dict(disks), "host")
        try:
            for name, line in (
                ("s", f"0 128 snapshot {tmp_path}/o {tmp_path}/c P 0"),
                ("o", f"0 128 snapshot-origin {tmp_path}/o"),
            ):
                mapper.create(name)
                mapper.load(name, parse_table(line))
                mapper.resume(name)
            for step in (
                lambda: mapper.mapped("s").read(0, 128 * 512),
                lambda: mapper.mapped("s").write(512, b"x" * 9000),
                lambda: mapper.mapped("o").write(20000, b"y" * 9000),
                lambda: mapper.mapped("s").read(0, 128 * 512),
                lambda: mapper.status("s"),
            ):
                with suppress(UlvmError):
                    step()
            # Whatever the store says, the origin holds what was written to it.
            assert mapper.mapped("o").read(20000, 9000) == b"y" * 9000
        finally:
            mapper.shutdown()

    fuzz("store", [good, good[: chunk + 16]], target, 800, 40_000)


def test_a_store_that_claims_very_much(tmp_path: Path) -> None:
    """Huge chunks, huge origins: refused, or cheap."""
    for size in (1 << 20, 1 << 31, (1 << 32) - 1):
        cow = tmp_path / "cow"
        cow.write_bytes(struct.pack("<IIII", 0x70416E53, 1, 1, size).ljust(1 << 20, b"\0"))
        (tmp_path / "o").write_bytes(bytes(1 << 16))
        mapper = LocalMapper()
        mapper.create("s")
        with pytest.raises(UlvmError):
            mapper.load("s", parse_table(f"0 {1 << 40} snapshot {tmp_path}/o {cow} P 8"))
        mapper.shutdown()


# -- sockets --------------------------------------------------------------------------------------


def pour(path: str, data: bytes) -> None:
    """Send all to a Unix socket, and read until the other end hangs up."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        with suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass


def u32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def option(kind: int, data: bytes) -> bytes:
    return b"IHAVEOPT" + u32(kind, len(data)) + data


def request(kind: int, offset: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, 0, kind, 7, offset, length) + data


GO = option(7, u32(5) + b"vg/lv" + b"\0\0")


def test_nbd_servers(short_tmp: Path) -> None:
    """Bytes to the server; in the end the next client is served."""
    disk = MemoryDevice(1 << 20)
    server = NbdServer(StaticSource({"vg/lv": disk}))
    path = str(short_tmp / "s")
    server.listen_unix(path)
    goods = [
        u32(3) + option(3, b"") + GO + request(0, 0, 4096) + request(1, 4096, 16, b"z" * 16)
        + request(4, 0, 4096) + request(6, 0, 512) + request(3, 0, 0) + request(2, 0, 0),
        u32(1) + option(8, b"") + option(10, u32(5) + b"vg/lv" + u32(1, 15) + b"base:allocation")
        + GO + request(7, 0, 65536) + request(2, 0, 0),
        u32(3) + option(1, b"vg/lv"), u32(3) + option(1, b"../../etc/passwd"),
        u32(3) + option(7, u32(9) + b"/../vg/lv" + b"\0\0"), u32(3) + option(5, b""),
    ]  # fmt: skip

    target = partial(pour, path)
    died: list[object] = []
    before, threading.excepthook = threading.excepthook, died.append
    try:
        fuzz("nbd-server", goods, target, 600, 30_000)
    finally:
        threading.excepthook = before
    assert not died, died
    client = NbdDevice(path, "vg/lv")
    client.read(0, 4096)
    client.close()
    server.stop()


def test_nbd_clients(short_tmp: Path) -> None:
    """A server that answers nonsense to our client."""
    path = str(short_tmp / "s")

    def reply(option: int, kind: int, data: bytes = b"") -> bytes:
        return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data

    good = (
        b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 3)
        + reply(8, 1)
        + reply(10, 4, struct.pack(">I", 1) + b"base:allocation") + reply(10, 1)
        + reply(7, 3, struct.pack(">HQH", 0, 1 << 20, 13)) + reply(7, 1)
        + struct.pack(">IHHQI", 0x668E33EF, 1, 1, 1, 8 + 512) + struct.pack(">Q", 0) + bytes(512)
    )  # fmt: skip
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4)

    def target(data: bytes) -> None:
        def answer() -> None:
            sock, _ = listener.accept()
            with sock, suppress(OSError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 16):
                    pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            device = NbdDevice(path, "x")
            try:
                device.read(0, 512)
            finally:
                device.close()
        finally:
            thread.join(10)
            assert not thread.is_alive()

    with listener:
        fuzz("nbd-client", [good], target, 300, 20_000)


def test_control_messages(short_tmp: Path) -> None:
    """Lines to the daemon's socket, over a real mapper; the next client is served."""
    mapper = LocalMapper()
    handlers = {
        "create": lambda c, a: mapper.create(a["name"], a["uuid"], minor=a.get("minor")).name,
        "load": lambda c, a: mapper.load(a["device"], parse_table("\n".join(a["table"]))).name,
        "info": lambda c, a: mapper.info(a["device"]).name,
        "wait": lambda c, a: int(a["event_nr"]) / int(a["timeout"]),
        "deep": lambda c, a: json.dumps(a),
    }
    path = short_tmp / "c"
    server = ControlServer(path, handlers, abandoned=lambda leased: None)
    server.start()
    goods = [
        b'{"op": "create", "args": {"name": "x", "uuid": "", "minor": 3}}\n',
        b'{"op": "info", "args": {"device": "x"}}\n{"op": "info", "args": {"device": 7}}\n',
        b'{"op": "wait", "args": {"event_nr": 1, "timeout": 0}}\n',
        b'{"op": "load", "args": {"device": "x", "table": ["0 8 zero"]}}\n',
        b'{"op": ' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        b'{"op": "deep", "args": {"a": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}}\n",
        b'{"op": "info", "args": {"device": 1' + b"0" * 5000 + b"}}\n",
    ]

    target = partial(pour, str(path))
    died: list[object] = []
    before, threading.excepthook = threading.excepthook, died.append
    try:
        fuzz("control", goods, target, 600, 30_000)
        with suppress(ConnectionError):
            target(b"x" * (MAX_MESSAGE + 100))
    finally:
        threading.excepthook = before
    assert not died, died
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b'{"op": "info", "args": {"device": "nobody"}}\n')
        assert b"error" in sock.recv(4096)
    server.stop()
    mapper.shutdown()


# -- backups --------------------------------------------------------------------------------------


@pytest.fixture
def backup(tmp_path: Path) -> tuple[Path, Path]:
    """(manifest, image)"""
    volume = tmp_path / "volume"
    volume.write_bytes(bytes(65536) + b"abc" * 30000 + bytes(65536 - 24464))
    image = tmp_path / "b.raw.zst"
    with image.open("w+b") as file:
        summary = write_image(
            lambda: FileDevice(volume, writable=False, claim=False),
            file.fileno(),
            image.name,
            threads=1,
            frame_size=65536,
        )
    uuid = "AAAAAA-bbbb-1111-cccc-2222-dddd-333333"
    manifest = Manifest(
        "ulvm",
        datetime(2024, 5, 1, tzinfo=UTC),
        VolumeInfo("vg", "db", uuid, uuid),
        ImageInfo(image.name, summary.digest, summary.compressed_sha256, summary.index),
        None,
        True,
    )
    path = tmp_path / "b.json"
    path.write_text(manifest.to_json())
    return path, image


def verified(path: Path) -> None:
    with Backup(path) as backup:
        verify(backup)


def test_backup_manifests(backup: tuple[Path, Path]) -> None:
    path, _ = backup

    def target(data: bytes) -> None:
        path.write_bytes(data)
        verified(path)

    fuzz("manifest", [path.read_bytes()], target, 400, 20_000)


def test_backup_images(backup: tuple[Path, Path]) -> None:
    path, image = backup
    good = image.read_bytes()

    def target(data: bytes) -> None:
        image.write_bytes(data)
        try:
            verified(path)
        except UlvmError:
            return
        assert data == good, "damage was not found"

    fuzz("image", [good], target, 300, 20_000)


def test_a_manifest_names_nothing_outside_its_folder(backup: tuple[Path, Path]) -> None:
    path, image = backup
    for name in ("../b.raw.zst", "/etc/passwd", "..", "x/../../y", ""):
        text = path.read_text().replace(json.dumps(image.name), json.dumps(name))
        path.with_name("evil.json").write_text(text)
        with pytest.raises(UlvmError):
            verified(path.with_name("evil.json"))
