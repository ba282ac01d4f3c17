"""dmsetup on a real daemon: what it prints is what Debian's dmsetup prints."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.host import UlvmHost

MIB = 1 << 20


@pytest.fixture
def files(host: UlvmHost) -> UlvmHost:
    """Files a, b of 4 MiB in the base directory."""
    for name in "ab":
        host.image(f"{name}", "4M")
    return host


def table(host: UlvmHost, kind: str, *words: object) -> str:
    paths = {"A": f"{host.base}/a", "B": f"{host.base}/b"}
    return " ".join([kind, *(paths.get(str(w), str(w)) for w in words)])


def test_nothing_without_a_daemon(host: UlvmHost) -> None:
    for command in ("table", "status", "info", "ls", "deps", "info -c", "ls --tree"):
        assert host.run(f"dmsetup {command}").stdout == "No devices found\n"
    assert "Device does not exist." in host.run("dmsetup info x", rc=1).stderr
    assert not (host.run_dir / "ulvmd.lock").exists()


def test_the_life_of_a_device(files: UlvmHost) -> None:
    host = files
    host.run(f"dmsetup create one --table '0 8192 {table(host, 'linear', 'A', 0)}'")
    assert host.run("dmsetup table one").stdout == "0 8192 linear 240:0 0\n"
    assert host.run("dmsetup table").stdout == "one: 0 8192 linear 240:0 0\n"
    assert host.run("dmsetup status one").stdout == "0 8192 linear \n"
    assert host.run("dmsetup ls").stdout == "one\t(253:0)\n"
    assert host.run("dmsetup deps").stdout == "one: 1 dependencies\t: (240, 0)\n"
    assert host.run("dmsetup deps -o devname one").stdout == (
        f"1 dependencies\t: ({host.base}/a)\n"
    )
    host.run(f"dmsetup load one --table '0 4096 {table(host, 'linear', 'B', 0)}'")
    shown = host.run("dmsetup info one").stdout
    assert shown == (
        "Name:              one\n"
        "State:             ACTIVE\n"
        "Read Ahead:        256\n"
        "Tables present:    LIVE & INACTIVE\n"
        "Open count:        0\n"
        "Event number:      0\n"
        "Major, minor:      253, 0\n"
        "Number of targets: 1\n"
        "\n"
    )
    assert host.run("dmsetup table --inactive one").stdout == "0 4096 linear 240:1 0\n"
    host.run("dmsetup suspend one")
    assert "SUSPENDED" in host.run("dmsetup info one").stdout
    host.run("dmsetup resume one")
    assert host.run("dmsetup table one").stdout == "0 4096 linear 240:1 0\n"
    host.run("dmsetup rename one two")
    host.run("dmsetup rename --setuuid two MY-uuid")
    assert host.run("dmsetup info -c --noheadings -o name,uuid,attr").stdout == "two:MY-uuid:L--w\n"
    assert host.run("dmsetup table -u MY-uuid").stdout == "0 4096 linear 240:1 0\n"
    assert host.run("dmsetup table -j 253 -m 0").stdout == "0 4096 linear 240:1 0\n"
    host.run("dmsetup load two --table '0 100 zero'")
    host.run("dmsetup clear two")
    assert "LIVE\n" in host.run("dmsetup info two").stdout
    host.run("dmsetup remove two")
    assert host.run("dmsetup ls").stdout == "No devices found\n"


def test_a_table_from_standard_input_and_from_a_file(files: UlvmHost) -> None:
    host = files
    lines = f"0 2048 linear {host.base}/a 0\n2048 2048 zero\n4096 8 error\n"
    host.run("dmsetup create x", input=lines)
    assert len(host.run("dmsetup table x").stdout.splitlines()) == 3
    Path(host.base / "t").write_text("0 8 zero\n")
    host.run("dmsetup reload x t")
    host.run("dmsetup resume x")
    assert host.run("dmsetup table x").stdout == "0 8 zero \n"


def test_devices_in_a_table_by_every_name(files: UlvmHost) -> None:
    host = files
    host.run(f"dmsetup create low --table '0 8192 linear {host.base}/a 0'")
    for name in ("low", "/dev/mapper/low", f"{host.run_dir}/dev/mapper/low", "253:0"):
        host.run(f"dmsetup create top --table '0 100 linear {name} 0'")
        assert host.run("dmsetup table top").stdout == "0 100 linear 253:0 0\n"
        assert "(253:0)" in host.run("dmsetup ls --tree").stdout
        host.run("dmsetup remove top")
    host.run("dmsetup create again --table '0 100 linear 240:0 0'")
    assert host.run("dmsetup table again").stdout == "0 100 linear 240:0 0\n"


def test_a_snapshot_by_hand(files: UlvmHost) -> None:
    host = files
    host.run(f"dmsetup create org --table '0 8192 snapshot-origin {host.base}/a'")
    host.run(f"dmsetup create snap --table '0 8192 snapshot {host.base}/a {host.base}/b P 8'")
    with open(host.path("mapper/org"), "r+b", buffering=0) as stream:
        stream.write(b"new" * 1000)
    assert host.run("dmsetup status snap").stdout == "0 8192 snapshot 24/8192 16\n"
    assert host.path("mapper/snap").read_bytes()[:3000] == bytes(3000)
    tree = host.run("dmsetup ls --tree").stdout
    assert tree == ("org (253:0)\n `- (240:0)\nsnap (253:1)\n |- (240:1)\n `- (240:0)\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 8 nosuch", "unknown target type"),
        ("0 8 linear nowhere 0", "Device lookup failed"),
        ("0 8 linear /nowhere/at/all 0", "Device lookup failed"),
        ("8 8 zero", "Gap in table"),
        ("0 0 zero", "zero-length"),
        ("0 18014398509481984 zero", "too large device"),
        ("0 8 snapshot A A P 8", "cannot be the same"),
        ("0 8 snapshot A B P 3", "Couldn't create exception store"),
        ("0 99999999 linear A 0", ""),
        ("nonsense", "Invalid format"),
    ],
)
def test_a_refused_table_leaves_no_device(files: UlvmHost, text: str, reason: str) -> None:
    host = files
    words = [{"A": f"{host.base}/a", "B": f"{host.base}/b"}.get(w, w) for w in text.split()]
    before = [(host.base / n).read_bytes() for n in "ab"]
    done = host.run(f"dmsetup create bad --table '{' '.join(words)}'", rc=1)
    assert reason in done.stderr
    assert done.stderr.endswith("Command failed.\n")
    assert host.run("dmsetup ls").stdout == "No devices found\n"
    assert [(host.base / n).read_bytes() for n in "ab"] == before


def test_a_taken_name_and_a_device_in_use(files: UlvmHost) -> None:
    host = files
    host.run("dmsetup create x --table '0 8 zero'")
    assert "Device or resource busy" in host.run("dmsetup create x --notable", rc=1).stderr
    with open(host.path("mapper/x"), "rb"):
        assert "Device or resource busy" in host.run("dmsetup remove x", rc=1).stderr
    deadline = time.monotonic() + 10
    while host.run("dmsetup info -c --noheadings -o open x").stdout.strip() != "0":
        assert time.monotonic() < deadline  # the kernel tells of a close a little later
    host.run("dmsetup remove x")
    assert "Unknown command" in host.run("dmsetup frobnicate", rc=1).stderr
    assert "unrecognized option" in host.run("dmsetup ls --nosuch", rc=1).stderr


def test_message_wait_and_targets(files: UlvmHost) -> None:
    host = files
    host.run(f"dmsetup create org --table '0 8192 snapshot-origin {host.base}/a'")
    host.image("small", "32K")
    host.run(f"dmsetup create snap --table '0 8192 snapshot {host.base}/a {host.base}/small P 8'")
    assert "Invalid argument" in host.run("dmsetup message snap 0 hello", rc=1).stderr
    waiting = host.start("dmsetup wait snap 0")
    time.sleep(0.5)
    assert waiting.poll() is None
    with open(host.path("mapper/org"), "r+b", buffering=0) as stream:
        stream.write(os.urandom(MIB))  # more than the COW holds
    assert waiting.wait(30) == 0
    waiting.communicate()
    assert host.run("dmsetup status snap").stdout == "0 8192 snapshot Invalid\n"
    assert "snapshot-merge   v1.5.0" in host.run("dmsetup targets").stdout
    assert host.run("dmsetup splitname --noheadings a--b-c----d-real").stdout == "a-b:c--d:real\n"


def test_a_file_that_another_program_writes_is_refused(files: UlvmHost) -> None:
    host = files
    holder = subprocess.Popen(
        ["sh", "-c", "exec 3<>a; echo ready; read line"],
        cwd=host.base,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    done = host.run(f"dmsetup create x --table '0 8 linear {host.base}/a 0'", rc=1)
    assert "Device or resource busy" in done.stderr
    holder.communicate("\n")
    host.run(f"dmsetup create x --table '0 8 linear {host.base}/a 0'")


def test_a_device_is_what_names_it_and_nothing_else(host: UlvmHost) -> None:
    host.run("dmsetup create one -u two --table '0 8 zero'")
    host.run("dmsetup create two --table '0 16 zero'")
    assert host.run("dmsetup table -u two").stdout == "0 8 zero \n"
    assert host.run("dmsetup table two").stdout == "0 16 zero \n"
    host.run("dmsetup remove two")
    for word in ("two", "253:0"):
        assert "No such device" in host.run(f"dmsetup remove {word}", rc=1).stderr
        assert "Device does not exist." in host.run(f"dmsetup info {word}", rc=1).stderr
    assert "No such device" in host.run("dmsetup remove -u one", rc=1).stderr
    host.run("dmsetup create three --table '0 8 zero'")
    host.run("dmsetup rename -u two three four")  # names go before -u
    host.run("dmsetup remove -u two four")
    assert host.run("dmsetup ls").stdout == "one\t(253:0)\n"
    assert "ioctl on  (253:7) failed" in host.run("dmsetup table -j 253 -m 7", rc=1).stderr
    host.run("dmsetup remove -u two")


def test_a_word_too_many_or_too_few(host: UlvmHost) -> None:
    host.run("dmsetup create x --table '0 8 zero'")
    for words in (
        "remove_all x", "ls x", "ls --tree x", "targets x", "version x", "help ls", "wait x 5 6",
        "load x y z", "rename x y z", "message -u x 0", "setgeometry -u x 1 2 3 4",
        "udevcookies x", "udevcreatecookie x", "udevreleasecookie 1 2",
    ):  # fmt: skip
        said = host.run(f"dmsetup {words}", rc=1)
        assert said.stderr.startswith("Incorrect number of arguments.\nUsage:\n"), words
        assert not said.stdout
    assert host.run("dmsetup ls").stdout == "x\t(253:0)\n"


def test_mangled_names(host: UlvmHost) -> None:
    host.run("dmsetup create 'a é' -u 'u u' --table '0 8 zero'")
    for name in ("a é", r"a\x20\xc3\xa9", r"/dev/mapper/a\x20\xc3\xa9"):
        assert host.run(f"dmsetup table '{name}'").stdout == "0 8 zero \n"
    assert host.run(r"dmsetup table -u 'u\x20u'").stdout == "0 8 zero \n"
    for command in ("create {} --notable", "rename 'a é' {}", "table {}"):
        for name in (r"b\x20 b", r"b\x2"):
            said = host.run("dmsetup " + command.format(f"'{name}'"), rc=1).stderr
            assert "contains mixed mangled and unmangled characters" in said
    no_text = "a" + os.fsdecode(b"\xff")
    argv = host.argv(rf"dmsetup info '{no_text}\x20'")
    refused = subprocess.run(argv, env=host.env, capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"already mangled improperly" in refused.stderr
    for name in ("/dev/mapper/b", "/dev/vg/b"):
        for command in (f"create {name} --notable", f"rename 'a é' {name}"):
            assert f'Name "{name}" invalid.' in host.run(f"dmsetup {command}", rc=1).stderr
    host.run(r"dmsetup create --manglename hex 'c\x20' --notable")
    host.run("dmsetup create b --notable")
    # As the kernel lists them, which knows mangled names.
    listed = [line.split("\t")[0] for line in host.run("dmsetup ls").stdout.splitlines()]
    assert listed == [r"a é", "b", r"c\x20"]


def test_ls_runs_a_command_for_each_device(host: UlvmHost) -> None:
    """Words end at blanks, whatever else is in them."""
    for name in "ab":
        host.run(f"dmsetup create {name} --table '0 8 zero'")
    paths = [host.dm(name) for name in "ab"]
    for words in ("echo  a'", "echo 'a b'"):
        said = host.run(f"dmsetup ls --exec {shlex.quote(words)}").stdout
        assert said.splitlines() == [f"{' '.join(words.split()[1:])} {path}" for path in paths]
    for words in ("nosuch'", "false"):
        assert host.run(f"dmsetup ls --exec {shlex.quote(words)}")[:2] == ("", "")
    for words in ("", " "):
        assert host.run(f"dmsetup ls --exec '{words}'", rc=1).stderr == "Command failed.\n"


def test_devices_before_one_that_is_not_there_are_shown(host: UlvmHost) -> None:
    for name in "ab":
        host.run(f"dmsetup create {name} --table '0 8 zero'")
    assert host.run("dmsetup table a nope b", rc=1).stdout == "a: 0 8 zero \n"
    assert host.run("dmsetup deps a nope b", rc=1).stdout == "a: 0 dependencies\t:\n"
    assert host.run("dmsetup info a nope b", rc=1).stdout.startswith("Name:              a\n")
    said = host.run("dmsetup create c --notable --table '0 8 zero'", rc=1).stderr
    assert said == "--table and --notable are incompatible.\nCouldn't process command line.\n"


def test_concise_devices(host: UlvmHost) -> None:
    host.run(r"dmsetup create --concise 'a\,b,u u,3,,0 8 zero;c,,,ro,0 8 zero,8 8 error'")
    host.run("dmsetup create -r --concise 'd,,,rw,0 8 zero'")
    assert host.run("dmsetup table --concise").stdout == (
        "a\\,b,u u,3,rw,0 8 zero ;c,,0,ro,0 8 zero ,8 8 error ;d,,1,ro,0 8 zero \n"
    )
    assert host.run("dmsetup table --concise --target error").stdout == "c,,0,ro,8 8 error \n"
    assert host.run("dmsetup table --concise --inactive c").stdout == "c,,0,ro\n"
    for words in (
        "-u u",
        "-j 253 -m 5",
        "-n",
        "--table '0 8 zero'",
        "--inactive",
        "'f,,,,0 8 zero'",
    ):
        said = host.run(f"dmsetup create --concise 'e,,,,0 8 zero' {words}", rc=1).stderr
        assert "--concise" in said.splitlines()[0]
    assert host.run("dmsetup info -c --noheadings -o name").stdout == "a,b\nc\nd\n"


def test_an_empty_table_is_none(host: UlvmHost) -> None:
    host.run("dmsetup create a -r --table ''")
    host.run("dmsetup create b --table '0 8 zero # nothing'")
    assert "Tables present:    None\n" in host.run("dmsetup info a").stdout
    assert "(READ-ONLY)" not in host.run("dmsetup info a").stdout
    said = host.run("dmsetup load b --table '# nothing'", rc=1).stderr
    assert "reload ioctl on b  failed: Invalid argument" in said
    assert host.run("dmsetup table").stdout == "a: \nb: 0 8 zero \n"
