"""What passes over the control socket: round trips, and nonsense that is one error of ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm import errors
from ulvm.daemon.messages import (
    MAX_MESSAGE,
    decode,
    encode,
    error_of,
    error_to_json,
    info_of,
    info_to_json,
    lines_of,
    lines_to_json,
)
from ulvm.dm_ioctl import DeviceInfo, TableLine
from ulvm.errors import ProtocolError, UlvmError

INFO = DeviceInfo(
    "vg-lv", "LVM-x", 253, 3, 1, 7, suspended=True, live_table=True, inactive_table=False,
    read_only=False, target_count=2, size=8192, frozen=("/mnt", "/srv"), synced=("/fuse",),
    unwritten=True,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_values_come_through() -> None:
    table = [TableLine(0, 8, "linear", "/a b 0"), TableLine(8, 8, "zero")]
    message = decode(encode({"info": info_to_json(INFO), "table": lines_to_json(table)}))
    assert info_of(message["info"]) == INFO
    assert lines_of(message["table"]) == table


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_come_through(name: str) -> None:
    kind = getattr(errors, name)
    back = error_of(json.loads(json.dumps(error_to_json(kind("a sentence", errno=11)))))
    assert type(back) is kind
    assert (back.message, back.errno, back.exit_code) == ("a sentence", 11, kind.exit_code)


def test_an_error_that_only_one_side_knows_comes_as_the_nearest() -> None:
    class Special(errors.BusyError):
        pass

    assert type(error_of(error_to_json(Special("x")))) is errors.BusyError
    assert type(error_of({"type": "Unheard", "message": "x", "errno": 5})) is UlvmError


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="longer than"):
        encode({"x": "y" * MAX_MESSAGE})


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_line_brings_anything_but_a_protocol_error(line: bytes) -> None:
    try:
        message = decode(line)
    except ProtocolError:
        return
    assert isinstance(message, dict)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decode(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@given(JSON)
def test_no_value_is_taken_for_what_it_is_not(value: object) -> None:
    for read, kind in ((lines_of, list), (info_of, DeviceInfo), (error_of, UlvmError)):
        try:
            found = read(value)
        except ProtocolError:
            continue
        assert isinstance(found, kind)
