"""Runs programs over the dm layer inside the virtual machine: `python3 agent.py PROGRAMS DISK`.

Standard library only, and nothing of ulvm. One JSON line a step on standard output: the errno (0 if
none), what was read, and each device that looks otherwise than after the step before. The steps are
explained in `program`; struct dm_ioctl and its numbers are those of linux/dm-ioctl.h.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import mmap
import os
import re
import signal
import struct
import sys
import time

SECTOR = 512
IOCTL = struct.Struct("=IIIIIIiIIIQ128s129s7s")
SPEC = struct.Struct("=QQiI16s")
CREATE, REMOVE, RENAME, SUSPEND, DEV_STATUS = 3, 4, 5, 6, 7
LOAD, CLEAR, DEPS, STATUS, MESSAGE = 9, 10, 11, 12, 14
READONLY, SUSPENDED, TABLE, ACTIVE, INACTIVE = 1, 2, 16, 32, 64
SKIP_LOCKFS, QUERY_INACTIVE = 1 << 10, 1 << 12
BLKDISCARD, BLKZEROOUT = 0x1277, 0x127F
SIZE = 64 << 10


class Device:
    """What DEV_STATUS says; `minor` of the device node."""

    def __init__(self, fields):
        self.open_count, self.flags, self.event = fields[6], fields[7], fields[8]
        dev = fields[10]
        self.minor = (dev & 0xFF) | ((dev >> 12) & 0xFFF00)
        self.major = (dev >> 8) & 0xFFF
        self.targets = fields[5]


class Control:
    def __init__(self):
        self.fd = os.open("/dev/mapper/control", os.O_RDWR)

    def call(self, command, name, flags=0, data=b"", targets=0):
        head = IOCTL.pack(
            4, 0, 0, SIZE, IOCTL.size, targets, 0, flags, 0, 0, 0, name.encode(), b"", b""
        )
        buffer = bytearray(SIZE)
        buffer[: len(head)] = head
        buffer[len(head) : len(head) + len(data)] = data
        fcntl.ioctl(self.fd, (3 << 30) | (IOCTL.size << 16) | (0xFD << 8) | command, buffer)
        fields = IOCTL.unpack_from(buffer)
        return fields, bytes(buffer[fields[4] : fields[3]])


class Runner:
    def __init__(self, disk):
        self.control = Control()
        self.disk = disk
        self.fd = os.open(disk, os.O_RDWR | os.O_DIRECT)
        number = os.stat(disk).st_rdev
        self.disk_number = f"{os.major(number)}:{os.minor(number)}"
        self.buffer = mmap.mmap(-1, 1 << 20)
        self.view = memoryview(self.buffer)

    def program(self, number, program):
        self.names = {self.disk_number: "disk"}
        self.shown = {}
        self.known = []
        self.base = program["base"]
        for sector, token, count in program["fill"]:
            self.put(self.fd, self.base + sector, token, count)
        for position, step in enumerate(program["steps"]):
            signal.alarm(30)
            outcome = {"p": number, "s": position, "rc": 0}
            try:
                data = getattr(self, step[0])(*step[1:])
                if data is not None:
                    outcome["data"] = data
            except OSError as error:
                outcome["rc"] = error.errno
            outcome["dev"] = self.changes()
            print(json.dumps(outcome, separators=(",", ":")))
            signal.alarm(0)
        sums = {}
        for name, sector, count in program["regions"]:
            data = self.get(self.fd, self.base + sector, count)
            sums[name] = "".join(
                hashlib.sha256(data[at : at + SECTOR]).hexdigest()[:4]
                for at in range(0, len(data), SECTOR)
            )
        for _ in range(10):
            for name in list(self.known):
                with contextlib.suppress(OSError):
                    self.control.call(SUSPEND, name)
                with contextlib.suppress(OSError):
                    self.control.call(REMOVE, name)
                    self.known.remove(name)
        print(json.dumps({"p": number, "sums": sums, "left": self.known}))

    # -- looking ------------------------------------------------------------------------------

    def changes(self):
        found = {}
        for name in self.known:
            shown = self.describe(name)
            if shown != self.shown.get(name):
                found[name] = self.shown[name] = shown
        return found

    def describe(self, name):
        fields, _ = self.control.call(DEV_STATUS, name)
        device = Device(fields)
        flags = [
            word
            for bit, word in (
                (READONLY, "ro"),
                (SUSPENDED, "suspended"),
                (ACTIVE, "live"),
                (INACTIVE, "inactive"),
            )
            if device.flags & bit
        ]
        return [
            " ".join(flags),
            device.open_count,
            self.lines(name, TABLE),
            self.lines(name, TABLE | QUERY_INACTIVE),
            [self.deps(name), self.deps(name, QUERY_INACTIVE)],
            device.event,
            self.lines(name, 0),
        ]

    def lines(self, name, flag):
        fields, data = self.control.call(STATUS, name, flag)
        found, position = [], 0
        for _ in range(fields[5]):
            start, length, _, following, kind = SPEC.unpack_from(data, position)
            text = data[position + SPEC.size :].split(b"\0", 1)[0].decode()
            kind = kind.split(b"\0", 1)[0].decode()
            text = self.named(text)
            if kind == "linear" and text.startswith("disk "):
                text = f"disk {int(text[5:]) - self.base}"
            found.append(f"{start} {length} {kind} {text}")
            position = following
        return found

    def named(self, text):
        return re.sub(r"\b\d+:\d+\b", lambda m: self.names.get(m[0], m[0]), text)

    # -- steps --------------------------------------------------------------------------------

    def create(self, name):
        fields, _ = self.control.call(CREATE, name)
        device = Device(fields)
        self.names[f"{device.major}:{device.minor}"] = name
        self.known.append(name)

    def remove(self, name):
        self.control.call(REMOVE, name)
        self.known.remove(name)
        self.shown.pop(name, None)

    def rename(self, old, new):
        head = new.encode() + b"\0"
        self.control.call(RENAME, old, data=head)
        self.known[self.known.index(old)] = new
        self.shown.pop(old, None)
        self.names = {k: new if v == old else v for k, v in self.names.items()}

    def load(self, name, lines):
        numbers = {v: k for k, v in self.names.items()}
        data = b""
        for start, length, kind, text in lines:
            if kind == "linear" and text.startswith("{disk} "):
                params = f"{self.disk_number} {int(text[7:]) + self.base}"
            else:
                params = re.sub(r"\{([\w.-]+)\}", lambda m: numbers.get(m[1], "99:99"), text)
            raw = params.encode() + b"\0"
            raw += bytes(-len(raw) % 8)
            data += SPEC.pack(start, length, 0, SPEC.size + len(raw), kind.encode()) + raw
        self.control.call(LOAD, name, data=data, targets=len(lines))

    def clear(self, name):
        self.control.call(CLEAR, name)

    def suspend(self, name):
        self.control.call(SUSPEND, name, SUSPENDED | SKIP_LOCKFS)

    def resume(self, name):
        self.control.call(SUSPEND, name)

    def message(self, name, sector, text):
        data = struct.pack("=Q", sector) + text.encode() + b"\0"
        self.control.call(MESSAGE, name, data=data)

    def deps(self, name, flag=0):
        _, data = self.control.call(DEPS, name, flag)
        count = struct.unpack_from("=I", data)[0] if data else 0
        found = []
        for (dev,) in struct.iter_unpack("=Q", data[8 : 8 + 8 * count]):
            minor = (dev & 0xFF) | ((dev >> 12) & 0xFFF00)
            number = f"{(dev >> 8) & 0xFFF}:{minor}"
            found.append(self.names.get(number, number))
        return found

    def opened(self, name):
        number = next((k for k, v in self.names.items() if v == name), None)
        if number is None or name not in self.known:
            raise OSError(errno.ENXIO, "no such device")
        node = "/dev/dm-" + number.split(":")[1]
        if not os.path.exists(node):
            # Until a first table is loaded the kernel shows no node; ulvm answers with EIO.
            raise OSError(errno.EIO, "no table was ever loaded")
        return os.open(node, os.O_RDWR | os.O_DIRECT)

    def put(self, fd, sector, token, count):
        for done in range(0, count, 2048):
            part = min(2048, count - done)
            for n in range(part):
                raw = struct.pack("=Q", token + done + n if token else 0) * (SECTOR // 8)
                self.buffer[n * SECTOR : (n + 1) * SECTOR] = raw
            os.pwritev(fd, [self.view[: part * SECTOR]], (sector + done) * SECTOR)

    def get(self, fd, sector, count):
        found = b""
        while count:
            part = min(2048, count)
            os.preadv(fd, [self.view[: part * SECTOR]], sector * SECTOR)
            found += bytes(self.view[: part * SECTOR])
            sector, count = sector + part, count - part
        return found

    def with_device(self, name, work):
        fd = self.opened(name)
        try:
            return work(fd)
        finally:
            os.close(fd)

    def write(self, name, sector, count, token):
        self.with_device(name, lambda fd: self.put(fd, sector, token, count))

    def read(self, name, sector, count):
        data = self.with_device(name, lambda fd: self.get(fd, sector, count))
        return hashlib.sha256(data).hexdigest()[:24]

    def flush(self, name):
        self.with_device(name, os.fsync)

    def zero(self, name, sector, count):
        span = struct.pack("=QQ", sector * SECTOR, count * SECTOR)
        self.with_device(name, lambda fd: fcntl.ioctl(fd, BLKZEROOUT, span))

    def discard(self, name, sector, count):
        span = struct.pack("=QQ", sector * SECTOR, count * SECTOR)
        self.with_device(name, lambda fd: fcntl.ioctl(fd, BLKDISCARD, span))

    def merged(self, name):
        """Wait for the end of a merge."""
        for _ in range(2000):
            text = "".join(self.lines(name, 0))[-60:].split("merge ")[-1]
            if "/" not in text:
                return text
            used, _, metadata = text.replace("/", " ").split()
            if used == metadata:
                return "merged"
            time.sleep(0.01)
        return "no end"


def main():
    def late(*_):
        raise OSError(errno.ETIMEDOUT, "the step does not end")

    signal.signal(signal.SIGALRM, late)
    assert IOCTL.size == 312
    runner = Runner(sys.argv[2])
    with open(sys.argv[1]) as file:
        programs = json.load(file)
    with open("/dev/console", "w") as console:
        for number, program in enumerate(programs):
            runner.program(number, program)
            if number % 10 == 0:
                console.write(f"judge: program {number}\n")
                console.flush()


main()
