"""Manual pages, made from the commands, their help and examples, and the table of settings.

Pages are `ulvm(8)`, `ulvm-COMMAND(8)` for each command, and `ulvm.conf(5)`; names that LVM2's own
pages have are left to it. The text is roff for man(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import ulvm
from ulvm.cli.catalogue import Entry, OptionInfo, catalogue
from ulvm.cli.help import VARIABLES
from ulvm.cli.usage import (
    Piece,
    command_options,
    lvm_options,
    option_pieces,
    synopses,
)
from ulvm.vgstore.settings import Setting, known_sections, known_settings

__all__ = ["manual_pages"]

_DATE = "2026-11-21"
"""When these pages last changed in their form."""

_INTRODUCTION = """\
ulvm is LVM2 in user space: volume groups, logical volumes and copy-on-write snapshots, with the
commands, the on-disk format and the reports of LVM2, but without a kernel module. A physical volume
may be a disk or a plain file.

Active volumes are served by a daemon, which the first activation starts: each as a file below
dev/ of the run directory, and over NBD. Alone, ulvm is a shell that takes the commands below line
by line. A command is the same as `ulvm COMMAND', as a line of that shell, and, where its name is
linked to the program (`ulvm links'), under that name.
"""

_NAMES = """\
A volume is named vg/lv, /dev/vg/lv, /dev/mapper/NAME, or by its file in the run directory; a volume
group by its name. @TAG stands for all that has the tag, where LVM2 lets it.

Sizes are in binary units: b, s (512 bytes), k, m (the default), g, t, p, e.
"""

_ENVIRONMENT = (
    ("ULVM_SYSTEM_DIR", "The system directory: /etc/ulvm for root, else ~/.config/ulvm."),
    ("ULVM_RUN_DIR", "The run directory: /run/ulvm for root, else $XDG_RUNTIME_DIR/ulvm. Hosts "
     "with different directories know nothing of each other."),
    ("ULVM_COMMAND_PROFILE", "A command profile for all commands."),
    ("LVM_VG_NAME", "The volume group of a volume that is named without one."),
    ("LVM_SYSTEM_DIR, LVM_COMMAND_PROFILE, DM_DEV_DIR", "As in LVM2, if the program was started "
     "under a name of LVM2's and the variable of ulvm is not set."),
)  # fmt: skip

_FILES = (
    ("ulvm.conf", "Settings, in the system directory: see ulvm.conf(5)."),
    ("devices/system.devices", "Which disks and files hold physical volumes: see ulvm-devices(8)."),
    ("backup/, archive/", "The metadata of each volume group, as they are and as they were."),
    ("profile/", "Profiles: settings that --profile puts on top of ulvm.conf."),
)

_ASK_FOR_HELP = (
    ("-h|--help", "Show how the command is used."),
    ("--longhelp", "Show more of that."),
)
_RELATED = {
    "backup": ["restore", "verify", "advise"],
    "restore": ["backup", "verify"],
    "verify": ["backup", "restore"],
    "advise": ["monitor", "lvcreate"],
    "monitor": ["advise", "lvextend"],
    "mount": ["umount"],
    "umount": ["mount"],
    "devices": ["lvmdevices", "pvscan"],
    "daemon": ["monitor", "dmsetup"],
    "dmsetup": ["blkdeactivate"],
    "blkdeactivate": ["dmsetup", "vgchange"],
    "config": ["lvmconfig"],
    "dumpconfig": ["lvmconfig"],
    "fullreport": ["pvs", "vgs", "lvs"],
    "man": ["help"],
    "help": ["man"],
}

_EXIT_STATUS = (
    ("0", "All was done."),
    ("2", "There is no such command."),
    ("3", "The command line is wrong."),
    ("4", "The settings cannot be read."),
    ("5", "Something was refused or failed."),
)

_CONFIGURATION = """\
The file is a tree of settings in LVM2's grammar:

\b
section {
    # a comment
    setting = 1
    list = [ "a", "b" ]
}

section/setting = 1 means the same. Where ulvm.conf is not there, lvm.conf in the same directory is
read. On top of it count lvmlocal.conf, the lvm_TAG.conf of each tag of the host, a profile, and
--config, in this order.

All settings of LVM2 are known, so that its file may be taken as it is. Those that change something
here are listed below, with their defaults.
"""


def manual_pages() -> dict[Path, str]:
    """All pages by their place below a directory such as /usr/share/man."""
    entries = [entry for entry in catalogue() if not entry.hidden]
    names = [entry.name for entry in entries]
    pages = {_place(8, "ulvm"): _overview(entries), _place(5, "ulvm.conf"): _configuration()}
    for entry in entries:
        pages[_place(8, f"ulvm-{entry.name}")] = _command(entry, names)
    return pages


def _place(section: int, name: str) -> Path:
    return Path(f"man{section}", f"{name}.{section}")


# -- roff -----------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """Text in which nothing is a request or an escape."""
    text = text.replace("\\", "\\e").replace("`", "\\(cq").replace("'", "\\(cq")
    return re.sub(r"^(?=\.)", r"\\&", text, flags=re.MULTILINE)


def _literal(text: str) -> str:
    """Words that are typed: a hyphen is a minus, a quote as it is on the keyboard."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return re.sub(r"^(?=\.)", r"\\&", text, flags=re.MULTILINE)


def _head(section: int, name: str, summary: str) -> Iterator[str]:
    version = f"ulvm {ulvm.__version__}"
    yield f'.TH "{name.upper()}" {section} "{_DATE}" "{version}" "System Manager\'s Manual"'
    yield ".SH NAME"
    yield f"{_literal(name)} \\- {_plain(summary)}"


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs; one that begins with a line `\\b`, as click has it, keeps its lines."""
    for number, block in enumerate(re.split(r"\n\s*\n", text.strip("\n"))):
        if number:
            yield ".PP"
        lines = block.splitlines()
        if lines and lines[0].strip(" ") == "\b":
            yield from (".nf", *(_literal(line) for line in lines[1:]), ".fi")
        else:
            yield from (_plain(line.strip()) for line in lines)


def _items(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for what, text in pairs:
        yield from (".TP", f".B {_literal(what)}", *_paragraphs(text))


def _options(options: Iterable[OptionInfo]) -> Iterator[str]:
    for option in options:
        many = option.repeatable and option.value and not option.value.endswith("...")
        more = " ..." if many else ""
        head = _styled(option_pieces(option, pad=False)) + more
        yield from (".TP", head, *_paragraphs(option.help or "See lvm(8)."))


def _styled(pieces: Iterable[Piece]) -> str:
    """What is typed in bold, what stands for something in italics."""
    fonts = {"bold": "B", "italic": "I", "plain": "R"}
    return "".join(f"\\f{fonts[style]}{_literal(text)}\\fR" for style, text in pieces)


# -- pages ----------------------------------------------------------------------------------------


def _command(entry: Entry, names: Sequence[str]) -> str:
    """The page of a command; `names` are those that have one."""
    name = f"ulvm-{entry.name}"
    forms = entry.subcommands or (entry,)
    lines = [*_head(8, name, entry.summary), ".SH SYNOPSIS", *_synopsis(forms)]
    lines += [".SH DESCRIPTION", *_paragraphs(entry.description)]
    if any(len(synopses(one)) > 1 for one in forms) or entry.subcommands:
        lines += [".SH USAGE", *(line for one in forms if not one.hidden for line in _usage(one))]
    else:
        lines += _own_options(entry, ".SH OPTIONS")
    lines += [".SH COMMON OPTIONS", *_options(lvm_options(forms[0])), *_items(_ASK_FOR_HELP)]
    if entry.name.startswith(("pv", "vg", "lv")):
        lines += [".SH VARIABLES", *_items(VARIABLES)]
    if entry.examples:
        lines.append(".SH EXAMPLES")
        for line, what in entry.examples:
            lines += [*([".PP"] if lines[-1] == ".fi" else []), _plain(what), ".PP"]
            lines += [".nf", ".RS", _literal(line), ".RE", ".fi"]
    lines += [".SH EXIT STATUS", *_items(_exit_status(entry))]
    lines += [".SH ENVIRONMENT", *_items(_ENVIRONMENT[:2]), ".PP", "Others: see ulvm(8)."]
    lines += [".SH SEE ALSO", ", ".join(f"{other}" for other in _see_also(entry, names))]
    return "\n".join(lines) + "\n"


def _synopsis(forms: Iterable[Entry]) -> Iterator[str]:
    """The first line of each form."""
    yield ".nf"
    for entry in forms:
        if not entry.hidden:
            for form in synopses(entry):
                names = form.names or form.more
                one = [("plain", " "), ("italic", "OPTION"), ("plain", " ...")]
                end = [*(one if form.any_of else []), *([("plain", " "), *names] if names else [])]
                yield _styled([*form.line, *end]) + " [ \\fIOPTIONS\\fR ]"
    yield ".fi"


def _usage(entry: Entry) -> Iterator[str]:
    """All forms of a command, and what its options do."""
    if " " in entry.name:
        yield f".SS {_literal(entry.name)}"
        yield from _paragraphs(entry.description)
        yield ".PP"
    for number, form in enumerate(synopses(entry)):
        yield from [".PP"] if number else []
        yield from [_plain(line.strip()) for line in form.what.split("\n") if line]
        yield from [".PP"] if form.what else []
        yield from (".nf", _styled(form.line), ".RS 4")
        for at, pieces in enumerate(form.any_of):
            end = " )" if at == len(form.any_of) - 1 else ","
            yield f"{'( ' if at == 0 else '  '}{_styled(pieces)}{end}"
        yield from [_styled(form.names)] if form.names else []
        yield from (
            _styled(pieces) for pieces in (*form.takes, *([form.more] if form.more else []))
        )
        yield from (".RE", ".fi")
    yield from _own_options(entry, ".SS Options" if " " in entry.name else ".SH OPTIONS")


def _own_options(entry: Entry, title: str) -> list[str]:
    own = command_options(entry)
    return [title, *_options(own)] if own else []


def _exit_status(entry: Entry) -> tuple[tuple[str, str], ...]:
    if entry.name == "dmsetup":
        return (("0", "All was done."), ("1", "The command line is wrong, or something failed."))
    return _EXIT_STATUS


def _see_also(entry: Entry, names: Sequence[str]) -> list[str]:
    """Commands of the same family."""
    family = [name for name in names if name[:2] == entry.name[:2] and name != entry.name]
    if not entry.name.startswith(("pv", "vg", "lv")):
        family = _RELATED.get(entry.name, [])
    return ["ulvm(8)", "ulvm.conf(5)", *(f"ulvm\\-{name}(8)" for name in family)]


def _overview(entries: list[Entry]) -> str:
    lines = [*_head(8, "ulvm", "LVM2 with copy-on-write snapshots in user space")]
    lines += [".SH SYNOPSIS", "\\fBulvm\\fR [\\fICOMMAND\\fR [\\fIARGUMENTS\\fR]]"]
    lines += [".SH DESCRIPTION", *_paragraphs(_INTRODUCTION)]
    lines += [".SH COMMANDS", *_items((f"ulvm-{e.name}(8)", f"{e.summary}.") for e in entries)]
    lines += [".SH NAMES AND SIZES", *_paragraphs(_NAMES)]
    lines += [".SH ENVIRONMENT", *_items(_ENVIRONMENT)]
    lines += [".SH FILES", *_items(_FILES)]
    lines += [".SH EXIT STATUS", *_items(_EXIT_STATUS)]
    lines += [".SH SEE ALSO", "ulvm.conf(5), lvm(8), lvmsystemid(7), lvmreport(7)"]
    return "\n".join(lines) + "\n"


def _configuration() -> str:
    lines = [*_head(5, "ulvm.conf", "settings of ulvm")]
    lines += [".SH DESCRIPTION", *_paragraphs(_CONFIGURATION)]
    for section in known_sections().values():
        members = [
            s for s in known_settings().values() if s.section == section.name and s.has_effect
        ]
        if members:
            lines += [f".SH SECTION {section.name.upper()}", _plain(section.summary)]
            lines += _items((s.path, _setting(s)) for s in members)
    lines += [".SH SETTINGS WITHOUT EFFECT", _plain("They are known for LVM2's sake.")]
    reasons: dict[str, list[str]] = {}
    for setting in known_settings().values():
        if not setting.has_effect:
            reasons.setdefault(setting.summary, []).append(setting.path)
    lines += _items((", ".join(paths), reason) for reason, paths in reasons.items())
    lines += [".SH SEE ALSO", "ulvm(8), ulvm-lvmconfig(8), lvm.conf(5)"]
    return "\n".join(lines) + "\n"


def _setting(setting: Setting) -> str:
    directories = {"SYS": Path("/etc/ulvm"), "RUN": Path("/run/ulvm")}
    default = setting.default_text(directories)
    if default is None:
        return f"{setting.summary} Not set by default."
    return f"{setting.summary} Default: {default}"
