"""The life of a volume group by libblockdev; run by Debian's Python with the paths of two disks."""

import sys

import gi

gi.require_version("BlockDev", "2.0")
from gi.repository import BlockDev as bd  # noqa: E402

MIB = 1 << 20


def expect(got: object, wanted: object) -> None:
    assert got == wanted, f"{got!r} is not {wanted!r}"


def main(first: str, second: str) -> None:
    spec = bd.PluginSpec()
    spec.name = bd.Plugin.LVM
    bd.ensure_init([spec], None)

    for disk in (first, second):
        bd.lvm_pvcreate(disk, 0, 0, None)
    bd.lvm_vgcreate("vg", [first], 4 * MIB, None)
    bd.lvm_vgextend("vg", second, None)
    group = bd.lvm_vginfo("vg")
    expect(
        (group.extent_size, group.extent_count, group.free_count, group.pv_count),
        (4 * MIB, 62, 62, 2),
    )
    disk = bd.lvm_pvinfo(first)
    expect((disk.pv_name, disk.pe_start, disk.vg_name), (first, MIB, "vg"))
    expect(sorted(pv.pv_name for pv in bd.lvm_pvs()), sorted([first, second]))

    bd.lvm_lvcreate("vg", "lv", 16 * MIB, None, [first], None)
    bd.lvm_pvmove(first, second, None)
    bd.lvm_lvresize("vg", "lv", 24 * MIB, None)
    bd.lvm_lvcreate("vg", "striped", 16 * MIB, "striped", [first, second], None)
    bd.lvm_lvsnapshotcreate("vg", "lv", "snap", 8 * MIB, None)
    snap = bd.lvm_lvinfo("vg", "snap")
    expect((snap.size, snap.attr, snap.origin), (8 * MIB, "swi-a-s---", "lv"))
    expect(
        sorted((lv.lv_name, lv.size // MIB, lv.segtype) for lv in bd.lvm_lvs("vg")),
        [("lv", 24, "linear"), ("snap", 8, "linear"), ("striped", 16, "striped")],
    )
    bd.lvm_lvdeactivate("vg", "striped", None)
    expect(bd.lvm_lvinfo("vg", "striped").attr, "-wi-------")
    bd.lvm_lvactivate("vg", "striped", True, None)
    bd.lvm_lvsnapshotmerge("vg", "snap", None)
    bd.lvm_vgdeactivate("vg", None)
    bd.lvm_pvresize(first, 0, None)

    for name in ("striped", "lv"):
        bd.lvm_lvremove("vg", name, True, None)
    bd.lvm_vgreduce("vg", second, None)
    bd.lvm_vgremove("vg", None)
    bd.lvm_pvremove(first, None)
    print("done")


main(*sys.argv[1:])
