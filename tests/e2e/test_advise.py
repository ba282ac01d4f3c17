"""What size a snapshot needs: told from a live origin, and held against a snapshot of that size."""

from __future__ import annotations

import json
import os
import random

from tests import needs
from tests.e2e.host import UlvmHost

pytestmark = needs.fuse

MIB = 1 << 20


def write(host: UlvmHost, chunks: list[int]) -> None:
    with host.path("vg/lv").open("r+b", buffering=0) as file:
        for chunk in chunks:
            file.seek(chunk * 4096)
            file.write(os.urandom(4096))


def test_a_snapshot_of_the_size_advised_holds_what_was_measured(host: UlvmHost) -> None:
    host.run(f"vgcreate -s 64k vg {host.image('d.img', '128M')}")
    host.run("lvcreate -y -n lv -L 64M vg")
    rng = random.Random(1)
    chunks = [rng.randrange(64 * MIB // 4096) for _ in range(300)]
    measured = host.start("advise vg/lv --for 3s --measure 3s --json")
    while measured.poll() is None:
        write(host, chunks)
    assert measured.stdout is not None
    found = json.loads(measured.stdout.read())
    assert found["changed"] == len(set(chunks)) * 4096
    first = found["chunks"][0]
    assert first["chunk_size"] == 4096
    assert first["expected"] <= first["95"] <= first["99"]
    # With room for the store's header, and not for more than the last extent and the doubt.
    assert found["changed"] < first["expected"] <= found["changed"] + 3 * 65536

    host.run(f"lvcreate -s -n snap -c 4k -L {first['expected']}b vg/lv")
    write(host, chunks)
    full = float(host.run("lvs --noheadings -o snap_percent vg/snap").stdout)
    assert 90 < full <= 100
    host.run("lvs vg/snap")
    assert host.run("lvs --noheadings -o lv_attr vg/snap").stdout.split() == ["swi-a-s---"]


def test_for_people(host: UlvmHost) -> None:
    host.run(f"vgcreate vg {host.image('d.img', '128M')}")
    host.run("lvcreate -y -n lv -L 64M vg")
    said = host.run("advise vg/lv --for 2h --measure 0.5s").stdout
    assert "Size of a snapshot that is to live 2 h:" in said
    assert "lvcreate -s -l 1 -c 512k -n NAME vg/lv" in said
    host.run("lvcreate -s -n snap -L 8M vg/lv")
    assert "its origin is lv" in host.run("advise vg/snap", rc=5).stderr
    for words in ("--for soon", "--measure 999999999d"):
        said = host.run(f"advise vg/lv {words}", rc=3).stderr
        assert "Invalid argument for {}: {}".format(*words.split()) in said
    host.run("lvcreate -an -n off -L 4M vg")
    assert "is not active" in host.run("advise vg/off", rc=5).stderr
