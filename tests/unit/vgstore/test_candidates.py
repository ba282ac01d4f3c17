"""Which files and disks are looked at: the devices file, scanned directories, filters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ulvm.errors import RefusedError
from ulvm.vgstore.candidates import DeviceFilter, find_candidates
from ulvm.vgstore.config import Config
from ulvm.vgstore.devices import DeviceEntry, add_devices, read_devices
from ulvm.vgstore.host import Host


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images, one below a directory; a link to a fourth, and a link to a directory."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for name in ("images/a.img", "images/b.img", "images/deep/c.img", "elsewhere.img"):
        (tmp_path / name).write_bytes(b"x")
    (root / "link").symlink_to(tmp_path / "elsewhere.img")
    (root / "loop").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    return root


def _host(tmp_path: Path, settings: str) -> Host:
    system_dir = tmp_path / "etc"
    system_dir.mkdir(exist_ok=True)
    host = Host(system_dir, tmp_path / "run", Config().with_overrides("devices { }"))
    add_devices(host, [DeviceEntry(str(tmp_path / "listed.img"), None)])
    config = Config().with_overrides(settings.replace("IMAGES", str(tmp_path / "images")))
    return Host(system_dir, tmp_path / "run", config)


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ("devices { devicesfile = 'system.devices' }", "listed"),
        ("devices { devicesfile = 'system.devices' scan = 'IMAGES' }", "listed a b c elsewhere"),
        ("devices { use_devicesfile = 1 scan = 'IMAGES' }", "listed"),
        ("devices { use_devicesfile = 0 scan = 'IMAGES' }", "a b c elsewhere"),
        ("devices { use_devicesfile = 0 scan = 'IMAGES' filter = 'r|b|' }", "a c elsewhere"),
        ("devices { use_devicesfile = 0 scan = 'IMAGES' filter = [ 'a/b[.]/', 'r/./' ] }", "b"),
        ("devices { use_devicesfile = 0 scan = 'IMAGES' filter = [ 'a|link|', 'r|.|' ] }",
         "elsewhere"),
        ("devices { use_devicesfile = 0 scan = 'IMAGES' global_filter = 'r|[ac].img$|' "
         "filter = 'r|b.img|' }", "elsewhere"),
        ("devices { devicesfile = 'system.devices' filter = 'r|listed|' }", ""),
    ],
)  # fmt: skip
def test_settings_decide(tmp_path: Path, images: Path, settings: str, seen: str) -> None:
    found = find_candidates(_host(tmp_path, settings))
    assert [Path(path).stem for path in found.paths] == seen.split()


def test_a_scanned_directory_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    found = find_candidates(_host(tmp_path, "devices { use_devicesfile = 0 scan = 'IMAGES' }"))
    assert found.paths == ()
    assert found.warnings == (f"Ignoring {tmp_path}/images: No such file or directory.",)


def test_what_a_command_names_is_looked_at_if_a_later_one_will_see_it(
    tmp_path: Path, images: Path
) -> None:
    outside = str(tmp_path / "elsewhere.img")
    by_file = find_candidates(_host(tmp_path, "devices { filter = 'r|a.img|' }"), [outside])
    assert by_file.paths[-1] == outside
    (images / "link").unlink()
    host = _host(tmp_path, "devices { use_devicesfile = 0 scan = 'IMAGES' filter = 'r|a.img|' }")
    found = find_candidates(host, [outside, str(images / "a.img"), str(images / "b.img")])
    assert found.rejected == {
        outside: "device not found",
        str(images / "a.img"): "device is rejected by filter config",
    }
    assert str(images / "b.img") in found.paths


def test_nothing_is_entered_in_a_devices_file_that_does_not_count(tmp_path: Path) -> None:
    host = _host(tmp_path, "devices { use_devicesfile = 0 }")
    add_devices(host, [DeviceEntry("/x", None)])
    assert [entry.path for entry in read_devices(host)] == [str(tmp_path / "listed.img")]


def test_volumes_are_looked_at_if_that_is_wanted(tmp_path: Path, images: Path) -> None:
    """By whatever name: below a scanned directory, by a link, or typed."""
    for name in ("run/dev/vg/lv", "run/dev/mapper/vg-lv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    volume = str(tmp_path / "run/dev/vg/lv")
    (images / "to_volume").symlink_to(volume)
    settings = "devices { use_devicesfile = 0 scan = [ 'IMAGES', 'RUN' ] }"
    settings = settings.replace("RUN", str(tmp_path))
    found = find_candidates(_host(tmp_path, settings))
    assert [path for path in found.paths if "/run/" in path] == []
    assert found.rejected[volume] == "device is an LV"
    found = find_candidates(_host(tmp_path, settings + " devices/scan_lvs = 1"))
    assert [path for path in found.paths if "/run/" in path] == [volume]
    typed = find_candidates(_host(tmp_path, "devices { use_devicesfile = 1 }"), [volume])
    assert typed.rejected == {volume: "device is an LV"}


@pytest.mark.parametrize(
    ("patterns", "accepted", "rejected"),
    [
        (["r|/b$|"], ["/a"], ["/b"]),
        (["a|/b$|", "r|.*|"], ["/b"], ["/a"]),
        (["r|/b$|", "a|.*|"], ["/a"], ["/b"]),
        (["a(/a)", "r{.}"], ["/a"], ["/b"]),
        ([], ["/a"], []),
    ],
)
def test_the_first_pattern_that_fits_counts(
    patterns: list[str], accepted: list[str], rejected: list[str]
) -> None:
    chosen = DeviceFilter(patterns)
    assert all(chosen.accepts([name]) for name in accepted)
    assert not any(chosen.accepts([name]) for name in rejected)


def test_one_accepted_name_is_enough() -> None:
    chosen = DeviceFilter(["a|by-id|", "r|.*|"])
    assert chosen.accepts(["/dev/sda", "/dev/disk/by-id/x"])
    assert not chosen.accepts(["/dev/sda"])


@pytest.mark.parametrize("pattern", ["x|a|", "", "a", "a|", "a|b", "a|(|", "r(x|"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(RefusedError, match="Failed to create regex device filter"):
        DeviceFilter([pattern])


def test_a_group_that_is_deactivated_meanwhile_is_passed_over(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "run" / "dev"
    (tree / "stays").mkdir(parents=True)
    (tree / "stays" / "lv").touch()
    listdir = os.listdir

    def before(path: str) -> list[str]:
        return ["gone", *listdir(path)] if path == str(tree) else listdir(path)

    monkeypatch.setattr(os, "listdir", before)
    settings = "devices { use_devicesfile = 0 scan = 'IMAGES' scan_lvs = 1 }"
    assert str(tree / "stays" / "lv") in find_candidates(_host(tmp_path, settings)).paths
