"""Types the commands of scripts and looks at the disks: `python3 runner.py JOB`.

Standard library only, and nothing of ulvm: this file runs in the virtual machine too. JOB is a JSON
file: {"disks": {name: bytes}, "scripts": {name: [step, ...]}}, a step as `script` makes it. One
JSON line a step on standard output: the exit code, what was printed, and what the disks hold where
that has changed. The structures on a disk are those of the format's document: label_header,
pv_header, mda_header, raw_locn.
"""

import fcntl
import json
import os
import shutil
import signal
import struct
import sys
import time
import traceback

TIMEOUT = 120
DEV = "/dev"
# As far as a disk is cloned: further than any metadata lie.
HEAD = 4 << 20
BLKDISCARD = 0x1277
_SECTOR = 512
_ID = (6, 4, 4, 4, 4, 4, 6)


class Late(Exception):
    """A command did not end."""


class Runner:
    """LVM2 in the machine; a subclass is ulvm. One script after the other."""

    config = "/etc/lvm/lvm.conf"
    archive = "/etc/lvm/archive"
    backup = "/etc/lvm/backup"

    def __init__(self, disks):
        self.disks = disks
        self.held = {}
        self.away = set()

    # -- a script ---------------------------------------------------------------------------------

    def script(self, steps):
        """Outcomes of the steps, from empty disks on."""
        self.start()
        self.shown = None
        try:
            for number, step in enumerate(steps):
                try:
                    rc, out, err = self.step(step)
                except Late:
                    rc, out, err = -1, "", "the step does not end\n"
                except OSError as error:
                    rc, out, err = -2, "", f"{error.strerror}\n"
                outcome = {"n": number, "rc": rc, "out": out, "err": err}
                if "253:" in out or "253, " in out:
                    outcome["names"] = self.names()
                disks = self.shown if step.get("goes_on") else self.look()
                if disks != self.shown:
                    outcome["disks"] = self.shown = disks
                yield outcome
        finally:
            self.stop()

    def step(self, step):
        kind, *rest = step["words"]
        if not kind.startswith("!"):
            return self.command(step["words"], step.get("env", {}), step.get("input"))
        out = getattr(self, f"do_{kind[1:]}")(*rest)
        return 0, out or "", ""

    def start(self):
        """Empty disks, empty directories, nothing active."""
        for folder in (self.archive, self.backup):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
        self.write_config("")
        self.clear()

    def stop(self):
        """Nothing is active or held any more."""
        for name in list(self.held):
            self.do_close(name)
        for name in list(self.away):
            self.do_show(name)
        # What stands on others goes first.
        for _ in range(6):
            self.command(["dmsetup", "remove_all", "--force"], {}, None)
        self.command(["dmsetup", "mknodes"], {}, None)
        # LVM's links to what is gone; a group of that name could not be made.
        for folder in os.scandir(DEV):
            if folder.is_dir(follow_symlinks=False):
                links = [link.path for link in os.scandir(folder) if link.is_symlink()]
                if links and not any(map(os.path.exists, links)):
                    shutil.rmtree(folder.path)

    def clear(self):
        for name, size in self.disks.items():
            fd = os.open(f"{DEV}/{name}", os.O_RDWR)
            # A file lies below, in which what is discarded is zero.
            fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", 0, size // _SECTOR * _SECTOR))
            os.close(fd)

    def write_config(self, more):
        with open(self.config, "w") as file:
            file.write(BASE_CONFIG + more)

    # -- commands ---------------------------------------------------------------------------------

    def command(self, words, env, text):
        """(exit code, stdout, stderr) of a command."""
        with open("in", "w") as file:
            file.write(text or "")
        child = os.fork()
        if child == 0:
            try:
                for fd, name, flags in (
                    (0, "in", os.O_RDONLY),
                    (1, "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                    (2, "err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                ):
                    opened = os.open(name, flags)
                    os.dup2(opened, fd)
                    os.close(opened)
                os.environ.update(env)
                self.become(words)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(99)
        signal.alarm(TIMEOUT)
        try:
            status = os.waitpid(child, 0)[1]
        except Late:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        finally:
            signal.alarm(0)
        return os.waitstatus_to_exitcode(status), slurp("out"), slurp("err")

    def names(self):
        """Names of the dm devices under their minor numbers."""
        words = ["dmsetup", "info", "-c", "--noheadings", "--separator", "/", "-o", "minor,name"]
        lines = self.command(words, {}, None)[1].splitlines()
        return dict(line.split("/", 1) for line in lines if "/" in line)

    def become(self, words):
        """Be that program; does not come back."""
        path = "/sbin/dmsetup" if words[0] == "dmsetup" else "/sbin/lvm"
        os.execv(path, words)

    def volume(self, name):
        """The path of an active `vg/lv`."""
        return f"/dev/{name}"

    def disk(self, name):
        """The path of a disk, also while it is away."""
        return f"{DEV}/.{name}" if name in self.away else f"{DEV}/{name}"

    # -- what a step starting with ! does ---------------------------------------------------------

    def do_config(self, *words):
        """Further settings, in LVM's grammar; none: those of the beginning."""
        self.write_config(" ".join(words) + "\n")

    def do_open(self, name):
        """Hold a volume open for reading."""
        self.held[name] = os.open(self.volume(name), os.O_RDONLY)

    def do_close(self, name):
        os.close(self.held.pop(name, -1))

    def do_write(self, name, start, length):
        """Write `length` bytes that are not zero at `start`, and flush."""
        fd = os.open(self.volume(name), os.O_RDWR)
        try:
            os.pwrite(fd, b"ulvm" * (int(length) // 4), int(start))
            os.fsync(fd)
        finally:
            os.close(fd)

    def do_sum(self, name):
        """How many of its 4-KiB blocks are zero, and how many are not."""
        zero = other = 0
        with open(self.volume(name), "rb", buffering=0) as file:
            while block := file.read(4096):
                zero, other = (zero + 1, other) if not any(block) else (zero, other + 1)
        return f"{zero} {other}\n"

    def do_put(self, disk, start, data):
        """Write bytes, given as hexadecimal digits, on a disk."""
        fd = os.open(f"{DEV}/{disk}", os.O_RDWR)
        try:
            os.pwrite(fd, bytes.fromhex(data), int(start))
            os.fsync(fd)
        finally:
            os.close(fd)

    def do_get(self, disk, start, length):
        fd = os.open(f"{DEV}/{disk}", os.O_RDONLY)
        try:
            return os.pread(fd, int(length), int(start)).hex() + "\n"
        finally:
            os.close(fd)

    def do_copy(self, source, target):
        """The first megabytes of one disk onto another, as of a cloned image."""
        fd = os.open(f"{DEV}/{source}", os.O_RDONLY)
        data = os.pread(fd, HEAD, 0)
        os.close(fd)
        self.do_put(target, 0, data.hex())

    def do_hide(self, disk):
        """The disk is unplugged."""
        os.rename(f"{DEV}/{disk}", f"{DEV}/.{disk}")
        self.away.add(disk)

    def do_show(self, disk):
        os.rename(f"{DEV}/.{disk}", f"{DEV}/{disk}")
        self.away.discard(disk)

    def do_backup(self, group):
        """The backup file of a group."""
        path = f"{self.backup}/{group}"
        return slurp(path) if os.path.exists(path) else "no file\n"

    def do_archives(self):
        """Archived files with their descriptions, in their order; a command's own as one, since
        it archives as often as it commits."""
        lines = []
        for name in sorted(os.listdir(self.archive)):
            text = slurp(f"{self.archive}/{name}")
            said = [line for line in text.splitlines() if line.startswith("description")]
            lines.append(f"{name.rsplit('_', 1)[0]} {' '.join(said)}\n")
        return "".join(line for n, line in enumerate(lines) if line != lines[n - 1] or not n)

    def do_merged(self, *_):
        """Wait until nothing is merging, by the metadata, and these stay as they are: a volume
        that was merged is removed after that."""
        before, still = None, 0
        for _ in range(600):
            texts = self.look()["texts"]
            merging = any("merging_store" in text for text in texts)
            still = still + 1 if texts == before and not merging else 0
            if still == 20:
                return
            before = texts
            time.sleep(0.1)
        raise Late

    # -- looking ----------------------------------------------------------------------------------

    def look(self):
        """{"disks": {name: a line on its PV}, "texts": [metadata, ...]}, a text once each."""
        disks, texts = {}, []
        for name in self.disks:
            fd = os.open(self.disk(name), os.O_RDONLY)
            try:
                line, found = look_at(fd)
            finally:
                os.close(fd)
            if line:
                disks[name] = line
            texts += [text for text in found if text not in texts]
        return {"disks": disks, "texts": texts}


BASE_CONFIG = """\
activation {
    udev_sync = 0
    udev_rules = 0
    monitoring = 0
    verify_udev_operations = 0
}
devices {
    use_devicesfile = 0
    obtain_device_list_from_udev = 0
    hints = "none"
    dir = "/dev"
    scan = [ "/dev" ]
    global_filter = [ "a|^/dev/vd[a-h]$|", "a|^/dev/mapper/|", "r|.*|" ]
}
global {
    event_activation = 0
    use_lvmpolld = 0
}
"""


def look_at(fd):
    """(line on the PV or nothing, texts of its metadata areas)."""
    head = os.pread(fd, 4 * _SECTOR, 0)
    for sector in range(4):
        label = head[sector * _SECTOR : (sector + 1) * _SECTOR]
        if label[:8] == b"LABELONE":
            break
    else:
        return "", []
    offset = struct.unpack_from("<I", label, 20)[0]
    uuid, size = struct.unpack_from("<32sQ", label, offset)
    at = offset + 40
    areas = []
    for _ in range(2):
        areas.append([])
        while True:
            start, length = struct.unpack_from("<QQ", label, at)
            at += 16
            if not start:
                break
            areas[-1].append((start, length))
    data, metadata = areas
    version, flags = struct.unpack_from("<II", label, at)
    boot = struct.unpack_from("<QQ", label, at + 8)
    words = [f"label {sector} {dashed(uuid.decode())} size {size} version {version} flags {flags}"]
    words += [f"data {start}+{length}" for start, length in data]
    words += [f"boot {boot[0]}+{boot[1]}"] if boot[0] else []
    texts = []
    for start, length in metadata:
        ignored, text = area(fd, start, length)
        words.append(f"mda {start}+{length}{' ignored' if ignored else ''}")
        words.append(f"holds {text.split(maxsplit=1)[0]}" if text else "empty")
        texts += [text] if text else []
    return " ".join(words), texts


def area(fd, start, length):
    """(whether the area is ignored, its text)."""
    header = os.pread(fd, _SECTOR, start)
    offset, size, _, flags = struct.unpack_from("<QQII", header, 40)
    if header[4:20] != b" LVM2 x[5A%r0N*>":
        return False, "damaged"
    if not offset:
        return bool(flags & 1), ""
    text = os.pread(fd, min(size, length - offset), start + offset)
    text += os.pread(fd, size - len(text), start + _SECTOR)
    return bool(flags & 1), text.rstrip(b"\0").decode(errors="replace")


def dashed(uuid):
    parts = []
    for length in _ID:
        parts.append(uuid[:length])
        uuid = uuid[length:]
    return "-".join(parts)


def slurp(path):
    with open(path, errors="replace") as file:
        return file.read()


def late(*_):
    raise Late


def run(kind, job):
    """All scripts of the job; the outcomes go to standard output."""
    signal.signal(signal.SIGALRM, late)
    with open(job) as file:
        wanted = json.load(file)
    runner = kind(wanted["disks"])
    for name, steps in wanted["scripts"].items():
        print(f"judge: {name}", file=sys.stderr, flush=True)
        for outcome in runner.script(steps):
            print(json.dumps({"script": name, **outcome}), flush=True)


if __name__ == "__main__":
    run(Runner, sys.argv[1])
