"""Completion for bash, zsh and fish: scripts with all commands and options in them, which ask the
program for nothing but the names of volumes and groups.

One table serves the three: for each command its options, which of them take a value and out of
which words, and what its arguments are. `--links` lets the scripts serve LVM2's names as well, for
who has the command links first in PATH.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ulvm.cli.catalogue import Entry, OptionInfo, catalogue
from ulvm.cli.links import link_names

__all__ = ["SHELLS", "completion_script"]

_GROUP_COMMANDS = ("vg", "lvcreate")
"""How commands begin whose arguments are volume groups."""
_VOLUME_COMMANDS = ("lv", "mount", "backup")


def completion_script(shell: str, *, links: bool = False) -> str:
    """The script for a shell of `SHELLS`; `links`: for LVM2's names, too."""
    entries = [entry for entry in catalogue() if not entry.hidden]
    names = ["ulvm", *(link_names() if links else ())]
    return SHELLS[shell](entries, names)


def _kind(entry: Entry) -> str:
    """What the arguments of a command are: groups, volumes, names of commands, or files."""
    if entry.name == "help":
        return "commands"
    if entry.subcommands:
        return "words"
    if entry.name.startswith(_GROUP_COMMANDS):
        return "groups"
    return "volumes" if entry.name.startswith(_VOLUME_COMMANDS) else "files"


def _options(entry: Entry) -> list[OptionInfo]:
    """With those of its subcommands."""
    seen: dict[tuple[str, ...], OptionInfo] = {}
    for one in (entry, *entry.subcommands):
        seen.update({option.spellings: option for option in one.options if not option.hidden})
    return list(seen.values())


def _words(entry: Entry) -> list[str]:
    return [inner.name.split(" ")[-1] for inner in entry.subcommands]


# -- bash -----------------------------------------------------------------------------------------

_BASH = r"""# Completion of ulvm for bash.
_ulvm_names() {
    command ulvm "$@" --noheadings 2>/dev/null | tr -d ' '
}

_ulvm() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} first=1
    local name=${COMP_WORDS[0]##*/} options= values= kind=files words=
    COMPREPLY=()
    if [[ $name == ulvm || $name == lvm ]]; then
        if ((COMP_CWORD == 1)); then
            COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
            return
        fi
        name=${COMP_WORDS[1]} first=2
    fi
    case $name in
@CASES@
    esac
    case $name:$before in
@VALUES@
    esac
    if [[ -n $values ]]; then
        COMPREPLY=($(compgen -W "$values" -- "$word"))
    elif [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options --help" -- "$word"))
    elif [[ $kind == words ]]; then
        if ((COMP_CWORD == first)); then
            COMPREPLY=($(compgen -W "$words" -- "$word"))
        fi
    elif [[ $word != */* && $kind == groups ]]; then
        COMPREPLY=($(compgen -W "$(_ulvm_names vgs -o vg_name)" -- "$word"))
    elif [[ $word != /* && $kind == volumes ]]; then
        COMPREPLY=($(compgen -W "$(_ulvm_names vgs -o vg_name) \
            $(_ulvm_names lvs -o lv_full_name)" -- "$word"))
    fi
    if [[ ${#COMPREPLY[@]} == 0 && $word != -* ]]; then
        COMPREPLY=($(compgen -f -- "$word"))
        compopt -o filenames
    fi
}
complete -F _ulvm @NAMES@
"""


def _bash(entries: list[Entry], names: Iterable[str]) -> str:
    cases, values = [], []
    for entry in entries:
        kind, words = _kind(entry), _words(entry)
        if kind == "commands":
            kind, words = "words", [e.name for e in entries]
        spellings = " ".join(s for option in _options(entry) for s in option.spellings)
        more = f" words='{' '.join(words)}'" if words else ""
        cases.append(f"    {entry.name}) kind={kind} options='{spellings}'{more} ;;")
        for option in _options(entry):
            if option.choices:
                pattern = "|".join(f"{entry.name}:{s}" for s in option.spellings)
                values.append(f"    {pattern}) values='{' '.join(option.choices)}' ;;")
    return _filled(
        _BASH,
        COMMANDS=" ".join(entry.name for entry in entries),
        CASES="\n".join(cases),
        VALUES="\n".join(values),
        NAMES=" ".join(names),
    )


def _filled(template: str, **parts: str) -> str:
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


# -- zsh ------------------------------------------------------------------------------------------

_ZSH = r"""#compdef @NAMES@
# Completion of ulvm for zsh.
_ulvm_groups() {
    local -a found
    found=(${(f)"$(command ulvm vgs --noheadings -o vg_name 2>/dev/null | tr -d ' ')"})
    compadd -a found
}

_ulvm_volumes() {
    local -a found
    found=(${(f)"$(command ulvm lvs --noheadings -o lv_full_name 2>/dev/null | tr -d ' ')"})
    compadd -a found
    _ulvm_groups
}

_ulvm_commands() {
    local -a commands
    commands=(
@COMMANDS@
    )
    _describe command commands
}

_ulvm() {
    local name=${words[1]:t}
    if [[ $name == ulvm || $name == lvm ]]; then
        if ((CURRENT == 2)); then
            _ulvm_commands
            return
        fi
        shift words
        ((CURRENT--))
        name=$words[1]
    fi
    case $name in
@CASES@
    *) _files ;;
    esac
}

_ulvm "$@"
"""
_ZSH_KINDS = {
    "groups": "_ulvm_groups",
    "volumes": "_ulvm_volumes",
    "files": "_files",
    "commands": "_ulvm_commands",
}


def _zsh(entries: list[Entry], names: Iterable[str]) -> str:
    commands = "\n".join(f"        '{entry.name}:{_quoted(entry.summary)}'" for entry in entries)
    cases = []
    for entry in entries:
        kind = _kind(entry)
        rest = _ZSH_KINDS.get(kind) or f"({' '.join(_words(entry))})"
        specs = [f"        {spec} \\" for option in _options(entry) for spec in _zsh_option(option)]
        cases += [f"    {entry.name}) _arguments -S \\", *specs, f"        '*:{kind}:{rest}' ;;"]
    return _filled(_ZSH, NAMES=" ".join(names), COMMANDS=commands, CASES="\n".join(cases))


def _zsh_option(option: OptionInfo) -> Iterator[str]:
    what = _quoted(option.help).replace("[", "\\[").replace("]", "\\]")
    for spelling in option.spellings:
        others = "" if option.repeatable else f"({' '.join(option.spellings)})"
        many = "*" if option.repeatable else ""
        if not option.value:
            yield f"'{others}{many}{spelling}[{what}]'"
        else:
            values = f"({' '.join(option.choices)})" if option.choices else ""
            equals = "=" if spelling.startswith("--") else "+"
            word = option.value.replace(":", "\\:").replace("'", "")
            yield f"'{others}{many}{spelling}{equals}[{what}]:{word}:{values}'"


def _quoted(text: str) -> str:
    """Inside single quotes, with what zsh takes for the end of a description escaped."""
    return " ".join(text.split()).replace("'", "'\\''").replace(":", "\\:")


# -- fish -----------------------------------------------------------------------------------------

_FISH = r"""# Completion of ulvm for fish.
function __ulvm_groups
    command ulvm vgs --noheadings -o vg_name 2>/dev/null | string trim
end

function __ulvm_volumes
    command ulvm lvs --noheadings -o lv_full_name 2>/dev/null | string trim
    __ulvm_groups
end

function __ulvm_is
    set -l words (commandline -opc)
    if contains -- (path basename $words[1]) ulvm lvm
        set -e words[1]
    end
    test (count $words) -gt 0; and contains -- (path basename $words[1]) $argv
end

function __ulvm_first
    test (count (commandline -opc)) -eq 1
end

"""
_FISH_KINDS = {
    "groups": "'(__ulvm_groups)'",
    "volumes": "'(__ulvm_volumes)'",
}


def _fish(entries: list[Entry], names: Iterable[str]) -> str:
    lines = []
    for name in names:
        if name in ("ulvm", "lvm"):
            for entry in entries:
                lines.append(
                    f"complete -c {name} -n __ulvm_first -f -a {entry.name} "
                    f"-d '{_fish_quoted(entry.summary)}'"
                )
        for entry in entries:
            if name in ("ulvm", "lvm", entry.name):
                lines += _fish_entry(name, entry, entries)
    return _FISH + "\n".join(lines) + "\n"


def _fish_entry(name: str, entry: Entry, entries: list[Entry]) -> Iterator[str]:
    start = f"complete -c {name} -n '__ulvm_is {entry.name}'"
    kind = _kind(entry)
    words = [e.name for e in entries] if kind == "commands" else _words(entry)
    if words:
        yield f"{start} -f -a '{' '.join(words)}'"
    elif kind in _FISH_KINDS:
        yield f"{start} -a {_FISH_KINDS[kind]}"
    for option in _options(entry):
        spelled = " ".join(
            f"-l {s[2:]}" if s.startswith("--") else f"-s {s[1:]}" for s in option.spellings
        )
        value = " -x" if option.choices else " -r" if option.value else ""
        choices = f" -a '{' '.join(option.choices)}'" if option.choices else ""
        yield f"{start} {spelled}{value}{choices} -d '{_fish_quoted(option.help)}'"


def _fish_quoted(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("'", "\\'")


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
"""How the script for a shell is made."""
