"""A PV that is gone for good, and one that comes back (vgreduce(8), vgextend(8))."""

from __future__ import annotations

import pytest

from tests.e2e.host import UlvmHost


@pytest.fixture
def broken(host: UlvmHost) -> UlvmHost:
    """vg on a.img, with keep, and on b.img, with lost; b.img is away."""
    a, b = host.image("a.img", "64M"), host.image("b.img", "64M")
    host.run(f"vgcreate vg {a} {b}")
    host.run(f"lvcreate -L 8M -n keep vg {a}")
    host.run(f"lvcreate -L 8M -n lost vg {b}")
    host.run("vgchange -an vg")
    (host.base / "b.img").rename(host.base / "away.img")
    return host


def test_removemissing(broken: UlvmHost) -> None:
    host = broken
    refused = host.run("vgreduce --removemissing vg", 5)
    assert "vgreduce --removemissing --force" in refused.stdout + refused.stderr
    assert host.run("vgs --noheadings -o vg_attr vg").stdout.strip() == "wz-pn-"
    host.run("vgreduce --removemissing --force vg")
    done = host.run("lvs --noheadings -o lv_name vg")
    assert done.stdout.split() == ["keep"]
    assert "missing" not in done.stderr
    assert host.run("vgs --noheadings -o vg_attr,pv_count vg").stdout.split() == ["wz--n-", "1"]
    host.run("lvcreate -L 4M -n new vg")


def test_restoremissing(broken: UlvmHost) -> None:
    host = broken
    # A change that LVM allows meanwhile marks the PV in the metadata.
    host.run("lvremove -f vg/keep")
    (host.base / "away.img").rename(host.base / "b.img")
    assert host.run("vgs --noheadings -o vg_attr vg").stdout.strip() == "wz-pn-"
    host.run(f"vgextend --restoremissing vg {host.base}/b.img")
    assert host.run("vgs --noheadings -o vg_attr vg").stdout.strip() == "wz--n-"
    host.run("lvchange -ay vg/lost")


@pytest.mark.parametrize("parted", ["base", "snap"])
def test_partial_activation_of_an_origin_with_a_snapshot(host: UlvmHost, parted: str) -> None:
    """A part of the origin, or of the store, is on the disk that is gone."""
    a, b = host.image("a.img", "64M"), host.image("b.img", "64M")
    host.run(f"vgcreate -s 1M vg {a} {b}")
    host.run(f"lvcreate -L 4M -n base vg {a}")
    host.path("vg/base").write_bytes(b"o" * (4 << 20))
    host.run(f"lvcreate -s -L 4M -n snap vg/base {a}")
    host.run("vgchange -an vg")
    host.run(f"lvextend -L +4M vg/{parted} {b}")
    host.run("vgchange -ay vg")
    with host.path("vg/base").open("r+b") as file:
        file.write(b"n" * (1 << 20))
    host.run("vgchange -an vg")
    b.unlink()
    host.run("lvchange -ay -P vg/base")
    with host.path("vg/base").open("rb") as file:
        assert file.read(4 << 20) == b"n" * (1 << 20) + b"o" * (3 << 20)
    with host.path("vg/snap").open("rb") as file:
        assert file.read(4 << 20) == b"o" * (4 << 20)
    host.run("vgchange -an vg")
    assert host.run("dmsetup ls").stdout == "No devices found\n"
