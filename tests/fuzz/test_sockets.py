"""A real daemon's sockets: strangers' bytes, descriptors nobody asked for, and other users.

Whatever comes, the daemon goes on, keeps no descriptor or thread of it, logs no traceback, and
serves the next client. Who is neither root nor its own user gets nothing.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import effort, needs
from tests.e2e.host import UlvmHost
from tests.fuzz.mutate import mutate, mutate_values
from tests.fuzz.test_hostile import GO, option, request, u32
from ulvm.blockdev.nbd import NbdDevice

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

SOMEBODY = 65534
IN_TIME = 20


@pytest.fixture(scope="module")
def host(short_base: Path) -> Iterator[UlvmHost]:
    base = Path(tempfile.mkdtemp(dir=short_base))
    made = UlvmHost(base)
    made.image("disk", "16M")
    made.run("vgcreate vg disk")
    made.run("lvcreate -y -n lv -L 4M vg")
    yield made
    made.close()
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def at_rest(host: UlvmHost) -> tuple[int, int]:
    """What the daemon holds when it has had time to let go of everything."""
    pid = peer(host)
    seen = [held(pid)]
    while len(seen) < 20 or len(set(seen[-10:])) > 1:
        time.sleep(0.1)
        seen.append(held(pid))
    return seen[-1]


@pytest.fixture(autouse=True)
def unharmed(host: UlvmHost, at_rest: tuple[int, int]) -> Iterator[None]:
    """The daemon is the same, holds what it held, and serves."""
    pid = peer(host)
    yield
    assert peer(host) == pid, "another daemon"
    # A connection may still wait to be accepted and come into the count later: one look decides,
    # and what is really left behind is there at the next one as well.
    end = time.monotonic() + IN_TIME
    while not is_within(now := held(pid), at_rest) and time.monotonic() < end:
        time.sleep(0.05)
    assert is_within(now, at_rest), f"left behind: {now}, at rest {at_rest}"
    assert "Traceback" not in host.log(), host.log()
    client = NbdDevice(str(host.run_dir / "nbd.sock"), "vg/lv")
    client.write(4096, b"the next client")
    assert client.read(4096, 15) == b"the next client"
    client.close()


def is_within(now: tuple[int, int], at_rest: tuple[int, int]) -> bool:
    """No descriptor more. A few threads may come: those of the FUSE tree, as they are needed."""
    return now[0] <= at_rest[0] and now[1] <= at_rest[1] + 4


def peer(host: UlvmHost) -> int:
    """The daemon's process, as its socket has it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(host.run_dir / "control.sock"))
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", raw)[0])


def held(pid: int) -> tuple[int, int]:
    """Descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def talk(path: Path, data: bytes, descriptors: list[int] | None = None) -> bytes:
    """Send it all, and hear all that is answered."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(IN_TIME)
        sock.connect(str(path))
        answer = b""
        with suppress(ConnectionError, BrokenPipeError):
            if descriptors is not None:
                sent = socket.send_fds(sock, [data], descriptors)
                data = data[sent:]
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):  # It may have said all, and closed, before it had all.
            while more := sock.recv(1 << 16):
                answer += more
        return answer


# -- NBD ------------------------------------------------------------------------------------------

NAMES = {
    "a NUL": b"vg/lv\0",
    "only NUL": b"\0" * 8,
    "nothing": b"",
    "64 KiB": b"x" * (64 << 10),
    "the longest": b"vg/" + b"x" * 4093,
    "too long": b"vg/" + b"x" * 4094,
    "no UTF-8": b"vg/\xff\xfe",
    "half a pair": b"vg/\xed\xa0\x80",
    "up": b"/../",
    "up and out": b"vg/../../x",
    "into the file system": b"/etc/passwd",
    "the mapper's parent": b"mapper/../vg/lv",
    "a dm name with a slash": b"mapper/vg/lv",
    "a trailing slash": b"vg/lv/",
    "a leading slash": b"/vg/lv",
    "a file beside it": b"../control.sock",
}
NAME_FOLLOWS = 0x3E889045565A9


@pytest.mark.parametrize("what", NAMES)
def test_export_names(host: UlvmHost, what: str) -> None:
    """By each way to say one. Nothing but a volume is ever opened: no export is agreed on."""
    name = NAMES[what]
    path = host.run_dir / "nbd.sock"
    counted = u32(len(name)) + name
    for kind, data in ((6, counted + b"\0\0"), (7, counted + b"\0\0"), (10, counted + u32(0))):
        answer = talk(path, u32(3) + option(8, b"") + option(kind, data) + option(2, b""))
        replies = list(replies_of(answer[18:]))
        assert replies[0] == (8, 1)
        assert replies[1][0] == kind, replies
        assert replies[1][1] >= 1 << 31, f"{kind}: not refused"
    # Here the connection is closed, and nothing said.
    assert len(talk(path, u32(3) + option(1, name))) == 18
    effort.tally("hostile export names", 4)


def replies_of(data: bytes) -> Iterator[tuple[int, int]]:
    """(option, type) of each reply."""
    while data:
        magic, asked, kind, length = struct.unpack_from(">QIII", data)
        assert magic == NAME_FOLLOWS
        yield asked, kind
        data = data[20 + length :]


def test_the_right_name(host: UlvmHost) -> None:
    """What is refused above is refused for its name."""
    answer = talk(host.run_dir / "nbd.sock", u32(3) + option(6, u32(5) + b"vg/lv\0\0"))
    assert [kind for _, kind in replies_of(answer[18:])] == [3, 3, 1]


@pytest.mark.parametrize(
    "said",
    [
        b"IHAVEOPT" + u32(7, 0xFFFFFFFF),  # as many bytes as can be, and none come
        b"IHAVEOPT" + u32(7, 1 << 20) + b"x" * (1 << 20),
        b"IHAVEOPT" + u32(7, 3) + b"abcdefgh",  # the rest is no option
        b"IHAVEOPT" + u32(7, 100) + b"x",  # fewer come
        option(7, u32(0xFFFFFFFF) + b"vg/lv\0\0"),
        option(7, u32(5) + b"vg/lv" + b"\xff\xff"),  # 65535 kinds of information, and none comes
        option(7, u32(3) + b"vg/lv\0\0"),
        option(10, u32(5) + b"vg/lv" + u32(0xFFFFFFFF)),  # queries
        option(10, u32(5) + b"vg/lv" + u32(1, 0xFFFFFFFF) + b"base:"),
        option(3, b"a list takes nothing"),
        option(0xFFFFFFFF, b""),
        GO + request(0, 1 << 63, 4096) + request(0, 0, 0xFFFFFFFF) + request(1, 0, 1 << 31),
        GO + request(1, 4 << 20, 512, b"z" * 512) + request(6, 0, 0xFFFFFFFF),
        GO + request(4, (1 << 64) - 512, 1024) + request(99, 0, 0),
    ],
)
def test_lengths_that_lie(host: UlvmHost, said: bytes) -> None:
    talk(host.run_dir / "nbd.sock", u32(3) + said + option(2, b""))
    effort.tally("NBD lengths that lie")


@pytest.mark.parametrize("length", [(64 << 10) + 1, 1 << 20, 0xFFFFFFFF])
def test_options_that_are_too_long_are_not_waited_for(host: UlvmHost, length: int) -> None:
    """Nor kept: the server hangs up at the header."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(IN_TIME)
        sock.connect(str(host.run_dir / "nbd.sock"))
        sock.sendall(u32(3) + b"IHAVEOPT" + u32(7, length))
        answer = b""
        while more := sock.recv(1 << 16):
            answer += more
    ((asked, kind),) = replies_of(answer[18:])
    assert (asked, kind) == (7, (1 << 31) + 9)  # NBD_REP_ERR_TOO_BIG


# -- the control socket ---------------------------------------------------------------------------


def messages(host: UlvmHost) -> list[bytes]:
    """Every request but those that end the daemon or open a port."""
    table = [[0, 8, "linear", f"{host.base}/disk 0"]]
    asked = [
        ("create", {"name": "x", "uuid": "u", "minor": 77, "read_only": False}),
        ("load", {"device": "x", "table": table, "read_only": True}),
        ("load", {"device": "x", "table": [[0, 8, "error", ""], [8, 8, "zero", ""]]}),
        ("resume", {"device": "x"}),
        ("suspend", {"device": "x", "lease": True, "lockfs": True, "flush": True}),
        ("wait", {"device": "x", "event_nr": 0, "timeout": 0.01}),
        ("clear", {"device": "x"}), ("remove", {"device": "x", "force": True, "retry": False}),
        ("rename", {"device": "x", "new_name": "y"}), ("set_uuid", {"device": "y", "uuid": "v"}),
        ("table", {"device": "vg-lv", "inactive": False}), ("status", {"device": "vg-lv"}),
        ("info", {"device": "vg-lv"}), ("deps", {"device": "vg-lv"}), ("devices", {}),
        ("message", {"device": "x", "sector": 0, "message": "hello"}), ("targets", {}),
        ("device_name", {"major": 253, "minor": 0}), ("daemon_status", {}),
    ]  # fmt: skip
    return [json.dumps({"op": op, "args": args}).encode() + b"\n" for op, args in asked]


def test_mutated_requests(host: UlvmHost) -> None:
    """With descriptors along, now and then. The volume that is active stays as it is."""
    path = host.run_dir / "control.sock"
    goods = messages(host)
    choose = effort.rng("control of a daemon")
    table = host.run("dmsetup table vg-lv").stdout
    answered = 0
    with open("/dev/null") as null, socket.socket(socket.AF_UNIX) as other:
        for number in range(effort.amount(150, 3_000)):
            lines = choose.sample(goods, choose.choice([1, 3, 8]))
            spot = choose.randrange(len(lines))
            change = mutate_values if choose.random() < 0.6 else mutate
            lines[spot] = change(choose, lines[spot])
            data = b"".join(lines)
            if b"vg-lv" in data and any(w in data for w in (b"remove", b"rename", b"suspend")):
                data = data.replace(b"vg-lv", b"vg-xx")
            along = [null.fileno(), other.fileno()] * choose.choice([1, 40])
            try:
                answer = talk(path, data, along if choose.random() < 0.3 else None)
            except BaseException as error:
                raise AssertionError(
                    f"ULVM_SEED={effort.SEED} control {number}: {error!r}: {data!r}"
                ) from error
            answered += answer.count(b"\n")
            effort.tally("hostile messages to a daemon")
    for name in json.loads(talk(path, b'{"op": "devices"}\n'))["result"]:
        if name["name"] != "vg-lv":
            line = json.dumps({"op": "remove", "args": {"device": name["name"], "force": True}})
            assert b"result" in talk(path, line.encode() + b"\n"), name
    assert host.run("dmsetup table vg-lv").stdout == table
    assert answered > 100


def test_descriptors_that_nobody_asked_for(host: UlvmHost) -> None:
    """The greatest number that one message may carry, to both sockets; `unharmed` counts."""
    with open("/dev/zero") as zero:
        for name, said in (("control.sock", b'{"op": "targets"}\n'), ("nbd.sock", u32(3) + GO)):
            for _ in range(4):
                assert talk(host.run_dir / name, said, [zero.fileno()] * 253)


def test_clients_that_leave_in_the_midst(host: UlvmHost) -> None:
    for name, said in (("control.sock", b'{"op": "targ'), ("nbd.sock", u32(3) + GO[:20])):
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(host.run_dir / name))
                sock.sendall(said)


# -- other users ----------------------------------------------------------------------------------


def attempts(host: UlvmHost) -> dict[str, int]:
    """What may be reached, by errno; 0 for what was."""

    def connect(name: str, said: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(IN_TIME)
            sock.connect(str(host.run_dir / name))
            sock.sendall(said)
            if not sock.recv(100):
                raise ConnectionResetError(errno.ECONNRESET, "hung up")

    tries: dict[str, Callable[[], object]] = {
        "control": lambda: connect("control.sock", b'{"op": "targets"}\n'),
        "nbd": lambda: connect("nbd.sock", u32(3) + option(3, b"")),
        "names": lambda: os.listdir(host.run_dir / "dev"),
        "volume": lambda: host.path("vg/lv").open("rb").read(512),
        "state": (host.run_dir / "state.json").read_bytes,
        "log": (host.run_dir / "ulvmd.log").read_bytes,
        "run directory": lambda: os.listdir(host.run_dir),
        "backups": lambda: os.listdir(host.system_dir / "backup"),
        "archive": lambda: os.listdir(host.system_dir / "archive"),
    }
    found = {}
    for name, attempt in tries.items():
        try:
            attempt()
            found[name] = 0
        except OSError as error:
            found[name] = error.errno or -1
    return found


def as_somebody(host: UlvmHost) -> dict[str, int]:
    """`attempts` by a user who is neither root nor the daemon's."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(SOMEBODY)
            os.setuid(SOMEBODY)
            os.write(writer, json.dumps(attempts(host)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    found: dict[str, int] = json.loads(said)
    return found


@needs.root
@needs.fuse
def test_other_users(host: UlvmHost, short_base: Path) -> None:
    """Each wall by itself: the one before it is taken down."""
    assert set(attempts(host).values()) == {0}, "root reaches all of it"
    for folder in (short_base, host.base, host.system_dir):
        folder.chmod(0o755)
    assert set(as_somebody(host).values()) == {errno.EACCES}
    host.run_dir.chmod(0o755)
    try:
        found = as_somebody(host)
        assert found.pop("run directory") == 0
        assert set(found.values()) == {errno.EACCES}, found
        (host.run_dir / "control.sock").chmod(0o666)
        assert as_somebody(host)["control"] in (errno.ECONNRESET, errno.EPIPE)
    finally:
        (host.run_dir / "control.sock").chmod(0o600)
        host.run_dir.chmod(0o700)
    effort.tally("walls before other users", 3)
