"""Disks whose checksums are right and whose content is not: a stranger's, or one made to harm.

A flipped bit is caught by a CRC. Here the CRCs are made anew after each mutation, so that what
reads the metadata area, the PV header and the text meets it. All that looks at a host runs over
such disks, and so does activation; only errors of our own may come out, reading writes nothing,
and no table leads outside its PV.
"""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from tests import effort
from tests.fuzz.mutate import mutate, mutate_values
from tests.fuzz.test_hostile import in_time
from tests.unit.lvm.lab import KIB, Lab
from ulvm.cli.main import main
from ulvm.errors import UlvmError
from ulvm.lvm import lv, snapshot, vg_activation
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.mda import MDA_HEADER_SIZE, MdaHeader, RawLocn, ring_parts, ring_write
from ulvm.units import SECTOR
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import scan

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

AREA = 4096
"""Bytes from the start of a PV to its metadata area."""
LABEL = slice(512, 1024)
LOOKS = (
    "lvs -a -o +all", "lvs --segments -o +all,seg_all", "vgs -o +all", "pvs -a -o +all",
    "pvs --segments -o +pvseg_all", "lvs -o name --select size>1m --sort -size --reportformat json",
    "lvdisplay -m", "lvdisplay -c", "vgdisplay -v", "vgdisplay -c", "pvdisplay -m", "pvdisplay -c",
    "vgck", "pvscan", "vgscan", "lvscan -a",
)  # fmt: skip
"""What only looks."""

Change = Callable[[Random], dict[str, bytes]]
"""The images of one case."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    lv.create(made.session, "vg", "base", extents=4)
    snapshot.create(made.session, "vg", "base", "snap", extents=2, chunk_size=8)
    lv.create(made.session, "vg", "wide", extents=4, stripes=2, stripe_size=8)
    made.write("base", 0, b"x" * 64 * KIB)
    yield made
    made.mapper.shutdown()


def text_of(image: bytes) -> bytes:
    """The committed text of a PV, without its NUL."""
    header = MdaHeader.unpack(image[AREA : AREA + MDA_HEADER_SIZE], start=AREA)
    locn = header.committed
    parts = ring_parts(header.size, locn.offset, locn.size)
    return b"".join(image[AREA + at : AREA + at + size] for at, size in parts).rstrip(b"\0")


def with_text(image: bytes, text: bytes) -> bytes:
    """The PV with another committed text and the CRCs that belong to it."""
    header = MdaHeader.unpack(image[AREA : AREA + MDA_HEADER_SIZE], start=AREA)
    text += b"\0"
    assert len(text) <= header.size - MDA_HEADER_SIZE
    found = bytearray(image)
    for at, data in ring_write(header.size, MDA_HEADER_SIZE, text):
        found[AREA + at : AREA + at + len(data)] = data
    new = header.with_commit(RawLocn.of_text(MDA_HEADER_SIZE, text)).pack()
    found[AREA : AREA + len(new)] = new
    return bytes(found)


def with_crc(sector: bytes, at: int, begin: int) -> bytes:
    """A sector whose CRC, at `at`, is made anew over what follows `begin`."""
    sector = sector[:SECTOR].ljust(SECTOR, b"\0")
    return sector[:at] + struct.pack("<L", lvm_crc(sector[begin:])) + sector[at + 4 :]


def know(host: Host, paths: Iterable[Path]) -> None:
    """Put disks into the devices file of a host."""
    host.devices_file.parent.mkdir(parents=True)
    lines = [f"IDTYPE=devname IDNAME={p} DEVNAME={p} PVID=. PART=0\n" for p in paths]
    host.devices_file.write_text("".join(lines))


class Disks:
    """The PVs of a lab as files on a host of their own, and the commands over them."""

    def __init__(
        self, lab: Lab, folder: Path, system_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder = folder
        self.good = {Path(path).name: image for path, image in lab.contents().items()}
        for name, image in self.good.items():
            (folder / name).write_bytes(image)
        monkeypatch.setenv("ULVM_SYSTEM_DIR", str(system_dir))
        monkeypatch.setenv("ULVM_RUN_DIR", str(folder / "run"))
        self.host = Host(system_dir, folder / "run")
        know(self.host, [folder / name for name in self.good])
        assert len(scan(self.host).pvs) == len(self.good), "the commands see no disks"

    def put(self, images: dict[str, bytes]) -> None:
        for name, image in images.items():
            (self.folder / name).write_bytes(image)

    def look(self, images: dict[str, bytes], commands: tuple[str, ...]) -> Counter[int]:
        """Every command over the disks; how many ended with which exit code."""
        self.put(images)
        before = sorted(self.folder.rglob("*"))
        ends: Counter[int] = Counter()
        for command in commands:
            out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
            with in_time(), redirect_stdout(out), redirect_stderr(io.StringIO()):
                ends[main(command.split())] += 1
            assert set(ends) <= {0, 5}, f"{command}: {ends}"
        for name, image in images.items():
            assert (self.folder / name).read_bytes() == image, f"{name} was written to"
        assert sorted(self.folder.rglob("*")) == before, "a file was made"
        return ends


@pytest.fixture
def disks(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    folder = tmp_path / "disks"
    folder.mkdir()
    return Disks(lab, folder, tmp_path / "system", monkeypatch)


def run(disks: Disks, what: str, short: int, long: int, change: Change) -> None:
    choose = effort.rng("disks", what)
    ends: Counter[int] = Counter()
    for number in range(effort.amount(short, long)):
        images = change(choose)
        commands = LOOKS if number % 8 == 0 else tuple(choose.sample(LOOKS, 3))
        try:
            ends += disks.look(images, commands)
        except BaseException as error:
            shown = {n: text_or_head(i) for n, i in images.items()}
            raise AssertionError(
                f"ULVM_SEED={effort.SEED} {what} {number}: {error!r}: {shown}"
            ) from error
        effort.tally(f"hostile disks: {what}")
    effort.tally(f"hostile disks: {what}: commands", ends.total())
    assert ends[0], "nothing could be shown: these mutations reach nothing"


def text_or_head(image: bytes) -> bytes:
    with suppress(UlvmError):
        return text_of(image)
    return image[: AREA + MDA_HEADER_SIZE].rstrip(b"\0")


def test_texts_with_the_right_checksum(disks: Disks) -> None:
    """The same text on all PVs, as a commit leaves it, or another on each."""
    text = text_of(disks.good["a"])

    def change(choose: Random) -> dict[str, bytes]:
        changed = {}
        one = mutate_values(choose, text) if choose.random() < 0.9 else mutate(choose, text)
        for name, image in disks.good.items():
            new = one if choose.random() < 0.9 else mutate_values(choose, text)
            changed[name] = with_text(image, new[:30000])
        return changed

    run(disks, "texts", 120, 2_400, change)


def test_pv_headers_with_the_right_checksum(disks: Disks) -> None:
    def change(choose: Random) -> dict[str, bytes]:
        image = disks.good["a"]
        sector = bytearray(image[LABEL])
        if choose.random() < 0.5:
            # One number of the PV header: size, areas, extension.
            at = 32 + 32 + 8 * choose.randrange(12)
            number = choose.choice([0, 1, 511, 512, 4096, 1 << 20, 1 << 40, 1 << 63, (1 << 64) - 1])
            sector[at : at + 8] = struct.pack("<Q", number)
        else:
            sector[32:] = mutate(choose, bytes(sector[32:200])).ljust(480, b"\0")[:480]
        new = image[:512] + with_crc(bytes(sector), 16, 20) + image[1024:]
        return {**disks.good, "a": new}

    run(disks, "PV headers", 60, 1_200, change)


def test_area_headers_with_the_right_checksum(disks: Disks) -> None:
    """Places, sizes and flags of texts; where they point, the CRC of the text is right, too."""
    numbers = (0, 1, 511, 512, 513, 4096, 1 << 16, 1 << 21, 1 << 32, 1 << 48, (1 << 64) - 1)

    def change(choose: Random) -> dict[str, bytes]:
        image = disks.good["a"]
        header = MdaHeader.unpack(image[AREA : AREA + MDA_HEADER_SIZE], start=AREA)
        slots = [header.committed, header.precommitted]
        size = choose.choice(numbers) if choose.random() < 0.3 else header.size
        which = choose.randrange(2)
        slot = slots[which]
        offset = choose.choice(numbers) if choose.random() < 0.6 else slot.offset
        length = choose.choice(numbers) if choose.random() < 0.6 else slot.size
        inside = b""
        if max(offset, length) < len(image) and size >= offset:
            parts = ring_parts(size, offset, length)
            inside = b"".join(image[AREA + at : AREA + at + n] for at, n in parts)
        flags = choose.choice([0, 0, 1, 2, (1 << 32) - 1])
        slots[which] = RawLocn(offset, length, lvm_crc(inside), flags)
        packed = MdaHeader(AREA, size, *slots).pack()
        return {**disks.good, "a": image[:AREA] + packed + image[AREA + len(packed) :]}

    run(disks, "area headers", 60, 1_200, change)


def test_what_is_activated_from_a_hostile_text(lab: Lab, tmp_path: Path) -> None:
    """It is refused, or every table stays within the device that its PV is."""
    for name in ("snap", "base", "wide"):
        lv.deactivate(lab.session, "vg", name)
    good = {Path(p).name: image for p, image in lab.contents().items()}
    text = text_of(good["a"])
    choose = effort.rng("disks", "activation")
    active = 0
    for number in range(effort.amount(80, 1_600)):
        new = mutate_values(choose, text)
        folder = tmp_path / f"{number}"
        folder.mkdir()
        images = {str(folder / n): with_text(i, new[:30000]) for n, i in good.items()}
        other = Lab(folder, names=tuple(good), images=images)
        know(other.host, map(Path, images))
        try:
            with in_time():
                for group in scan(other.host).vgs:
                    with suppress(UlvmError):
                        vg_activation.activate(other.session, group.name)
                check_tables(other)
                for device in other.mapper.all_mapped():
                    active += device.size > 0
                    with suppress(UlvmError):
                        device.read(0, min(device.size, 64 * KIB))
        except BaseException as error:
            raise AssertionError(
                f"ULVM_SEED={effort.SEED} activation {number}: {error!r}: {new!r}"
            ) from error
        finally:
            other.mapper.shutdown()
        for path, image in images.items() if new.count(b"pe_start = 88\n") == 2 else ():
            # A new COW store is given its header; what lies before the extents stays.
            assert other.contents()[path][: 64 * KIB] == image[: 64 * KIB], "metadata were written"
        effort.tally("hostile disks: activations")
    effort.tally("hostile disks: devices that came up", active)
    assert active


def check_tables(lab: Lab) -> None:
    sizes = {path: device.size // SECTOR for path, device in lab.devices.items()}
    for _, _, lines in lab.tables():
        for line in lines:
            _, length, kind, *words = line.split()
            for path, at in pairwise(words):
                if path in sizes:
                    assert kind in ("linear", "striped"), line
                    share = int(length) if kind == "linear" else int(length) // int(words[0])
                    assert int(at) + share <= sizes[path], f"{line}: behind the end"


def test_times_that_no_calendar_has(disks: Disks) -> None:
    text = text_of(disks.good["a"])
    stamp = next(line for line in text.split(b"\n") if b"creation_time" in line)
    for number in (0, 1 << 40, (1 << 63) - 1, int(time.time())):
        new = text.replace(stamp, b"creation_time = %d" % number)
        looks = (*LOOKS, "lvs -S lv_time>2020", "lvs -O lv_time")
        ends = disks.look({n: with_text(i, new) for n, i in disks.good.items()}, looks)
        assert ends[0] == len(looks)


def test_words_that_are_not_utf8(disks: Disks) -> None:
    """They are shown as they are, as a name of a file would be."""
    text = text_of(disks.good["a"])
    (host,) = set(re.findall(rb'\ncreation_host = "[^"]+"', text.partition(b"logical_volumes")[2]))
    new = text.replace(host, b'\ncreation_host = "a\xffb"')
    disks.put({n: with_text(i, new) for n, i in disks.good.items()})
    words = [sys.executable, "-m", "ulvm.cli.start", "lvs", "-o", "lv_host"]
    done = subprocess.run(
        words,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"a\xffb" in done.stdout, done
