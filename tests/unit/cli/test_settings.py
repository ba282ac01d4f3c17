"""Settings that say the same as options do, and options that all commands have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ulvm.cli.main import main
from ulvm.vgstore.config import Config
from ulvm.vgstore.host import Host


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, and an empty host."""
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    path = tmp_path / "pv.img"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    return path


@pytest.mark.parametrize(
    ("words", "out", "err"),
    [
        (["formats", "-qq"], "  lvm2\n", ""),
        (["formats", "--config", 'log/prefix="> "'], "> lvm2\n", ""),
        (["vgs", "no", "--config", 'log/prefix=""'], "",
         'Volume group "no" not found\nCannot process volume group no\n'),
        (["vgs", "--config", "global/test=1"], "",
         "  TEST MODE: Metadata will NOT be updated and volumes will not be (de)activated.\n"),
        (["vgs", "--config", "global/activation=0"], "",
         "  WARNING: Activation disabled. No device-mapper interaction will be attempted.\n"),
        (["vgs", "--config", "nosuch{}"], "", '  Configuration section "nosuch" unknown.\n'),
        (["vgs", "--config", "config/checks=0 nosuch{}"], "", ""),
        (["vgs", "--config", "config/abort_on_errors=1 nosuch{}"], "",
         '  Configuration section "nosuch" unknown.\n  LVM configuration invalid.\n'),
        (["vgs", "--config", ""], "",
         "  Failed to set overridden configuration entries.\n"
         "  Run `vgs --help' for more information.\n"),
    ],
)  # fmt: skip
def test_what_is_said(
    image: Path, capsys: pytest.CaptureFixture[str], words: list[str], out: str, err: str
) -> None:
    assert main(words) in (0, 3, 5)
    said = capsys.readouterr()
    assert (said.out, said.err) == (out, err)


def test_a_file_with_errors_ends_every_command_if_it_says_so(image: Path) -> None:
    (image.parent / "etc").mkdir()
    (image.parent / "etc" / "ulvm.conf").write_text("config { abort_on_errors = 1 } nosuch { }")
    assert main(["vgs"]) == 4


def test_what_is_too_small_is_no_pv(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vgcreate", "vg", str(image)]) == 0
    before = image.read_bytes()
    setting = ["--config", "devices/pv_min_size=9000"]
    capsys.readouterr()
    assert main(["pvs", *setting]) == 0
    assert capsys.readouterr().out == ""
    assert main(["pvs", str(image), *setting]) == 5
    said = capsys.readouterr().err
    assert said == f"  Cannot use {image}: device is too small (pv_min_size)\n"
    assert main(["vgchange", "--addtag", "x", "vg", *setting]) == 5
    assert main(["pvcreate", "-ff", "-y", str(image), *setting]) == 5
    assert image.read_bytes() == before


@pytest.mark.parametrize("patterns", ["[]", "5", '["a|.*|", 5]'])
def test_a_filter_without_patterns_is_refused(
    image: Path, capsys: pytest.CaptureFixture[str], patterns: str
) -> None:
    assert main(["pvs", "--config", f"devices/filter={patterns}"]) == 5
    said = capsys.readouterr().err
    assert "  Filter patterns must be enclosed in quotes.\n" in said


def test_pvs_of_groups_that_are_away_are_told_by_that(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = 'global/system_id_source="lvmlocal" local/system_id="mine"'
    assert main(["vgcreate", "--systemid", "another", "vg", str(image)]) == 0
    assert main(["pvchange", "-xn", str(image), "--config", settings]) == 5
    assert f"  Cannot use PV {image} in foreign VG vg.\n" in capsys.readouterr().err
    owner = settings.replace("mine", "another")
    assert main(["vgexport", "vg", "--config", owner]) == 0
    assert main(["vgs", "--trustcache", "--config", owner]) == 0
    assert main(["pvresize", str(image), "--config", owner]) == 5
    assert f"  Cannot use PV {image} in exported VG vg.\n" in capsys.readouterr().err


@pytest.mark.parametrize("silence", [["-qq"], ["--config", "log/silent=1"]])
def test_silence_is_for_what_was_not_asked_for(
    image: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    silence: list[str],
) -> None:
    assert main(["vgcreate", "-q", "vg", str(image)]) == 0
    assert 'Volume group "vg" successfully created\n' in capsys.readouterr().out
    assert main(["vgs", "--noheadings", "-o", "name", *silence]) == 0
    assert capsys.readouterr().out == "  vg\n"
    # A question would be answered with yes.
    monkeypatch.setattr(sys, "stdin", iter(["y\n"]))
    assert main(["pvremove", "-ff", str(image), *silence]) == 5
    assert main(["vgremove", "vg", *silence]) == 0
    assert capsys.readouterr().out == ""


def test_a_comment_ends_with_the_setting(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What other options set comes behind it."""
    comment = ["--config", "log { verbose = 0 } # no more"]
    assert main(["vgcreate", "vg", str(image), "-An", *comment]) == 0
    assert not (image.parent / "etc" / "backup").exists()
    assert main(["vgs", "--devicesfile", "other", *comment]) == 0
    assert "vg" not in capsys.readouterr().out.split()
    host = Host(image.parent / "etc", image.parent / "run", overrides=comment[1])
    settings = host.background_command("lvpoll")[-1]
    assert Config().with_overrides(settings).get_int("global/wait_for_locks", 0) == 1


def test_locks_lie_where_the_settings_say(image: Path) -> None:
    place = image.parent / "locks"
    assert main(["pvcreate", str(image), "--config", f'global/locking_dir="{place}"']) == 0
    assert list(place.iterdir()) != []
    assert not (image.parent / "run" / "lock").exists()


def test_dmsetup_knows_no_locks(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image.parent / "etc").mkdir()
    (image.parent / "etc" / "lvm.conf").write_text("global { locking_type = 4 }")
    main(["dmsetup", "ls"])
    assert "locking_type" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["vgchange", "--addtag", "x", "vg"], 5),
        (["vgremove", "vg"], 5),
        (["pvcreate", "-ff", "-y", "IMAGE"], 5),
        (["lvchange", "--refresh", "vg/z"], 5),
        (["vgchange", "-ay", "--readonly", "vg"], 5),
        (["vgchange", "-an", "vg"], 0),
        (["vgchange", "--nolocking", "--addtag", "x", "vg"], 0),
        (["vgs", "vg"], 0),
        (["vgcfgbackup", "vg"], 0),
    ],
)
def test_locking_of_type_4_keeps_metadata_as_they_are(
    image: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int
) -> None:
    assert main(["vgcreate", "vg", str(image)]) == 0
    virtual = ["lvcreate", "--type", "zero", "-an", "-Wn", "-Zn", "-n", "z", "-l1", "vg"]
    assert main(virtual) == 0
    capsys.readouterr()
    before = image.read_bytes()
    words = [word.replace("IMAGE", str(image)) for word in words]
    assert main([*words, "--config", "global/locking_type=4"]) == status
    said = capsys.readouterr().err
    assert "WARNING: locking_type (4) is deprecated, using --sysinit --readonly.\n" in said
    assert ("Operation prohibited while --readonly is set.\n" in said) == (status == 5)
    assert (image.read_bytes() == before) == ("--nolocking" not in words)


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ("", "2048 1 2040 1"),
        ("devices/default_data_alignment=2", "4096 1 4088 1"),
        ("devices/data_alignment=64", "2048 1 2040 1"),
        ("metadata/pvmetadatacopies=2", "2048 2 2040 2"),
        ("metadata/pvmetadatacopies=0", "2048 0 0 0"),
        ("metadata/pvmetadatasize=4096", "6144 1 6136 1"),
        ("metadata/pvmetadataignore=1", "2048 1 2040 0"),
    ],
)
def test_a_new_pv_is_as_the_settings_say(
    image: Path, capsys: pytest.CaptureFixture[str], settings: str, shown: str
) -> None:
    """The sizes are LVM2's."""
    assert main(["pvcreate", str(image), *(["--config", settings] if settings else [])]) == 0
    capsys.readouterr()
    fields = "pe_start,pv_mda_count,pv_mda_size,pv_mda_used_count"
    assert main(["pvs", "--noheadings", "--nosuffix", "--units", "s", "-o", fields]) == 0
    assert capsys.readouterr().out.split() == shown.split()


@pytest.mark.parametrize(
    "settings",
    [
        "metadata/pvmetadatacopies=3",
        "metadata/pvmetadatasize=-1",
        "devices/data_alignment=-4",
        "devices/default_data_alignment=99999999999",
    ],
)
def test_a_setting_that_no_pv_can_have_is_refused(image: Path, settings: str) -> None:
    before = image.read_bytes()
    assert main(["pvcreate", str(image), "--config", settings]) == 3
    assert image.read_bytes() == before


def test_extents_are_as_large_as_the_settings_say(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = ["--config", "allocation/physical_extent_size=64"]
    assert main(["vgcreate", "vg", str(image), *setting]) == 0
    capsys.readouterr()
    assert main(["vgs", "--noheadings", "-o", "vg_extent_size"]) == 0
    assert capsys.readouterr().out.split() == ["64.00k"]
    assert main(["vgremove", "vg"]) == 0
    for wrong in ("0", "-4"):
        setting = ["--config", f"allocation/physical_extent_size={wrong}"]
        assert main(["vgcreate", "vg", str(image), *setting]) == 3


def test_a_uuid_of_ones_own_needs_no_file_if_the_settings_say_so(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uuid = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345"
    assert main(["pvcreate", "--uuid", uuid, str(image)]) == 3
    setting = ["--config", "devices/require_restorefile_with_uuid=0"]
    assert main(["pvcreate", "--uuid", uuid, str(image), *setting]) == 0
    capsys.readouterr()
    assert main(["pvs", "--noheadings", "-o", "pv_uuid"]) == 0
    assert capsys.readouterr().out.split() == [uuid]


@pytest.mark.parametrize("wipe", [False, True])
def test_signatures_are_wiped_if_the_settings_say_so(
    image: Path, capsys: pytest.CaptureFixture[str], wipe: bool
) -> None:
    assert main(["vgcreate", "-s", "1m", "vg", str(image)]) == 0
    with image.open("r+b") as file:
        file.seek((1 << 20) + 65600)
        file.write(b"_BHRfS_M")
    setting = f"allocation/wipe_signatures_when_zeroing_new_lvs={int(wipe)}"
    create = ["lvcreate", "-y", "-n", "a", "-L", "2m", "vg", "--config", setting]
    assert main(create) == 0
    assert ("Wiping btrfs signature" in capsys.readouterr().out) == wipe
    left = image.read_bytes()[(1 << 20) + 65600 :][:8]
    assert left == (bytes(8) if wipe else b"_BHRfS_M")
    assert main(["daemon", "stop"]) == 0


@pytest.mark.parametrize(
    ("asked", "status", "owner", "says"),
    [
        ('a b"x', 0, "abx", "VG with system ID abx might become inaccessible as local system ID"),
        ("me", 0, "me", ""),
        ("", 0, "", "WARNING: A VG without a system ID allows unsafe access from other hosts."),
        ("localhost", 3, None, 'WARNING: system ID may not begin with the string "localhost".'),
        ("%%", 3, None, "WARNING: Invalid system ID format: %%"),
    ],
)
def test_the_owner_of_a_new_group(
    image: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    asked: str,
    status: int,
    owner: str | None,
    says: str,
) -> None:
    """What could be no host's ID is none of a group's: nobody could use it."""
    settings = ["--config", 'global/system_id_source="lvmlocal" local/system_id="me"']
    assert main(["vgcreate", "vg", str(image), "--systemid", asked, *settings]) == status
    told = capsys.readouterr()
    assert says in told.err
    assert bool(says) == bool(told.err)
    assert main(["vgs", "--foreign", "--noheadings", "-o", "vg_systemid", *settings]) == 0
    assert capsys.readouterr().out.split() == ([owner] if owner else [])


def test_a_group_that_says_how_many_copies_it_has(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked, and adjusted: an area that is taken out of use is not taken in again instead."""
    other = tmp_path / "other"
    with other.open("xb") as file:
        file.truncate(64 << 20)
    assert main(["vgcreate", "--vgmetadatacopies", "1", "vg", str(image), str(other)]) == 0
    capsys.readouterr()

    def used() -> list[str]:
        assert main(["pvs", "--noheadings", "-o", "pv_mda_used_count,vg_mda_copies"]) == 0
        return capsys.readouterr().out.split()

    assert used() == ["0", "1", "1", "1"]
    assert main(["pvchange", "--metadataignore", "n", str(other)]) == 5
    assert "Override preferred number of copies of VG vg metadata?" in capsys.readouterr().err
    assert used() == ["0", "1", "1", "1"]
    assert main(["pvchange", "-y", "--metadataignore", "n", str(other)]) == 0
    said = capsys.readouterr().err
    assert "WARNING: Changing preferred number of copies of VG vg metadata from 1 to 2" in said
    assert used() == ["1", "2", "1", "2"]
    assert main(["pvchange", "-f", "--metadataignore", "y", str(image)]) == 0
    capsys.readouterr()
    assert used() == ["1", "1", "0", "1"]
