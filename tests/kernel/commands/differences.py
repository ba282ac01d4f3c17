"""What differs from LVM2 on purpose: the one table of it, with the reasons.

`ours` and `theirs` are regular expressions for whole lines of what is printed and of the metadata,
`out: ...`, `err: ...` and `disk: ...`; lines that match are left out on their side. `command` says
which steps it is about. `python -m tests.kernel.commands.differences` prints docs/differences.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from tests.kernel.commands.plain import Outcome

__all__ = ["DIFFERENCES", "Difference", "apply", "document"]


class Difference(NamedTuple):
    """One thing that ulvm does otherwise."""

    what: str
    why: str
    command: str = ""
    """A regular expression found in the lines of the script that it is about."""
    ours: str = ""
    theirs: str = ""
    rc: tuple[tuple[int, int], ...] = ()
    """Pairs of exit codes, ours and theirs."""
    only_rc: int | None = None
    """The exit code of ours that it is about."""
    any_order: bool = False
    """The lines that are printed may come in another order."""
    either: bool = False
    """Lines of one side alone are this difference as well, where both have a pattern."""


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "A new volume is wiped before it exists.",
        "LVM2 commits it, activates and wipes it, and takes it back where a signature is to stay; "
        "what is cut short leaves a volume with somebody's old data in it.",
        command=r"^lvcreate",
        theirs=r"disk: (seqno \+2|\+description = .*)",
        only_rc=5,
    ),
    Difference(
        "A damaged copy of the metadata is read once.",
        "LVM2 reads all devices again, with locks held, and says so on standard output; here the "
        "first reading is under the lock where it has to be.",
        theirs=r"out:   Retrying metadata scan\.",
    ),
    Difference(
        "dmsetup says why a table, a name or a message is refused.",
        "The kernel writes the reason to its log, which a daemon of one's own has not.",
        command=r"^dmsetup (create|load|rename|message|remove)\b",
        ours=(
            r"err: (device .* exists already.*|device .* has a UUID already|Invalid argument count"
            r"|.*: unknown target type|Gap in table|zero-length target|Invalid target message.*"
            r"|no targets specified"
            r"|a device of .* is too small for the target|Target type does not support messages"
            r"|No arguments required|device .* is in use)"
        ),
    ),
    Difference(
        "dmsetup has no statistics, and measures nothing.",
        "They are dmstats', and IMA's, which are the kernel's; nothing here could fill them.",
        command=r"^dmsetup( (nope|rename|message|readonly|create .*extra args)\b.*"
        r"| (setgeometry|splitname|target-version|udevcomplete|help.*)| -h)?$"
        r"|^dmsetup info -c.* -(o|O|S) '?(help|nope)",
        ours=r"err: ( ?|  [a-z_?]+ +- .*|-+)",
        theirs=r"err: ( ?|  [a-z_?]+ +- .*|Mapped Device Statistics.*|-+"
        r"|\t(measure|stats) .*)",
    ),
    Difference(
        "dmsetup measure and stats are refused in one sentence.",
        "What they show is kept by the kernel.",
        command=r"^dmsetup (measure|stats)\b",
        ours=r"err: (Tables are measured by .*|Statistics are kept by .*|Command failed\.)",
        theirs=r"out: .*|err: (Device does not exist\.|Command failed\.)",
        rc=((1, 0),),
        either=True,
    ),
    Difference(
        "dmsetup remove --deferred does not put a removal off.",
        "Of a device that nobody has open it is the removal; of another one it is refused, since "
        "a daemon that comes back after it was killed would not know of it.",
        command=r"^dmsetup remove --deferred",
        ours=r"err: (device-mapper: remove ioctl .*|.* cannot be put off here|Command failed\.)",
        rc=((1, 0),),
    ),
    Difference(
        "A snapshot is made by one commit of the metadata.",
        "LVM2 commits a plain volume first, wipes it, and converts it by a second commit: what "
        "is cut short between the two leaves a volume that nobody asked for.",
        command=r"^(\w+=\w+ )?lvcreate.* (-sn?|--snap\w*|--type snapshot)\b",
        ours=r"disk: seqno \+1",
        theirs=r"disk: seqno \+2",
    ),
    Difference(
        "The end of a merge is one commit.",
        "LVM2 takes the snapshot away by one commit and its store by another; between the two a "
        "plain volume stands there that nobody asked for.",
        command=r"^lvconvert.* --merge|^!merged",
        ours=r"disk: seqno \+\d",
        theirs=r"disk: seqno \+\d",
    ),
    Difference(
        "The end of a merge in the background is signed by lvpoll, which sees to it.",
        "In LVM2 a fork of the command that began the merge sees to it, and signs as that.",
        command=r"^!merged",
        ours=r"disk: \+description = \"Write from lvpoll .*",
        theirs=r"disk: \+description = \"Write from lv.*",
    ),
    Difference(
        "An active sparse volume is not removed without a question.",
        "LVM2 asks about every active volume but these.",
        command=r"^lvremove va/w$",
        ours=r"err: (Do you really want to remove active .*|  Logical volume va/w not removed\.)",
        theirs=r".*",
        rc=((5, 0),),
    ),
    Difference(
        "What was not removed without a question is there to be removed.",
        "LVM2 has removed that sparse volume before.",
        command=r"^lvremove -y va/w$",
        ours=r"out:   Logical volume \"w\" successfully removed\.|disk: (-.*|seqno \+1|\+desc.*)",
        theirs=r"err:   Failed to find logical volume .*",
        rc=((0, 5),),
    ),
    Difference(
        "A command line that fits no form is answered with the nearest of the forms that are here.",
        "LVM2 names what the form does for mirrors and thin volumes as well, and takes the form "
        "of error volumes for the nearest where a linear one has no name of its group.",
        command=r"^lv(create|convert)",
        ours=r"out:   (lvcreate -L\|--size Size\[m\|UNIT\] VG|Create a linear LV\.|"
        r"Merge COW snapshot LV into its origin\.)",
        theirs=r"out:   (lvcreate --type error .*|Create an LV that returns errors when used\.|"
        r"Merge .*)",
        only_rc=3,
    ),
    Difference(
        "The possibilities of an option that was cut too short come in the order of the alphabet.",
        "LVM2 lists them in the order of a table of its source, and some that the command does "
        "not take.",
        ours=r"err: \w+: option '.*' is ambiguous; possibilities: .*",
        theirs=r"err: \w+: option '.*' is ambiguous; possibilities: .*",
        only_rc=3,
    ),
    Difference(
        "A size in %ORIGIN of what is no snapshot is refused with a sentence on what can be given.",
        "LVM2 speaks of an internal error.",
        command=r"^lvcreate .*%ORIGIN",
        ours=r"err:   Please express size as .*",
        theirs=r"err:   Internal error: .*",
    ),
    Difference(
        "A table with a disk that is not there is refused with the reason.",
        "The kernel knows numbers alone, and its reason stands in its log.",
        command=r"^dmsetup create .* linear /dev/nope",
        ours=r"err: (device-mapper: reload ioctl on .*|Device lookup failed: .*)",
        theirs=r"err: device-mapper: reload ioctl on .*",
    ),
    Difference(
        "Reports know the format json_std.",
        "LVM2 2.03.16 does not have it yet; later ones do.",
        command=r"--reportformat json_std",
        ours=r"out: .*",
        theirs=r"err:   (Invalid argument for --reportformat|Error during parsing).*",
        rc=((0, 3),),
    ),
    Difference(
        "A slash at the end of a volume group's name is allowed.",
        "Shells complete the name of a directory so: `vgs /dev/va/`.",
        command=r"^\w+ (va/|/dev/va/)$",
        ours=r"out:   (LV|VG|t|va) +(VG|va|#PV|1) .*",
        theirs=r"err: .*",
        rc=((0, 5), (0, 3)),
    ),
    Difference(
        "vgcreate --test succeeds on a disk that is no PV yet.",
        "LVM2 makes the PV on trial, does not find it on the disk, and fails.",
        command=r"^vgcreate (-t|--test) ",
        ours=r".*successfully created",
        theirs=r".*(in mda header on|Failed to write VG).*",
        rc=((0, 5),),
    ),
    Difference(
        "A devices file that is not there names no device.",
        "LVM2 then looks at all disks, so that a name mistyped shows what it was meant to hide.",
        command=r"--devicesfile nope",
        theirs=r".*",
    ),
    Difference(
        "Each volume is removed by one commit.",
        "LVM2 commits twice for a snapshot, and once for several plain volumes, after it has said "
        "of each that it is removed; a command that is interrupted has then said what is not so.",
        command=r"^(lvremove |vgreduce --removemissing --force )",
        ours=r"disk: seqno \+\d+",
        theirs=r"disk: seqno \+\d+",
    ),
    Difference(
        "A setting of the wrong type is refused by the command that reads it.",
        "LVM2 takes the default, and what somebody has set counts for nothing.",
        command=r"^vgs --config '(global/units=3|report/headings=\"maybe\")'",
        ours=r"err:   (Configuration setting .* which is not|Invalid units|Run `vgs --help).*",
        theirs=r"out:   (VG|va) .*|err:   WARNING: Ignoring unsupported value .*",
        rc=((3, 0),),
    ),
    Difference(
        "A pvmove ends with one commit.",
        "LVM2 gives the volumes their new extents by one, takes pvmoveN away by a second, and with "
        "--atomic the two sides of it by more.",
        command=r"^pvmove",
        ours=r"disk: seqno \+\d",
        theirs=r"disk: seqno \+\d",
    ),
    Difference(
        "A restored group gets a sequence number above that of the state it replaces.",
        "LVM2 counts on from the number in the file; a disk that missed the restore would then win "
        "over it when it comes back.",
        command=r"^vgcfgrestore ",
        ours=r"disk: seqno \+1",
        theirs=r"disk: seqno \+-?\d+",
        either=True,
    ),
    Difference(
        "What a restore replaces is archived before, and the backup is written after it.",
        "LVM2 leaves both to the next command that reads the group.",
        command=r"^!archives",
        ours=r"out: .*\*before\* executing 'vgcfgrestore.*",
        theirs=r"out: .*\*before\* executing 'vgs.*",
    ),
    Difference(
        "vgremove archives the group before it.",
        "In LVM2 there is no way back from it: it archives nothing then, and removes the backup.",
        command=r"^!archives",
        ours=r"out: .*\*before\* executing 'vgremove.*",
        theirs=r"out: .*\*before\* executing 'vgremove.*",
        either=True,
    ),
    Difference(
        "`dmsetup info -c -o all` shows the device.",
        "To LVM2 `all` means the columns of dmstats as well, and a device of which nothing is "
        "measured has no row then.",
        command=r"^dmsetup info -c -o all",
        ours=r"out: .*",
    ),
    Difference(
        "dmsetup finds a device without a table.",
        "LVM2 looks for the node of the device, which comes with the first table.",
        command=r"^dmsetup info$",
        theirs=r"err: /dev/mapper/\w+: open failed: No such file or directory",
    ),
    Difference(
        "An origin is kept when its snapshot alone is lost.",
        "All its data are there. To LVM2 it is a partial volume, and goes with the snapshot.",
        command=r"^vgreduce --removemissing --force va$",
        ours=r"err:   WARNING: Removing partial LV va/s\.|disk: .*",
        theirs=r"err:   WARNING: Removing partial LV va/o\.|out:   Logical volume .o. .*|disk: .*",
    ),
    Difference(
        "An origin is not made the store of a snapshot.",
        "LVM2 does it, takes the origin's snapshots for those of a sparse volume from then on, "
        "and their data are lost.",
        command=r"^lvconvert -y -s vk/p vk/o$",
        ours=r"err: .*",
        theirs=r".*",
        rc=((5, 0),),
    ),
    Difference(
        "A snapshot whose merge waits goes with its origin, after the other snapshots.",
        "It goes by the origin's commit. LVM2 removes all in the order in which they were made.",
        command=r"^lvremove -f va/o$",
        any_order=True,
    ),
    Difference(
        "`!=` of a time is what `=` is not.",
        "To LVM2 both are the same where the time stands for more than a second.",
        command=r"-S 'lv_time!=",
        ours=r"out:   (LV|a|b) +",
        theirs=r"out:   (LV|a|b) +",
        either=True,
    ),
    Difference(
        "A number of seconds may stand between quotes.",
        "LVM2 takes `@` only without them, which shells make awkward.",
        command=r"-S 'lv_time[<>]\"@",
        ours=r"out: .*",
        theirs=r"err: .*",
        rc=((0, 5),),
        either=True,
    ),
    Difference(
        "What is for RAID, mirrored, thin, cached and VDO volumes is refused with a sentence.",
        "They are not built; LVM2 looks for kernel modules, or for a volume of that type.",
        command=r"^(lv|vg)\w+\b.*( -[THm]\b| --type (raid|thin|cache|vdo|writecache)"
        r"| --(nosync|thinpool|cachevol|syncaction|rebuild|writemostly|writebehind|cachemode"
        r"|cachepolicy|discards|compression|errorwhenfull|maxrecoveryrate|poolmetadatasize|uncache"
        r"|repair|splitmirrors|mergethin|mergemirrors)\b)",
        ours=r"err:   (Option --?\w+ is for|Volumes of type) .*|err:   Run .*",
        theirs=r".*",
        rc=((3, 5), (3, 0)),
        only_rc=3,
    ),
    Difference(
        "lvconvert does not say what other types a volume could have.",
        "The only one is raid1, which is not built.",
        command=r"^lvconvert .*--type striped",
        theirs=r"err:   (Converting .* is directly possible to .*|  raid1)",
    ),
    Difference(
        "A listed backup file is told by its path.",
        "LVM2 takes the path that -f gives for a directory as well.",
        command=r"^vgcfgrestore -l -f ",
        ours=r"out:   File:\t\t.*",
        theirs=r"out:   File:\t\t.*",
    ),
    Difference(
        "The metadata areas that go out of use are the last ones.",
        "LVM2 takes them by chance.",
        command=r"^vgchange --(vg)?metadatacopies",
        ours=r"disk: [-+]vd\w: label .*",
        theirs=r"disk: [-+]vd\w: label .*",
    ),
    Difference(
        "Snapshots are watched by the daemon that serves them.",
        "LVM2 needs dmeventd for it, and fails where that is not installed.",
        command=r"^vgchange --monitor",
        ours=r"out: .*monitored",
        theirs=r"(out|err): .*([Mm]onitor|dmeventd).*|err: .*unmonitor.*",
        rc=((0, 5),),
    ),
    Difference(
        "-v tells the steps in the order in which they are taken here.",
        "LVM2 wipes a volume after it was made, and writes the backup at the end of the command.",
        command=r"^\w+ -v ",
        any_order=True,
    ),
    Difference(
        "Trees with snapshots, and what is renamed or refreshed, take other steps of "
        "device-mapper, which -v tells.",
        "LVM2 activates a snapshot's store as a plain volume first, and loads and suspends "
        "everything in the tree, also what stays as it is.",
        command=r"^(lvcreate -v -s|lvremove -v -y va/(s2|b)|lvconvert -v|lvrename -v"
        r"|lvchange -v (-ay|--refresh))",
        ours=r"err:   (Loading table for|Resuming|Suspending|Removing|Creating va-\S+).*",
        theirs=r"err:   ((Loading table for|Suppressed|Resuming|Suspending|Removing).*"
        r"|Creating va-\S+|Creating logical volume snapshot\d"
        r"|activation/volume_list .* for va/s2?\.)",
        either=True,
    ),
    Difference(
        "The log of lvremove says first that a volume was removed, then that this was a success.",
        "LVM2 says so when it commits, and of no volume any more.",
        command=r"^lvremove -y va/b$",
        ours=r"out:     \d (print|status) +processing lv .*",
        theirs=r"out:     \d (print|status) +processing lv .*",
    ),
    Difference(
        "vgremove archives the group that it removes, vgsplit and vgmerge what they change.",
        "Of these LVM2 archives less than it changes.",
        command=r"^vg(remove|split|merge) -v",
        ours=r"err:   (Archiving|Creating) volume group .*",
        theirs=r"err:   (Archiving|Creating) volume group .*",
        either=True,
    ),
)


def apply(line: str, ours: Outcome, theirs: Outcome, used: set[Difference]) -> bool:
    """Whether the outcomes of a step are alike but for what the table allows; what of it they are
    not alike without is added to `used`."""
    about = [
        difference
        for difference in DIFFERENCES
        if re.search(difference.command, line) and difference.only_rc in (None, ours.rc)
    ]
    if not _alike(ours, theirs, about):
        return False
    if ours != theirs:
        used.update(d for d in about if not _alike(ours, theirs, [o for o in about if o is not d]))
    return True


def _alike(ours: Outcome, theirs: Outcome, allowed: Iterable[Difference]) -> bool:
    for difference in allowed:
        if ours == theirs:
            break
        new = _without(ours, difference.ours), _without(theirs, difference.theirs)
        both = difference.ours and difference.theirs and not difference.either
        if both and (new[0] == ours or new[1] == theirs):
            continue
        if difference.any_order:
            new = _sorted(new[0]), _sorted(new[1])
        if (ours.rc, theirs.rc) in difference.rc:
            new = new[0]._replace(rc=theirs.rc), new[1]
        ours, theirs = new
    return ours == theirs


def _sorted(outcome: Outcome) -> Outcome:
    return outcome._replace(out=sorted(outcome.out), err=sorted(outcome.err))


def _without(outcome: Outcome, pattern: str) -> Outcome:
    if not pattern:
        return outcome
    compiled = re.compile(pattern)

    def kept(kind: str, lines: Iterable[str]) -> list[str]:
        return [line for line in lines if not compiled.fullmatch(f"{kind}: {line}")]

    return Outcome(
        outcome.rc,
        kept("out", outcome.out),
        kept("err", outcome.err),
        kept("disk", outcome.disks),
    )


_HEAD = """\
# Where ulvm differs from LVM2

Commands are judged side by side with LVM2 2.03: the same scripts, step by step, with what is
printed, the exit codes and the metadata (`make judge`, tests/kernel/commands). What differs on
purpose is here, made from the table that the judge uses.

"""


def document() -> str:
    """The text of docs/differences.md."""
    lines = [f"- **{item.what}** {item.why}\n" for item in DIFFERENCES]
    return _HEAD + "".join(lines)


if __name__ == "__main__":
    print(document(), end="")
