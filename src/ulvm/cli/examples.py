"""Examples of commands, for their help and their man pages. `tests/unit/cli` checks that each is a
command line that its command understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

__all__ = ["EXAMPLES", "Example"]

Example: TypeAlias = tuple[str, str]
"""A command line, and what it does."""

EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "pvcreate": (
        ("pvcreate /images/disk1.img /images/disk2.img", "Make two images physical volumes."),
        (
            "pvcreate --dataalignment 4m /dev/sdb",
            "Begin the data of a disk at a multiple of 4 MiB.",
        ),
    ),
    "pvs": (
        ("pvs -o +pv_used,pv_mda_count", "Two columns more."),
        ("pvs --segments -o +seg_pe_ranges", "What lies where."),
    ),
    "vgcreate": (("vgcreate vg /images/disk1.img", "A volume group on one image."),),
    "vgextend": (("vgextend vg /images/disk2.img", "One more physical volume."),),
    "vgreduce": (
        ("vgreduce vg /images/disk2.img", "Take out a physical volume that nothing lies on."),
        ("vgreduce --removemissing vg", "Forget physical volumes that are gone."),
    ),
    "vgchange": (
        ("vgchange -ay vg", "Activate all volumes of a group."),
        ("vgchange --addtag prod vg", "Tag a group."),
    ),
    "vgcfgrestore": (
        ("vgcfgrestore --list vg", "The states that the archive holds."),
        ("vgcfgrestore -f /etc/ulvm/archive/vg_00003-1.vg vg", "Go back to one of them."),
    ),
    "lvcreate": (
        ("lvcreate -n data -L 10g vg", "A volume of 10 GiB."),
        ("lvcreate -n data -l 100%FREE -i 2 vg", "All that is free, striped over two PVs."),
        ("lvcreate -s -n snap -L 1g vg/data", "A snapshot with 1 GiB for what will change."),
    ),
    "lvextend": (
        ("lvextend -L +1g vg/data", "1 GiB more."),
        ("lvextend -r -l +100%FREE vg/data", "All that is free, the file system as well."),
    ),
    "lvconvert": (
        ("lvconvert --merge vg/snap", "Take the origin back to the state of its snapshot."),
        ("lvconvert --splitsnapshot vg/snap", "Make a snapshot's COW a volume of its own."),
    ),
    "lvremove": (
        ("lvremove vg/snap", "Remove a volume, after a question."),
        ("lvremove -y @old", "Remove all volumes with a tag, without one."),
    ),
    "lvrename": (("lvrename vg/data vg/old", "Give a volume another name."),),
    "lvs": (
        ("lvs -o +snap_percent,origin -S 'lv_attr=~^s'", "Snapshots, and how full they are."),
        ("lvs --reportformat json --units b", "For a program."),
    ),
    "lvmconfig": (
        ("lvmconfig --typeconfig diff", "What is set otherwise than by default."),
        ("lvmconfig --typeconfig full activation", "All settings of a section in force."),
        ("lvmconfig --validate", "Look for mistakes."),
    ),
    "backup": (),
    "dmsetup": (
        ("dmsetup ls --tree", "What stands on what."),
        ("dmsetup status", "What each target has to say."),
    ),
}
