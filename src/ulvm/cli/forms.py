"""The forms in which each command is used: what `--help`, the man pages and a refused command line
show of them.

Options are named by one spelling; their other spellings and their values come from the command
itself, so a form cannot say of an option what it is not (`cli.usage`; a test looks that each is
there). What a command takes and no form names may be given with every form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FORMS", "Form"]


@dataclass(frozen=True)
class Form:
    """`what` it does; `needs`: options and arguments that it must have, in their order,
    `--type=error` with that value only; `takes`: options that it may have besides; `any_of`:
    options one of which it must have; `names`: arguments that it may have, or, with `any_of`, must
    have, at the end."""

    what: str = ""
    needs: str = ""
    takes: str = ""
    names: str = ""
    any_of: str = ""


_PV_MAKING = (
    "--metadatasize --pvmetadatacopies --metadataignore --labelsector --dataalignment "
    "--dataalignmentoffset --bootloaderareasize"
)
_STRIPES = "--stripes --stripesize"
_VGS = "VG|Tag|Select ..."
_LVS = "VG|LV|Tag|Select ..."
_PROPERTIES = "--addtag --deltag --alloc --setautoactivation"

FORMS: Mapping[str, tuple[Form, ...]] = {
    # -- physical volumes
    "pvcreate": (Form(needs="PV ..."),),
    "pvremove": (Form(needs="PV ..."),),
    "pvchange": (
        Form(
            "Change properties of all PVs.",
            needs="--all",
            any_of="--allocatable --uuid --addtag --deltag --metadataignore",
        ),
        Form(
            "Change properties of specified PVs.",
            any_of="--allocatable --uuid --addtag --deltag --metadataignore",
            names="PV|Select ...",
            takes="--select",
        ),
    ),
    "pvresize": (Form(needs="PV ..."),),
    "pvmove": (
        Form("Move PV extents.", needs="PV", takes="--name --alloc --atomic", names="PV ..."),
        Form("Continue or abort existing pvmove operations."),
    ),
    "pvs": (Form(names="PV|Tag ..."),),
    "pvdisplay": (Form(names="PV|Tag ..."),),
    "pvscan": (
        Form("Display PV information.", takes="--exported --novolumegroup --short --uuid"),
        Form(
            "Record that a PV is online or offline.",
            needs="--cache",
            takes="--major --minor",
            names="String|PV ...",
        ),
        Form(
            "Record that a PV is online and autoactivate the VG if complete.",
            needs="--cache --activate=ay",
            takes="--major --minor",
            names="String|PV ...",
        ),
        Form(
            "Record that a PV is online and list the VG using the PV.",
            needs="--cache --listvg PV",
            takes="--checkcomplete --vgonline --udevoutput",
        ),
        Form(
            "Record that a PV is online and list LVs using the PV.",
            needs="--cache --listlvs PV",
            takes="--checkcomplete --vgonline",
        ),
        Form("List LVs using the PV.", needs="--listlvs PV"),
        Form("List the VG using the PV.", needs="--listvg PV"),
    ),
    "pvck": (
        Form("Check for metadata on a device", needs="PV ..."),
        Form(
            "Check and print LVM headers and metadata on a device",
            needs="--dump PV",
            takes="--file --settings --pvmetadatacopies",
        ),
        Form(
            "Repair LVM headers or metadata on a device",
            needs="--repairtype PV",
            takes="--file --settings",
        ),
        Form(
            "Repair LVM headers and metadata on a device",
            needs="--repair --file PV",
            takes="--settings",
        ),
    ),
    "lvmdiskscan": (Form(),),
    # -- volume groups
    "vgcreate": (Form(needs="VG_new PV ..."),),
    "vgextend": (Form(needs="VG PV ..."),),
    "vgreduce": (
        Form("Remove a PV from a VG.", needs="VG PV ..."),
        Form("Remove all unused PVs from a VG.", needs="--all VG"),
        Form("Remove all missing PVs from a VG.", needs="--removemissing VG"),
    ),
    "vgremove": (Form(needs=_VGS),),
    "vgchange": (
        Form(
            "Change a general VG attribute.",
            any_of="--logicalvolume --maxphysicalvolumes --uuid --physicalextentsize --resizeable "
            f"{_PROPERTIES} --vgmetadatacopies --metadataprofile --detachprofile --profile",
            names=f"[ {_VGS} ]",
        ),
        Form("Start or stop monitoring LVs.", needs="--monitor", names=_VGS, takes="--poll"),
        Form("Start or stop processing LV conversions.", needs="--poll", names=_VGS),
        Form(
            "Activate or deactivate LVs.",
            needs="--activate",
            takes="--ignoreactivationskip --partial --activationmode --readonly --monitor --poll",
            names=_VGS,
        ),
        Form("Reactivate LVs using the latest metadata.", needs="--refresh", names=_VGS),
        Form("Change the system ID of a VG.", needs="--systemid VG"),
    ),
    "vgrename": (
        Form("Rename a VG.", needs="VG VG_new"),
        Form("Rename a VG by specifying the VG UUID.", needs="String VG_new"),
    ),
    "vgsplit": (
        Form("Split a VG by specified PVs.", needs="VG VG PV ..."),
        Form("Split a VG by PVs in a specified LV.", needs="--name VG VG"),
    ),
    "vgmerge": (Form(needs="VG VG"),),
    "vgexport": (
        Form("Export specified VGs.", needs=_VGS, takes="--select"),
        Form("Export all VGs.", needs="--all"),
    ),
    "vgimport": (
        Form("Import specified VGs.", needs=_VGS, takes="--select"),
        Form("Import all VGs.", needs="--all"),
    ),
    "vgimportclone": (Form(needs="PV ..."),),
    "vgimportdevices": (
        Form("Add devices from specific VGs to the devices file.", needs="VG|Tag|Select ..."),
        Form("Add devices from all accessible VGs to the devices file.", needs="--all"),
    ),
    "vgscan": (Form(),),
    "vgcfgbackup": (Form(names="VG ..."),),
    "vgcfgrestore": (
        Form("Restore VG metadata from last backup.", needs="VG"),
        Form("Restore VG metadata from specified file.", needs="--file VG"),
        Form("List all VG metadata backups.", needs="--list VG"),
        Form("List one VG metadata backup file.", needs="--list --file", names="VG"),
    ),
    "vgck": (
        Form("Read and display information about a VG.", names="VG|Tag ..."),
        Form("Rewrite VG metadata to correct problems.", needs="--updatemetadata VG"),
    ),
    "vgmknodes": (Form(names="VG|LV|Tag ..."),),
    "vgs": (Form(names="VG|Tag ..."),),
    "vgdisplay": (Form(names="VG|Tag ..."),),
    "fullreport": (Form(names="VG ..."),),
    # -- logical volumes
    "lvcreate": (
        Form(
            "Create a linear LV.",
            needs="--size VG",
            takes="--type=linear --extents",
            names="PV ...",
        ),
        Form(
            "Create a striped LV.",
            needs="--stripes --size VG",
            takes="--type=striped --extents --stripesize",
            names="PV ...",
        ),
        Form(
            "Create a COW snapshot LV of an origin LV.",
            needs="--snapshot --size LV",
            takes="--type=snapshot --extents --stripes --stripesize --chunksize",
            names="PV ...",
        ),
        Form(
            "Create a sparse COW snapshot LV of a virtual origin LV \n(also see --snapshot).",
            needs="--type=snapshot --size --virtualsize VG",
            takes="--snapshot --extents --chunksize",
            names="PV ...",
        ),
        Form(
            "Create an LV that returns errors when used.",
            needs="--type=error --size VG",
            takes="--extents",
        ),
        Form(
            "Create an LV that returns zeros when read.",
            needs="--type=zero --size VG",
            takes="--extents",
        ),
    ),
    "lvremove": (Form(needs=_LVS),),
    "lvchange": (
        Form(
            "Change a general LV attribute.",
            any_of="--contiguous --permission --readahead --setactivationskip --persistent=n "
            f"{_PROPERTIES}",
            names=_LVS,
            takes="--activate --poll --monitor",
        ),
        Form(
            "Activate or deactivate an LV.",
            needs=f"--activate {_LVS}",
            takes="--partial --ignoreactivationskip --activationmode --poll --monitor --readonly",
        ),
        Form(
            "Reactivate an LV using the latest metadata.",
            needs=f"--refresh {_LVS}",
            takes="--partial --activationmode --poll --monitor",
        ),
        Form("Start or stop monitoring an LV.", needs=f"--monitor {_LVS}"),
        Form(
            "Start or stop processing an LV conversion.",
            needs=f"--poll {_LVS}",
            takes="--monitor",
        ),
        Form(
            "Make the minor device number persistent for an LV.",
            needs="--persistent=y --minor LV",
            takes="--major --activate --poll --monitor",
        ),
    ),
    "lvextend": (
        Form(
            "Extend an LV by a specified size.",
            needs="--size LV",
            takes=f"--extents --resizefs {_STRIPES}",
            names="PV ...",
        ),
        Form(
            "Extend an LV by specified PV extents.",
            needs="LV PV ...",
            takes=f"--resizefs {_STRIPES}",
        ),
        Form(
            "Extend an LV according to a predefined policy.",
            needs="--usepolicies LV",
            takes="--resizefs",
            names="PV ...",
        ),
    ),
    "lvreduce": (Form(needs="--size LV", takes="--extents"),),
    "lvresize": (
        Form(
            "Resize an LV by a specified size.",
            needs="--size LV",
            takes="--extents --resizefs",
            names="PV ...",
        ),
        Form("Resize an LV by specified PV extents.", needs="LV PV ...", takes="--resizefs"),
    ),
    "lvrename": (Form(needs="VG LV LV_new"), Form(needs="LV LV_new")),
    "lvconvert": (
        Form("Merge COW snapshot LV into its origin.", needs="--merge VG|LV|Tag ..."),
        Form("Merge COW snapshot LV into its origin.", needs="--mergesnapshot LV ..."),
        Form("Separate a COW snapshot from its origin LV.", needs="--splitsnapshot LV"),
        Form(
            "Combine a former COW snapshot (second arg) with a former \n"
            "origin LV (first arg) to reverse a splitsnapshot command.",
            needs="--snapshot LV LV",
            takes="--type=snapshot --chunksize --zero",
        ),
        Form("Poll LV to continue conversion.", needs="--startpoll LV"),
        Form("Convert LV to linear.", needs="--type=linear LV"),
    ),
    "lvpoll": (Form(needs="--polloperation LV ..."),),
    "lvscan": (Form(),),
    "lvs": (Form(names="VG|LV|Tag ..."),),
    "lvdisplay": (Form(names="VG|LV|Tag ..."),),
    # -- settings and devices
    "lvmconfig": (Form(names="String ..."),),
    "config": (Form(names="String ..."),),
    "dumpconfig": (Form(names="String ..."),),
    "lvmdevices": (
        Form("Print devices in the devices file."),
        Form("Check the devices file and report incorrect values.", needs="--check"),
        Form("Update the devices file to fix incorrect values.", needs="--update"),
        Form("Add a device to the devices file.", needs="--adddev", takes="--deviceidtype"),
        Form("Remove a device from the devices file.", needs="--deldev", takes="--deviceidtype"),
        Form(
            "Find the device with the given PVID and add it to the devices file.",
            needs="--addpvid",
            takes="--deviceidtype",
        ),
        Form("Remove the devices file entry for the given PVID.", needs="--delpvid"),
    ),
    "lvmdump": (Form(),),
    "blkdeactivate": (Form(names="Device ..."),),
    # -- commands of ulvm
    "backup": (
        Form(
            "Copy a volume as of one instant to a directory, and prove the copy.",
            needs="--to VG/LV",
            takes="--quiesce --resume --level --threads --no-verify",
        ),
        Form(
            "Run a program on a snapshot of the volume: {mount} and {device} stand for it.",
            needs="--exec VG/LV",
            takes="--quiesce --resume",
        ),
        Form("Remove the snapshots that an interrupted backup left.", needs="--clean VG|VG/LV"),
    ),
    "restore": (Form(needs="Backup VG/LV"),),
    "verify": (Form(needs="Backup"),),
    "advise": (Form(needs="VG/LV"),),
    "mount": (Form(needs="VG/LV Directory"),),
    "umount": (Form(needs="Directory|VG/LV"),),
    "demo": (Form(),),
    "links": (Form(needs="Directory"),),
    "completion": (Form(needs="bash|zsh|fish"),),
    "man": (Form(names="Command"),),
    "help": (Form(names="Command ..."),),
    "daemon start": (Form(),),
    "daemon stop": (Form(),),
    "daemon status": (Form(),),
    "daemon listen": (Form(),),
    "monitor status": (Form(names="VG|LV ..."),),
    "devices list": (Form(),),
    "devices add": (Form(needs="PV ..."),),
    "devices remove": (Form(needs="PV ..."),),
}
"""By the name of the command; `fsadm`, `lsblk` and `dmsetup` have usages of their own."""
