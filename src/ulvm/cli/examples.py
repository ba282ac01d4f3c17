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
    "pvchange": (
        ("pvchange -xn /dev/sdb", "Nothing new is put on a disk from now on."),
        ("pvchange --addtag fast /dev/sdc", "Tag a disk."),
    ),
    "pvresize": (("pvresize /images/disk1.img", "Use what an image has grown by."),),
    "pvmove": (
        ("pvmove /dev/sdb", "Empty a disk, while its volumes are in use."),
        ("pvmove -n data /dev/sdb /dev/sdc", "Move one volume's part, to this disk."),
        ("pvmove --abort", "Stop all moves; segments that are copied stay at their new place."),
    ),
    "pvck": (
        ("pvck --dump metadata /dev/sdb", "Show the metadata on a disk."),
        (
            "pvck --repair -f /etc/ulvm/backup/vg /dev/sdb",
            "Write header and metadata anew, from a backup.",
        ),
    ),
    "pvremove": (("pvremove /dev/sdb", "Make a disk one that LVM does not know."),),
    "vgs": (
        ("vgs -o +vg_extent_size,vg_free_count", "Two columns more."),
        ("vgs --noheadings -o vg_free --units b --nosuffix vg", "For a script."),
    ),
    "vgremove": (("vgremove vg", "Remove a group, and its volumes after a question each."),),
    "vgrename": (("vgrename vg storage", "Give a group another name."),),
    "vgsplit": (("vgsplit vg new /dev/sdc", "Move a disk with its volumes to a new group."),),
    "vgmerge": (("vgmerge vg new", "Put all of a group into another."),),
    "vgexport": (("vgexport vg", "Make a group ready to be taken to another host."),),
    "vgimport": (("vgimport vg", "Take over a group that was exported."),),
    "vgimportclone": (
        ("vgimportclone -n copy /images/clone.img", "Give a copied image an identity of its own."),
    ),
    "vgcfgbackup": (("vgcfgbackup -f /root/%s.vg", "The metadata of all groups, a file each."),),
    "vgck": (("vgck --updatemetadata vg", "Mend copies of the metadata that are old or wrong."),),
    "lvchange": (
        ("lvchange -ay vg/data", "Activate a volume."),
        ("lvchange -an @old", "Deactivate what has a tag."),
        ("lvchange -p r vg/data", "Read only."),
    ),
    "lvreduce": (("lvreduce -r -L -1g vg/data", "1 GiB less, the file system first."),),
    "lvresize": (("lvresize -r -L 20g vg/data", "Make it 20 GiB, with its file system."),),
    "lvdisplay": (("lvdisplay -m vg/data", "All of a volume, and where it lies."),),
    "lvmdevices": (("lvmdevices --adddev /dev/sdb", "Look at this disk from now on."),),
    "blkdeactivate": (("blkdeactivate -u vg", "Unmount and deactivate a group's volumes."),),
    "dmsetup": (
        ("dmsetup ls --tree", "What stands on what."),
        ("dmsetup status", "What each target has to say."),
    ),
}
