"""Manual pages, made from the commands, their help and examples, and the table of settings.

Pages are `ulvm(8)`, `ulvm-COMMAND(8)` for each command, and `ulvm.conf(5)`; names that LVM2's own
pages have are left to it. The text is roff for man(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import ulvm
from ulvm.cli.catalogue import COMMON, Entry, OptionInfo, catalogue
from ulvm.vgstore.settings import UNUSED, Setting, known_sections, known_settings

__all__ = ["manual_pages"]

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

_EXIT_STATUS = (
    ("0", "All was done."),
    ("2", "There is no such command."),
    ("3", "The command line is wrong."),
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
    pages = {_place(8, "ulvm"): _overview(entries), _place(5, "ulvm.conf"): _configuration()}
    for entry in entries:
        pages[_place(8, f"ulvm-{entry.name}")] = _command(entry)
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
    yield f'.TH "{name.upper()}" {section} "" "ulvm {ulvm.__version__}" "System Manager\'s Manual"'
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
        names = ", ".join(f"\\fB{_literal(name)}\\fR" for name in option.spellings)
        value = f" \\fI{_literal(option.value)}\\fR" if option.value else ""
        more = " ..." if option.repeatable else ""
        yield from (".TP", f"{names}{value}{more}", *_paragraphs(option.help or "See lvm(8)."))


# -- pages ----------------------------------------------------------------------------------------


def _command(entry: Entry) -> str:
    name = f"ulvm-{entry.name}"
    lines = [*_head(8, name, entry.summary), *_synopsis(entry), ".SH DESCRIPTION"]
    lines += _paragraphs(entry.description)
    if entry.subcommands:
        lines.append(".SH COMMANDS")
        for inner in entry.subcommands:
            if not inner.hidden:
                lines.append(f".SS {_literal(inner.name)} {_literal(inner.arguments)}".rstrip())
                lines += _paragraphs(inner.description)
                lines += _options(o for o in inner.options if _shown(o) and not _common(o))
    options = [option for option in entry.options if _shown(option)]
    own = [option for option in options if not _common(option)]
    if own:
        lines += [".SH OPTIONS", *_options(own)]
    shared = [option for option in options if _common(option)]
    if not shared and entry.subcommands:
        shared = [o for o in entry.subcommands[0].options if _shown(o) and _common(o)]
    if shared:
        lines += [".SH COMMON OPTIONS", *_options(shared)]
    if entry.examples:
        lines.append(".SH EXAMPLES")
        for line, what in entry.examples:
            lines += [".PP", _plain(what), ".PP", ".nf", f".RS\n{_literal(line)}\n.RE", ".fi"]
    lines += [".SH EXIT STATUS", *_items(_EXIT_STATUS)]
    lines += [".SH SEE ALSO", "ulvm(8), ulvm.conf(5)"]
    return "\n".join(lines) + "\n"


def _synopsis(entry: Entry) -> list[str]:
    lines = [".SH SYNOPSIS"]
    if entry.subcommands:
        for number, inner in enumerate(entry.subcommands):
            lines += [".br"] if number else []
            lines.append(f"\\fBulvm {_literal(inner.name)}\\fR [\\fIOPTIONS\\fR] "
                         f"{_literal(inner.arguments)}".rstrip())  # fmt: skip
        return lines
    line = f"\\fB{_literal(entry.name)}\\fR [\\fIOPTIONS\\fR] {_literal(entry.arguments)}"
    return [*lines, line.rstrip()]


def _shown(option: OptionInfo) -> bool:
    return not option.hidden


def _common(option: OptionInfo) -> bool:
    return option.spellings[-1] in COMMON


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
            s
            for s in known_settings().values()
            if s.section == section.name and s.summary != UNUSED
        ]
        if members:
            lines += [f".SH SECTION {section.name.upper()}", _plain(section.summary)]
            lines += _items((s.path, _setting(s)) for s in members)
    lines += [".SH SEE ALSO", "ulvm(8), ulvm-lvmconfig(8), lvm.conf(5)"]
    return "\n".join(lines) + "\n"


def _setting(setting: Setting) -> str:
    directories = {"SYS": Path("/etc/ulvm"), "RUN": Path("/run/ulvm")}
    default = setting.default_text(directories)
    if default is None:
        return f"{setting.summary} Not set by default."
    return f"{setting.summary} Default: {default}"
