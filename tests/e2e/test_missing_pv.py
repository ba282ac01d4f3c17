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
