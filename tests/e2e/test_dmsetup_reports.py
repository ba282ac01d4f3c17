"""What dmsetup selects, repeats and takes apart, as dmsetup 1.02.185 does."""

from __future__ import annotations

import time

import pytest

from tests.e2e.host import UlvmHost


@pytest.fixture
def devices(host: UlvmHost) -> UlvmHost:
    """a and b with a table, b over a; c with an inactive one beside."""
    host.run("dmsetup create a --table '0 8 zero'")
    host.run("dmsetup create b --table '0 8 linear /dev/mapper/a 0'")
    host.run("dmsetup create c --table '0 8 zero'")
    host.run("dmsetup load c --table '0 16 error'")
    return host


def states(host: UlvmHost) -> str:
    shown = host.run("dmsetup info -c --noheadings --separator = -o name,suspended").stdout
    return shown.replace("\n", " ")


def test_commands_go_by_a_selection(devices: UlvmHost) -> None:
    host = devices
    host.run("dmsetup suspend -S 'name=a || name=c'")
    assert states(host) == "a=Suspended b=Active c=Suspended "
    host.run("dmsetup resume -S 'name=a' a c")
    assert states(host) == "a=Active b=Active c=Suspended "
    host.run("dmsetup clear -S 'name=c'")
    host.run("dmsetup resume -S 'suspended=Suspended'")
    assert states(host) == "a=Active b=Active c=Active "
    assert host.run("dmsetup table -S 'name=a'").stdout == "a: 0 8 zero \n"
    assert host.run("dmsetup table -S 'name=a' a c").stdout == "a: 0 8 zero \n"
    assert host.run("dmsetup status -S 'name=nope'").stdout == ""
    assert host.run("dmsetup deps -S 'name=c'").stdout == "c: 0 dependencies\t:\n"
    assert "selection field: nope" in host.run("dmsetup suspend -S nope=1", rc=1).stderr
    host.run("dmsetup remove -S 'name=nope'")
    said = host.run("dmsetup remove -S 'name=~.'", rc=1).stderr  # what it can
    assert "remove ioctl on a  failed: Device or resource busy" in said
    assert host.run("dmsetup ls").stdout == "a\t(253:0)\n"


def test_columns(devices: UlvmHost) -> None:
    host = devices
    info = "dmsetup info -c --noheadings"
    shown = host.run(f"{info} -o name,selected,tables_loaded -S name=c").stdout
    assert shown == "a:0:Live\nb:0:Live\nc:1:Both\n"
    assert host.run(f"{info} -o name -S tables_loaded=Both").stdout == "c\n"
    assert host.run(f"{info} -o name,major --separator '' a").stdout == "a253\n"
    assert host.run(f"{info} -o name --count 2 a").stdout == "a\n\na\n"
    assert host.run("dmsetup table --count 2 --interval 1 a").stdout == "0 8 zero \n\n0 8 zero \n"
    assert host.run("dmsetup status --inactive").stdout == "a: \nb: \nc: 0 16 error \n"
    assert host.run("dmsetup deps -o devno,devname b").stdout == "1 dependencies\t: (a)\n"
    said = host.run("dmsetup ls --no", rc=1).stderr
    assert said.endswith("Couldn't process command line.\n")


def test_names_are_split(host: UlvmHost) -> None:
    for name, parts in (
        ("a-b-c-d", "a:b:c"), ("-a-b", ":a:b"), ("---a-b", "-:a:b"), ("a--", "a-::"),
        ("a-b-", "a:b-:"), ("a-b---c", "a:b-:c"), ("-", "-::"), ("a--b-c--d-e", "a-b:c-d:e"),
    ):  # fmt: skip
        assert host.run(f"dmsetup splitname --noheadings -- {name}").stdout == f"{parts}\n"
    split = "dmsetup splitname --noheadings"
    assert host.run(f"{split} -o all a-b").stdout == "LVM:a:b:\n"
    assert host.run(f"{split} -o +subsystem a-b CRYPT").stdout == ":::\n"
    assert host.run(f"{split} --rows a-b").stdout == "a\nb\n\n"
    assert host.run(f"{split} -S vg_name=x a-b").stdout == ""


def test_numbers_have_bounds(devices: UlvmHost) -> None:
    host = devices
    host.run("dmsetup setgeometry a 65535 255 255 4")
    for numbers in ("65536 2 3 4", "1 256 3 4", "1 2 256 4", "1 2 3 7"):
        said = host.run(f"dmsetup setgeometry a {numbers}", rc=1).stderr
        assert "setgeometry ioctl on a  failed: Invalid argument" in said
    assert host.run("dmsetup udevflags 0x1800000").stdout == (
        "DM_UDEV_FLAG7='1'\nDM_SUBSYSTEM_UDEV_FLAG0='1'\n"
    )
    assert host.run("dmsetup udevflags 010").stdout == ""
    host.run("dmsetup udevflags 4294967296", rc=1)


def test_a_wait_ends_with_any_other_number(host: UlvmHost) -> None:
    host.run("dmsetup create a --table '0 8 zero'")
    assert host.start("dmsetup wait a 5").wait(30) == 0  # one ahead, as after a restart
    host.run("dmsetup create n --notable")
    waiting = host.start("dmsetup wait n 0")
    time.sleep(1)
    host.run("dmsetup rename n m")
    host.run("dmsetup create n --table '0 8 zero'")
    host.run("dmsetup rename n o")  # an event of another device
    time.sleep(2)
    assert waiting.poll() is None
    host.run("dmsetup load m --table '0 8 zero'")
    host.run("dmsetup resume m")
    host.run("dmsetup rename m p")
    assert waiting.wait(30) == 0
    waiting.communicate()


def test_verbose_names_nothing_twice(devices: UlvmHost) -> None:
    lines = devices.run("dmsetup table -v").stdout.splitlines()
    assert [line for line in lines if "zero" in line] == ["0 8 zero ", "0 8 zero "]
    assert lines[-2:] == ["0 8 zero ", ""]
