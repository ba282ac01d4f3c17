import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm.activation.names import dm_name, dm_uuid, is_top_level, split_dm_name, vg_uuid_of
from ulvm.errors import FormatError

NAMES = st.from_regex(r"[A-Za-z0-9.+_][A-Za-z0-9.+_-]{0,20}", fullmatch=True)


def test_dashes_are_doubled() -> None:
    assert dm_name("a-b", "c--d") == "a--b-c----d"
    assert dm_name("vg", "base", "real") == "vg-base-real"


@given(NAMES, NAMES, st.sampled_from(["", "real", "cow", "missing_0_0"]))
def test_every_name_is_found_again(vg: str, lv: str, layer: str) -> None:
    assert split_dm_name(dm_name(vg, lv, layer)) == (vg, lv, layer)


@pytest.mark.parametrize("name", ["", "vg", "vg-", "-lv", "a--b", "a-b-c-d"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        split_dm_name(name)


def test_uuids_lose_their_dashes() -> None:
    vg, lv = "xPDLhN-aE8L-bwIm-B9vN-53D3-E2y5-pPOQ4L", "4E1nGc-dCV8-J00N-IAwp-arHd-hMmz-RWQ3vd"
    top = "LVM-xPDLhNaE8LbwImB9vN53D3E2y5pPOQ4L4E1nGcdCV8J00NIAwparHdhMmzRWQ3vd"
    assert dm_uuid(vg, lv) == top
    assert dm_uuid(vg, lv, "real") == f"{top}-real"
    assert is_top_level(top)
    assert not is_top_level(f"{top}-real")
    assert not is_top_level("")
    assert vg_uuid_of(top) == vg_uuid_of(f"{top}-real") == vg
    for other in ("", "LVM-", "LVM-short", f"X{top}"):
        with pytest.raises(FormatError):
            vg_uuid_of(other)
