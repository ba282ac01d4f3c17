"""All the ways to name a volume."""

from __future__ import annotations

from pathlib import Path

import pytest

from ulvm.errors import RefusedError, UsageError
from ulvm.lvm.names import split_volume, vg_name
from ulvm.vgstore.host import Host

RUN = Path("/run/ulvm")


@pytest.mark.parametrize(
    "text",
    [
        "vg/my-lv",
        "/dev/vg/my-lv",
        "/dev/mapper/vg-my--lv",
        "/run/ulvm/dev/vg/my-lv",
        "/run/ulvm/dev/mapper/vg-my--lv",
    ],
)
def test_a_volume(text: str) -> None:
    assert split_volume(text, RUN) == ("vg", "my-lv")


@pytest.mark.parametrize("text", ["vg", "vg/", "/dev/vg", "/dev/vg/", "/run/ulvm/dev/vg"])
def test_a_group(text: str) -> None:
    assert split_volume(text, RUN) == ("vg", None)
    assert vg_name(text, RUN) == "vg"


def test_a_run_directory_by_way_of_a_link(tmp_path: Path) -> None:
    tmp_path = tmp_path.resolve()
    (tmp_path / "var").symlink_to(tmp_path)
    run = tmp_path / "run"
    assert split_volume(f"{tmp_path}/var/run/dev/vg/my-lv", run) == ("vg", "my-lv")
    host = Host.from_environment(
        {"ULVM_RUN_DIR": f"{tmp_path}/var/run", "ULVM_SYSTEM_DIR": str(tmp_path)}
    )
    assert host.run_dir == run


def test_dashes_in_a_group() -> None:
    assert split_volume("/dev/mapper/a--b-c----d", RUN) == ("a-b", "c--d")


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "vg/a/b", "/dev/vg/a/b", "vg/a b", "v g/a", "v g", "vg/..", "./a", "-vg/a",
        "vg/-a", "/dev/mapper/vg", "/dev/mapper/vg-o-real", "/dev/mapper/vg-s-cow", "/tmp/vg/lv",
        "vg//a",
    ],
)  # fmt: skip
def test_what_names_nothing(text: str) -> None:
    with pytest.raises(UsageError):
        split_volume(text, RUN)


@pytest.mark.parametrize("text", ["vg/lv", "/dev", "a b/c"])
def test_what_is_rather_a_volume(text: str) -> None:
    with pytest.raises(UsageError, match="Invalid volume group name"):
        vg_name(text, RUN)


@pytest.mark.parametrize("text", ["", "a b", "..", "-x"])
def test_what_is_no_group(text: str) -> None:
    with pytest.raises(RefusedError, match="has invalid characters"):
        vg_name(text, RUN)
