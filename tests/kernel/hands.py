"""The two sides that a life passes between: ulvm, and LVM2 on a kernel in a virtual machine.

Both take the same steps (`tests/kernel/life.py`) on the same four images, fail where a step does
not go as it must, and say what they saw, with the names of disks made alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests import effort
from tests.e2e.host import UlvmHost
from tests.kernel import vm
from tests.kernel.life import (
    BLOCK,
    DATA,
    Away,
    Back,
    Cold,
    Cut,
    Merged,
    Off,
    Read,
    Run,
    Step,
    Warm,
    Write,
)
from ulvm.report.fields import FIELDS

__all__ = ["SEPARATOR", "Kernel", "Seen", "Shown", "Ulvm", "judge_images"]

_MERGED_S = 60
_PE_START = 64 << 10
_EXTENT = 256 << 10
_DRIVES = [f"/dev/vd{letter}" for letter in "abcd"]
_RING = 4096 + 40
"""Where the first metadata area's header tells offset and size of the text in its ring."""


Shown = dict[str, dict[str, list[str]]]
"""By key of a look and by command: lines."""


class Seen(NamedTuple):
    """What came of a turn."""

    shown: Shown
    ring: list[tuple[int, int]]
    """Offset and size of @0's metadata text in its ring, after each command."""
    left: int | None
    """Exceptions that were not merged yet at the cut."""


def _fields(*groups: str) -> str:
    """All but the numbers that the kernel gives to disks and volumes, and what dmeventd tells."""
    left_out = {"pv_major", "pv_minor", "lv_kernel_major", "lv_kernel_minor", "seg_monitor"}
    return ",".join(n for n, f in FIELDS.items() if f.group in groups and n not in left_out)


SEPARATOR = "|"
_PLAIN = f"--noheadings --separator '{SEPARATOR}' --units s --nosuffix"


def _cold(groups: Sequence[str]) -> list[str]:
    names = " ".join(groups)
    return [
        f"vgs {_PLAIN} -o {_fields('vg')} {names}",
        f"pvs {_PLAIN} -o vg_name,{_fields('pv')}",
        f"pvs --segments {_PLAIN} -o pv_name,lv_name,{_fields('pvseg')}",
        f"lvs -a --segments {_PLAIN} -o {_fields('lv', 'seg')} {names}",
    ]


def _warm(groups: Sequence[str]) -> list[str]:
    return [f"lvs -a --segments {_PLAIN} -o {_fields('lv', 'seg')} {' '.join(groups)}"]


def _alike(text: str, names: Sequence[str], others: Sequence[str], gone: set[int]) -> str:
    """With disks as `@0`; what is gone may also go by the name that the other side knew it by."""
    for number in range(len(names)):
        known = [names[number], others[number]] if number in gone else [names[number]]
        for name in known:
            text = re.sub(rf"{re.escape(name)}\b", f"@{number}", text)
    return text


def _said(stdout: str, stderr: str, rc: int) -> list[str]:
    """All that a command said, in an order that does not depend on the names of disks."""
    return [f"exit code {rc}", *sorted(stdout.splitlines()), *sorted(stderr.splitlines())]


def _config_text(text: str) -> list[str]:
    """Of vgcfgbackup: from the group on, without who wrote it where and when."""
    lines = [line.rstrip() for line in text.splitlines()]
    start = next(n for n, line in enumerate(lines) if line.endswith(" {"))
    return lines[start:]


def _numbered(table: str, listed: str) -> list[str]:
    """Lines of `dmsetup table` or `status`, devices by name, disks by order of appearance."""
    names = {number: name for name, number in re.findall(r"(\S+)\s+\((\d+:\d+)\)", listed)}
    disks = 0
    for line in sorted(table.splitlines()):
        for number in re.findall(r"\b\d+:\d+\b", line):
            if number not in names:
                names[number], disks = f"disk {disks}", disks + 1
    return [
        re.sub(r"\b\d+:\d+\b", lambda match: names[match[0]], line)
        for line in sorted(table.splitlines())
    ]


def _compare(found: dict[str, str | None], sums: dict[str, str | None]) -> None:
    wrong = [volume for volume in sums if found[volume] != sums[volume]]
    assert not wrong, f"not what was written: {wrong}; found {found}, expected {sums}"


def _exceptions(images: Sequence[Path], ranges: str) -> int:
    """Records of a snapshot store with 4 KiB chunks up to the terminator, as they are on disk.

    `ranges` are its extents, as in `@1:12-26 @0:3-3`.
    """
    store = bytearray()
    for disk, first, last in re.findall(r"@(\d):(\d+)-(\d+)", ranges):
        with images[int(disk)].open("rb") as file:
            file.seek(_PE_START + int(first) * _EXTENT)
            store += file.read((int(last) + 1 - int(first)) * _EXTENT)
    magic, valid, _, chunk_sectors = struct.unpack_from("<4I", store)
    assert (magic, valid, chunk_sectors) == (0x70416E53, 1, BLOCK // 512), "no snapshot store"
    found = 0
    for area in range(BLOCK, len(store), 257 * BLOCK):
        for _, new in struct.iter_unpack("<QQ", store[area : area + BLOCK]):
            if not new:
                return found
            found += 1
    return found


def judge_images(images: Sequence[Path]) -> None:
    """LVM2's pvck finds nothing to say of headers and metadata."""
    for image in images:
        for what in ("headers", "metadata"):
            done = subprocess.run(
                ["lvm", "pvck", "--dump", what, image],
                capture_output=True,
                text=True,
                env={**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1"},
                check=False,
            )
            assert done.returncode == 0, (image, done)
            said = [line for line in done.stdout.splitlines() if "CHECK" in line]
            assert not said, (image, said)


def away(image: Path) -> Path:
    """Where an image lies while ulvm must not find it."""
    return image.with_suffix(".away")


class Ulvm:
    """ulvm on a host of its own."""

    def __init__(self, host: UlvmHost, images: Sequence[Path]) -> None:
        self.host = host
        self.images = images
        self.gone: set[int] = set()

    def take(self, steps: Sequence[Step]) -> Seen:
        seen = Seen({}, [], None)
        for image in self.images:
            # Those that LVM2 has made PVs of.
            if image.exists() and self._is_pv(image):
                self.host.run(f"devices add {image}")
        for step in steps:
            left = self._take(step, seen)
            if left is not None:
                seen = seen._replace(left=left)
        return seen

    @staticmethod
    def _is_pv(image: Path) -> bool:
        with image.open("rb") as file:
            return file.read(520)[512:] == b"LABELONE"

    def _named(self, command: str) -> str:
        return re.sub(r"@(\d)", lambda match: str(self.images[int(match[1])]), command)

    def _alike(self, text: str) -> str:
        return _alike(text, [str(image) for image in self.images], _DRIVES, self.gone)

    def _take(self, step: Step, seen: Seen) -> int | None:
        match step:
            case Run(command, rc, silent):
                done = self.host.run(self._named(command), rc)
                assert not silent or done.stdout + done.stderr == "", (command, done)
                with self.images[0].open("rb") as file:
                    file.seek(_RING)
                    seen.ring.append(struct.unpack("<QQ", file.read(16)))
                effort.tally("commands in VG lives")
            case Write(volume):
                with self.host.path(volume).open("r+b", buffering=0) as file:
                    for at, content in step.pieces():
                        file.seek(at * BLOCK)
                        assert file.write(content) == len(content)
            case Read(sums):
                _compare({volume: self._digest(volume) for volume in sums}, sums)
            case Merged(groups):
                self._wait_for_merges(groups)
            case Warm(key, groups):
                seen.shown[f"active {key}"] = self._reports(_warm(groups)) | {
                    "dmsetup table": _numbered(
                        self.host.run("dmsetup table").stdout, self.host.run("dmsetup ls").stdout
                    ),
                    "dmsetup status": _numbered(self.host.run("dmsetup status").stdout, ""),
                }
            case Cold(key, groups):
                seen.shown[key] = self._reports(_cold(groups)) | {
                    f"vgcfgbackup {group}": self._config(group) for group in groups
                }
            case Cut(group, snapshot, exceptions):
                return self._cut(group, snapshot, exceptions)
            case Off():
                self.host.run("daemon stop")
            case Away(disk):
                self.gone = {disk}
                if self.images[disk].exists():
                    self.images[disk].rename(away(self.images[disk]))
            case Back():
                self.gone = set()
                for image in self.images:
                    if away(image).exists():
                        away(image).rename(image)
        return None

    def _digest(self, volume: str) -> str | None:
        try:
            return hashlib.sha256(self.host.path(volume).read_bytes()).hexdigest()
        except OSError:
            return None

    def _reports(self, commands: Sequence[str]) -> dict[str, list[str]]:
        found = {}
        for command in commands:
            done = self.host.attempt(command)
            found[command] = _said(self._alike(done.stdout), self._alike(done.stderr), done.rc)
        return found

    def _config(self, group: str) -> list[str]:
        path = self.host.base / "text"
        self.host.run(f"vgcfgbackup -f {path} {group}")
        return _config_text(self._alike(path.read_text()))

    def _wait_for_merges(self, groups: Sequence[str]) -> None:
        end = time.monotonic() + _MERGED_S
        command = f"lvs -a --noheadings -o lv_attr {' '.join(groups)}"
        while any(line.lstrip().startswith("O") for line in self._lines(command)):
            assert time.monotonic() < end, f"a merge has not ended after {_MERGED_S} s"
            time.sleep(0.1)

    def _lines(self, command: str) -> list[str]:
        return self.host.run(command).stdout.splitlines()

    def _cut(self, group: str, snapshot: str, exceptions: int) -> int:
        ranges = self._alike(
            self.host.run(f"lvs --noheadings --segments -o seg_pe_ranges {group}/{snapshot}").stdout
        )
        (origin,) = self._lines(f"lvs --noheadings -o origin {group}/{snapshot}")
        for volume in (snapshot, origin.strip()):
            with self.host.path(f"{group}/{volume}").open("rb") as stream:
                os.fsync(stream)  # What is staged has its exceptions behind a flush.
        found = _exceptions(self.images, ranges)
        assert found == exceptions, f"{found} exceptions on disk, {exceptions} were made"
        # A daemon that dies when it has merged a part; as would the next, which pollers start.
        self.host.run("daemon stop --force")
        self.host.env["ULVM_DAEMON_FAULT_POINT"] = "at=after a batch was merged"
        self.host.run(f"vgchange -ay {group}")
        self.host.attempt(f"lvconvert --background --merge {group}/{snapshot}")
        end = time.monotonic() + _MERGED_S
        while _exceptions(self.images, ranges) == exceptions:
            assert time.monotonic() < end, "the merge does not begin"
        self._power_off()
        del self.host.env["ULVM_DAEMON_FAULT_POINT"]
        return _exceptions(self.images, ranges)

    def _power_off(self) -> None:
        """Nothing of the host goes on, and its run directory is not there when it comes back."""
        setting = f"ULVM_RUN_DIR={self.host.run_dir}".encode()
        while found := list(_processes_with(setting)):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):  # It came to its end by itself.
                    os.kill(pid, signal.SIGKILL)
        tree = str(self.host.run_dir / "dev")
        if f" {tree} " in Path("/proc/self/mounts").read_text():
            subprocess.run(["fusermount3", "-u", "-z", tree], check=True)
        shutil.rmtree(self.host.run_dir)


def _processes_with(setting: bytes) -> Iterator[int]:
    """Processes with this in their environment that are not zombies."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes()
        except OSError:  # Ended since the directory was read, or another user's.
            continue
        if setting in environ.split(b"\0"):
            yield int(entry.name)


class Kernel:
    """LVM2 and device-mapper of Debian, in one boot for each turn."""

    def __init__(self, images: Sequence[Path]) -> None:
        self.images = images

    def take(self, steps: Sequence[Step]) -> Seen:
        self.script: dict[str, str] = {}
        self.checks: list[Callable[[], None]] = []
        self.shown: Shown = {}
        self.gone: set[int] = set()
        cut = None
        for step in steps:
            self._say(step)
            if isinstance(step, Cut):
                cut = step
        ring = self._command("ring", "cat /tmp/ring")
        drives = [image if image.exists() else away(image) for image in self.images]
        self.outcomes = vm.run(self.script, drives, timeout=600, files={"data": DATA})
        for check in self.checks:
            check()
        left = None
        if cut is not None:
            left = _exceptions(drives, self._alike(self._outcome(self.ranges).stdout, set()))
        places = [int(word) for word in self._outcome(ring).stdout.split()]
        return Seen(self.shown, list(zip(places[::2], places[1::2], strict=True)), left)

    def _named(self, command: str) -> str:
        return re.sub(r"@(\d)", lambda match: _DRIVES[int(match[1])], command)

    def _alike(self, text: str, gone: set[int]) -> str:
        return _alike(text, _DRIVES, [str(image) for image in self.images], gone)

    def _lvm(self, command: str) -> str:
        name, _, rest = self._named(command).partition(" ")
        seen = "".join(letter for n, letter in enumerate("abcd") if n not in self.gone)
        config = f'devices/filter=["a|^/dev/vd[{seen}]$|","r|.*|"] activation/polling_interval=1'
        return f"lvm {name} --config '{config}' {rest}"

    def _command(self, what: str, command: str) -> str:
        key = f"{len(self.script)} {what}"
        self.script[key] = command
        return key

    def _outcome(self, key: str, rc: int | None = 0) -> vm.Outcome:
        outcome = self.outcomes[key]
        assert rc is None or outcome.rc == rc, (
            f"{outcome.command}: exit code {outcome.rc}\n{outcome.stdout[-2000:]}{outcome.stderr}"
        )
        return outcome

    def _say(self, step: Step) -> None:
        match step:
            case Run(command, rc, silent):
                self._run(command, rc, silent)
            case Write(volume, at, blocks, source, every, times):
                key = self._command(
                    f"{step}",
                    f"i=0; while [ $i -lt {times} ]; do dd if=/files/data of=/dev/{volume} "
                    f"bs={BLOCK} seek=$(({at} + i * {every})) count={blocks} "
                    f"skip=$((({source} + i * {blocks}) % 1024)) conv=notrunc || exit 1; "
                    "i=$((i + 1)); done; sync",
                )
                self.checks.append(lambda: self._outcome(key) and None)
            case Read(sums):
                keys = {v: self._command(f"sum {v}", f"sha256sum </dev/{v}") for v in sums}
                self.checks.append(lambda: self._compare(keys, sums))
            case Merged(groups):
                attributes = self._lvm(f"lvs -a --noheadings -o lv_attr {' '.join(groups)}")
                key = self._command(
                    "merged",
                    f"for n in $(seq {_MERGED_S}); do found=$({attributes}) || exit 2; "
                    'echo "$found" | grep -q "^ *O" || exit 0; sleep 1; done; exit 1',
                )
                self.checks.append(lambda: self._outcome(key) and None)
            case Warm(key, groups):
                self._look(f"active {key}", _warm(groups), ())
                words = {w: self._command(w, f"dmsetup {w}") for w in ("table", "ls", "status")}
                self.checks.append(lambda: self._devices(f"active {key}", words))
            case Cold(key, groups):
                self._look(key, _cold(groups), groups)
            case Cut():
                self._cut(step)
            case Away(disk):
                self.gone = {disk}
            case Back():
                self.gone = set()

    def _run(self, command: str, rc: int, silent: bool) -> None:
        key = self._command(command, self._lvm(command))
        self._command(
            f"ring after {command}",
            "dd if=/dev/vda bs=512 skip=8 count=1 iflag=direct 2>/dev/null | "
            "od -An -tu8 -j40 -N16 >>/tmp/ring",
        )

        def check() -> None:
            done = self._outcome(key, rc)
            assert not silent or done.stdout + done.stderr == "", done
            effort.tally("commands in VG lives")

        self.checks.append(check)

    def _compare(self, keys: dict[str, str], sums: dict[str, str | None]) -> None:
        found = {}
        for volume, key in keys.items():
            outcome = self._outcome(key, None)
            found[volume] = None if outcome.rc else outcome.stdout.split()[0]
        _compare(found, sums)

    def _look(self, key: str, reports: Sequence[str], texts: Sequence[str]) -> None:
        keys = {report: self._command(report, self._lvm(report)) for report in reports}
        backups = {
            group: self._command(
                f"text of {group}",
                self._lvm(f"vgcfgbackup -f /tmp/text {group}") + " >/dev/null && cat /tmp/text",
            )
            for group in texts
        }

        gone = self.gone

        def check() -> None:
            shown = self.shown.setdefault(key, {})
            for report, place in keys.items():
                done = self._outcome(place, None)
                said = self._alike(done.stdout, gone), self._alike(done.stderr, gone)
                shown[report] = _said(*said, done.rc)
            for group, place in backups.items():
                text = self._alike(self._outcome(place).stdout, gone)
                shown[f"vgcfgbackup {group}"] = _config_text(text)

        self.checks.append(check)

    def _devices(self, key: str, words: dict[str, str]) -> None:
        said = {word: self._outcome(place).stdout for word, place in words.items()}
        self.shown[key]["dmsetup table"] = _numbered(said["table"], said["ls"])
        self.shown[key]["dmsetup status"] = _numbered(said["status"], "")

    def _cut(self, cut: Cut) -> None:
        """The machine is powered off in the midst of a merge that copies as slowly as can be."""
        name = f"{cut.group}/{cut.snapshot}"
        self.ranges = self._command(
            "ranges", self._lvm(f"lvs --noheadings --segments -o seg_pe_ranges {name}")
        )
        throttle = "/sys/module/dm_snapshot/parameters/snapshot_copy_throttle"
        # Used sectors are the first number of either target's status.
        used = "dmsetup status {} | sed 's/.* \\([0-9]*\\)\\/.*/\\1/'"
        begun = self._command(
            "cut",
            f"echo 1 >{throttle} && "
            f"first=$({used.format(name.replace('/', '-'))}) && "
            + self._lvm(f"lvconvert --background --merge {name}")
            # What is no number is no progress.
            + f' && until [ "$({used.format("--target snapshot-merge")})" -lt "$first" ]'
            + " 2>/dev/null; do :; done",
        )
        self.checks.append(lambda: self._outcome(begun) and None)
