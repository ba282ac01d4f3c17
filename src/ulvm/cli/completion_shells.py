"""The scripts by which bash, zsh and fish complete command lines of ulvm.

Each asks the program for names only when they are wanted: with one command, which neither locks nor
asks the daemon what is active.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ulvm.cli.catalogue import OptionInfo

__all__ = ["SHELLS", "Completed", "Value"]


@dataclass(frozen=True)
class Value:
    """What follows an option: a kind as for arguments, `fields` or `dmfields` for lists of them, or
    `words`, which are given."""

    kind: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completed:
    """A command. `first` and `rest`: kinds of its arguments; `words` may be the first one."""

    name: str
    summary: str
    first: str
    rest: str
    words: Sequence[str]
    options: Mapping[tuple[str, ...], OptionInfo]
    values: Mapping[tuple[str, ...], Value | None]

    def spellings(self) -> list[str]:
        return [*(s for spellings in self.options for s in spellings), "--help", "--longhelp"]

    def expected(self, before: Sequence[str]) -> tuple[str, Sequence[str]]:
        """The kind of the word behind those `before`, and for `words` the words."""
        valued = {s: value for spellings, value in self.values.items() if value for s in spellings}
        if before and before[-1] in valued:
            return valued[before[-1]].kind, valued[before[-1]].words
        pairs = zip(["", *before], before, strict=False)
        if any(not word.startswith("-") and last not in valued for last, word in pairs):
            return self.rest, ()
        return self.first, self.words


Fields: TypeAlias = Mapping[str, Sequence[str]]


def _filled(template: str, **parts: str) -> str:
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


# -- bash -----------------------------------------------------------------------------------------

_BASH = r"""# Completion of ulvm for bash.
_ulvm_ask() {
    command ulvm "$@" --noheadings --readonly 2>/dev/null
}

_ulvm_of() {
    case $1 in
    groups) _ulvm_ask vgs -o vg_name ;;
    volumes) _ulvm_ask vgs -o vg_name,lv_full_name | tr -s ' ' '\n' ;;
    disks) _ulvm_ask pvs -o pv_name ;;
    devices) command ulvm dmsetup info -c --noheadings -o name 2>/dev/null ;;
    esac | sort -u
}

_ulvm_fields='@FIELDS@'
_ulvm_dmfields='@DMFIELDS@'

_ulvm() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} at=$COMP_CWORD
    local name=${COMP_WORDS[0]##*/} options= valued= kind=files rest=files words= value= start= i
    local found quoted
    COMPREPLY=()
    if [[ $name == ulvm || $name == lvm ]]; then
        if ((COMP_CWORD == 1)); then
            COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
            return
        fi
        name=${COMP_WORDS[1]} at=$((at - 1))
    fi
    # bash parts --option=value at the sign.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $name in
@CASES@
    esac
    case $name:$before in
@VALUES@
    *) [[ " $valued " == *" $before "* ]] && return ;;
    esac
    if [[ -n $value ]]; then
        kind=${value%%:*} words=${value#*:}
    elif [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
        return
    else
        # Which argument it is: options and their values do not count.
        for ((i = COMP_CWORD - at + 1; i < COMP_CWORD; i++)); do
            if [[ ${COMP_WORDS[i]} != -* && " $valued " != *" ${COMP_WORDS[i-1]} "* ]]; then
                kind=$rest
                break
            fi
        done
    fi
    case $kind in
    words) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
    fields | dmfields)
        start=${word%"${word##*[,+-]}"}
        words=_ulvm_$kind
        COMPREPLY=($(compgen -P "$start" -W "${!words}" -- "${word#"$start"}"))
        compopt -o nospace
        ;;
    groups | volumes | disks | devices)
        # A disk's name may be anything: compgen -W would run what is in it.
        [[ $kind == disks || $word != /* ]] &&
            while read -r found; do
                printf -v quoted %q "$found"
                [[ -n $found && $quoted == "$word"* ]] && COMPREPLY+=("$quoted")
            done < <(_ulvm_of $kind)
        ;;
    esac
    if [[ ${#COMPREPLY[@]} == 0 && -n $kind && $kind != words && $kind != *fields ]]; then
        COMPREPLY=($(compgen -f -- "$word"))
        compopt -o filenames
    fi
}
complete -F _ulvm @NAMES@
"""


def _bash(commands: list[Completed], names: Iterable[str], fields: Fields) -> str:
    cases, values = [], []
    for one in commands:
        valued = [s for spellings, value in one.values.items() if value for s in spellings]
        cases.append(
            f"    {one.name}) kind={one.first} rest={one.rest} options='"
            f"{' '.join(one.spellings())}' valued='{' '.join(valued)}'"
            + (f" words='{' '.join(one.words)}'" if one.words else "")
            + " ;;"
        )
        for spellings, value in one.values.items():
            if value is not None and value.kind:
                pattern = "|".join(f"{one.name}:{s}" for s in spellings)
                values.append(f"    {pattern}) value='{value.kind}:{' '.join(value.words)}' ;;")
    return _filled(
        _BASH,
        COMMANDS=" ".join(one.name for one in commands),
        CASES="\n".join(cases),
        VALUES="\n".join(values),
        NAMES=" ".join(names),
        FIELDS=" ".join(fields["fields"]),
        DMFIELDS=" ".join(fields["dmfields"]),
    )


# -- zsh ------------------------------------------------------------------------------------------

_ZSH = r"""#compdef @NAMES@
# Completion of ulvm for zsh.
_ulvm_ask() {
    local -aU found
    found=(${=$(command ulvm "$@" --noheadings --readonly 2>/dev/null)})
    compadd -a found
}

_ulvm_groups() { _ulvm_ask vgs -o vg_name }
_ulvm_volumes() { _ulvm_ask vgs -o vg_name,lv_full_name || _files }

_ulvm_disks() {
    # A disk's name may have blanks.
    local name
    local -aU found
    command ulvm pvs -o pv_name --noheadings --readonly 2>/dev/null |
        while read -r name; do found+=("$name"); done
    compadd -a found
    _files
}

_ulvm_devices() {
    local -a found
    found=(${(f)"$(command ulvm dmsetup info -c --noheadings -o name 2>/dev/null)"})
    compadd -a found
}

_ulvm_fields() {
    local -a found
    found=(@FIELDS@)
    compset -P '*[,+-]'
    compadd -S '' -a found
}

_ulvm_dmfields() {
    local -a found
    found=(@DMFIELDS@)
    compset -P '*[,+-]'
    compadd -S '' -a found
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


def _zsh(commands: list[Completed], names: Iterable[str], fields: Fields) -> str:
    listed = "\n".join(f"        '{one.name}:{_quoted(one.summary)}'" for one in commands)
    cases = []
    for one in commands:
        specs = [
            f"        {spec} \\"
            for spellings, option in one.options.items()
            for spec in _zsh_option(option, one.values[spellings])
        ]
        specs.append("        '(- *)'{-h,--help,--longhelp}'[Show how it is used.]' \\")
        first, rest = (_zsh_action(kind, one.words) for kind in (one.first, one.rest))
        cases += [
            f"    {one.name}) _arguments -S \\",
            *specs,
            f"        '1:{one.first or 'name'}:{first}' '*:{one.rest or 'name'}:{rest}' ;;",
        ]
    return _filled(
        _ZSH,
        NAMES=" ".join(names),
        COMMANDS=listed,
        CASES="\n".join(cases),
        FIELDS=" ".join(fields["fields"]),
        DMFIELDS=" ".join(fields["dmfields"]),
    )


def _zsh_action(kind: str, words: Sequence[str]) -> str:
    if kind == "words":
        return f"({' '.join(words)})"
    return {"": "", "files": "_files"}.get(kind, f"_ulvm_{kind}")


def _zsh_option(option: OptionInfo, value: Value | None) -> Iterator[str]:
    what = _quoted(option.help).replace("[", "\\[").replace("]", "\\]")
    for spelling in option.spellings:
        others = "" if option.repeatable else f"({' '.join(option.spellings)})"
        many = "*" if option.repeatable else ""
        if value is None:
            yield f"'{others}{many}{spelling}[{what}]'"
        else:
            equals = "=" if spelling.startswith("--") else "+"
            word = option.value.replace(":", "\\:").replace("'", "")
            action = _zsh_action(value.kind, value.words)
            yield f"'{others}{many}{spelling}{equals}[{what}]:{word}:{action}'"


def _quoted(text: str) -> str:
    """Inside single quotes, with what zsh takes for the end of a description escaped."""
    return " ".join(text.split()).replace("'", "'\\''").replace(":", "\\:")


# -- fish -----------------------------------------------------------------------------------------

_FISH = r"""# Completion of ulvm for fish.
function __ulvm_ask
    command ulvm $argv --noheadings --readonly 2>/dev/null | string match -ra '\S+' | sort -u
end

function __ulvm_groups
    __ulvm_ask vgs -o vg_name
end

function __ulvm_volumes
    __ulvm_ask vgs -o vg_name,lv_full_name
end

function __ulvm_disks
    # A disk's name may have blanks.
    command ulvm pvs -o pv_name --noheadings --readonly 2>/dev/null | string trim | sort -u
    __fish_complete_path (commandline -ct)
end

function __ulvm_devices
    command ulvm dmsetup info -c --noheadings -o name 2>/dev/null
end

function __ulvm_listed
    # What has been typed of a list stands before each of the names.
    set -l value (commandline -ct | string replace -r '^--[a-z]+=' '')
    set -l start (string match -r '^.*[,+-]' -- $value)
    printf '%s\n' "$start"$argv
end

function __ulvm_fields
    __ulvm_listed @FIELDS@
end

function __ulvm_dmfields
    __ulvm_listed @DMFIELDS@
end

function __ulvm_words
    set -l words (commandline -opc)
    if contains -- (path basename $words[1]) ulvm lvm
        set -e words[1]
    end
    printf '%s\n' $words
end

function __ulvm_is
    set -l words (__ulvm_words)
    test (count $words) -gt 0; and contains -- (path basename $words[1]) $argv
end

function __ulvm_begins
    __ulvm_is $argv; and test (count (__ulvm_words | string match -v -- '-*')) -eq 1
end

function __ulvm_goes_on
    __ulvm_is $argv; and test (count (__ulvm_words | string match -v -- '-*')) -gt 1
end

function __ulvm_first
    test (count (commandline -opc)) -eq 1
end

"""


def _fish(commands: list[Completed], names: Iterable[str], fields: Fields) -> str:
    lines = []
    for name in names:
        if name in ("ulvm", "lvm"):
            for one in commands:
                lines.append(
                    f"complete -c {name} -n __ulvm_first -f -a {one.name} "
                    f"-d '{_fish_quoted(one.summary)}'"
                )
        for one in commands:
            if name in ("ulvm", "lvm", one.name):
                lines += _fish_command(name, one)
    functions = _filled(
        _FISH, FIELDS=" ".join(fields["fields"]), DMFIELDS=" ".join(fields["dmfields"])
    )
    return functions + "\n".join(lines) + "\n"


def _fish_command(name: str, one: Completed) -> Iterator[str]:
    start = f"complete -c {name}"
    for when, kind in (("begins", one.first), ("goes_on", one.rest)):
        if kind != "files":
            action = _fish_action(kind, one.words)
            yield f"{start} -n '__ulvm_{when} {one.name}' -f{f' -a {action}' if action else ''}"
    for spellings, option in one.options.items():
        spelled = " ".join(
            f"-l {s[2:]}" if s.startswith("--") else f"-s {s[1:]}" for s in spellings
        )
        value = one.values[spellings]
        takes = "" if value is None else " -r" if value.kind == "files" else " -x"
        action = "" if value is None else _fish_action(value.kind, value.words)
        if action:
            takes += f" -a {action}"
        what = _fish_quoted(option.help)
        yield f"{start} -n '__ulvm_is {one.name}' {spelled}{takes} -d '{what}'"


def _fish_action(kind: str, words: Sequence[str]) -> str:
    if kind == "words":
        return f"'{' '.join(words)}'"
    return "" if kind in ("", "files") else f"'(__ulvm_{kind})'"


def _fish_quoted(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("'", "\\'")


SHELLS: dict[str, Callable[[list[Completed], Iterable[str], Fields], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
"""How the script for a shell is made."""
