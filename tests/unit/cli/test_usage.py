"""Forms of commands: they name options that are there, `--help` shows them, and so does the answer
to a command line that fits none."""

from __future__ import annotations

import pytest

from ulvm.cli.catalogue import Entry, catalogue
from ulvm.cli.forms import FORMS
from ulvm.cli.main import main
from ulvm.cli.usage import nearest, synopses, text_of

ENTRIES: dict[str, Entry] = {
    one.name: one for entry in catalogue() for one in (entry, *entry.subcommands)
}
OWN_USAGE = ("dmsetup", "fsadm", "lsblk", "daemon", "devices", "monitor")


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_form_names_what_the_command_takes(name: str) -> None:
    options = {s for option in ENTRIES[name].options if not option.hidden for s in option.spellings}
    for form in FORMS[name]:
        words = f"{form.needs} {form.takes} {form.any_of}".split()
        named = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert named <= options
    assert all(form.what or len(FORMS[name]) == 1 or name == "lvrename" for form in FORMS[name])


def test_every_command_for_volumes_has_its_forms() -> None:
    without = {name for name, entry in ENTRIES.items() if not entry.hidden} - {*FORMS}
    plain = {name for name in without if not ENTRIES[name].arguments}
    assert without - plain - {*OWN_USAGE} == set()


def test_a_form_is_written_as_lvm2_writes_it() -> None:
    form = next(f for f in synopses(ENTRIES["lvcreate"]) if "COW snapshot" in f.what)
    assert text_of(form.line) == "lvcreate -s|--snapshot -L|--size Size[m|UNIT] LV"
    taken = [text_of(pieces) for pieces in form.takes]
    assert "[ -l|--extents Number[PERCENT] ]" in taken
    assert "[    --type snapshot ]" in taken
    assert text_of(form.more) == "[ PV ... ]"


NEAREST = "Nearest similar command has syntax:"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("vgcreate", ["Correct command syntax is:", "vgcreate VG_new PV ...", ""]),
        (
            "lvchange -an",
            [NEAREST, "lvchange -a|--activate y|n|ay VG|LV|Tag|Select ...",
             "Activate or deactivate an LV.", ""],
        ),
        (
            "lvconvert --splitsnapshot",
            [NEAREST, "lvconvert --splitsnapshot LV",
             "Separate a COW snapshot from its origin LV.", ""],
        ),
        ("lvconvert", []),
        ("lvrename a", []),
    ],
)  # fmt: skip
def test_a_line_that_fits_no_form_is_answered_with_the_nearest(
    line: str, answer: list[str]
) -> None:
    name, *words = line.split()
    assert nearest(ENTRIES[name], words) == answer


def test_the_nearest_form_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vgcreate"]) == 3
    said = capsys.readouterr()
    assert said.out == "  vgcreate VG_new PV ...\n\n"
    assert said.err.endswith("\n  Correct command syntax is:\n")


def test_help_of_several_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "vgreduce", "daemon", "stop"]) == 0
    shown = capsys.readouterr().out
    assert "\n  vgreduce -a|--all VG\n" in shown
    assert "\n  ulvm daemon stop\n" in shown
    assert main(["help", "nosuch", "lvs"]) == 3
    assert capsys.readouterr().out.startswith("  nosuch: no such command.\n\n  lvs - ")
