"""Options and types of LVM2 that are not built are told from those that are none."""

from __future__ import annotations

import pytest

from ulvm.cli.absent import absent_option, absent_type


@pytest.mark.parametrize(
    ("option", "kind"),
    [("-m", "RAID and mirrored"), ("--thin", "thin"), ("--cachevol=x", "cached"), ("--vdo", "VDO")],
)
def test_an_option_of_another_type_is_named_with_it(option: str, kind: str) -> None:
    sentence = absent_option("lvcreate", option)
    assert sentence is not None
    assert sentence.startswith(f"Option {option.partition('=')[0]} is for {kind} volumes: ulvm has")


@pytest.mark.parametrize(("command", "option"), [("lvcreate", "--nope"), ("pvcreate", "-m")])
def test_what_is_no_option_is_left_to_getopt(command: str, option: str) -> None:
    assert absent_option(command, option) is None


def test_types() -> None:
    assert absent_type("nope") is absent_type("linear") is None
    assert str(absent_type("thin-pool")).startswith("Volumes of type thin-pool are not supported")
