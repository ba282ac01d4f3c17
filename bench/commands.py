"""How long commands take to start and to list: each as a new process, as from a shell.

"Cold" means a new interpreter that must import what it needs, with the files in the page cache; an
interpreter that has to come from the disk first measures the disk.
"""

from __future__ import annotations

import os
import random
import string
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.bed import MIB, Bed
from bench.host import Host, hosting
from bench.model import Goal, Measured, Sample, turns
from bench.own import OwnRow, median_seconds

__all__ = ["COMMANDS"]

_TIMES = 5
"""Of a command in one round; the sample is their median."""
_VOLUMES = 1000


@contextmanager
def _group(bed: Bed, volumes: int) -> Iterator[Host]:
    """A host with a volume group of so many volumes, the first of them active."""
    with ExitStack() as stack:
        image = stack.enter_context(bed.sparse((volumes * 4 + 64) * MIB))
        host = stack.enter_context(hosting(bed))
        host.ulvm(f"pvcreate -q {image}")
        host.ulvm(f"vgcreate -q b {image}")
        host.ulvm("lvcreate -q -n lv0 -l 1 b")
        if volumes > 1:
            _multiply(host, bed.fresh(".vg"), volumes)
        host.ulvm("lvs b")
        yield host


def _multiply(host: Host, path: Path, volumes: int) -> None:
    """Give the group its volumes by its metadata, which is quicker than by a thousand commands."""
    host.ulvm(f"vgcfgbackup -q -f {path} b")
    text = path.read_text()
    begin = text.index("\t\tlv0 {")
    end = text.index("\n\t\t}\n", begin) + len("\n\t\t}\n")
    one = text[begin:end]
    old_id = one.partition('id = "')[2].partition('"')[0]
    rng = random.Random(1)
    letters = string.ascii_letters + string.digits
    more = []
    for number in range(1, volumes):
        new = "".join(rng.choices(letters, k=32))
        uuid = "-".join((new[:6], *(new[at : at + 4] for at in range(6, 26, 4)), new[26:]))
        volume = one.replace("\t\tlv0 {", f"\t\tlv{number} {{").replace(old_id, uuid)
        more.append(volume.replace('"pv0", 0', f'"pv0", {number}'))
    path.write_text(text[:end] + "\n" + "\n".join(more) + text[end:])
    host.ulvm("vgchange -q -an b")
    host.ulvm(f"vgcfgrestore -q -f {path} b")
    host.ulvm("lvchange -q -ay b/lv0")
    path.unlink()


def _time(host: Host, command: str) -> Sample:
    return Sample(median_seconds(Host.words(command), host.environment, _TIMES))


def _small(bed: Bed) -> Measured:
    with _group(bed, 1) as host:
        trials = {
            "ulvm lvs": lambda: _time(host, "lvs"),
            "ulvm vgs": lambda: _time(host, "vgs"),
            "ulvm pvs": lambda: _time(host, "pvs"),
            "python -c pass": lambda: Sample(
                median_seconds([Host.words("")[0].replace("ulvm", "python"), "-c", "pass"],
                               os.environ, _TIMES)
            ),
        }  # fmt: skip
        return turns(bed.rounds, trials, bed.told)


def _many(bed: Bed) -> Measured:
    with _group(bed, _VOLUMES) as many, _group(bed, 100) as fewer, _group(bed, 10) as few:
        trials = {
            "1,000 LVs": lambda: _time(many, "lvs"),
            "100 LVs": lambda: _time(fewer, "lvs"),
            "10 LVs": lambda: _time(few, "lvs"),
        }
        return turns(bed.rounds, trials, bed.told)


COMMANDS = [
    OwnRow(
        "start-up",
        "lvs of a small VG, cold",
        "s",
        _small,
        (Goal("at most 150 ms", 0.150, False),),
    ),
    OwnRow("list-1000", "lvs of a VG of 1,000 LVs", "s", _many),
]
