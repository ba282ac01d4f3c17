"""What is mounted where."""

from __future__ import annotations

from ulvm.mounts.table import parse_mountinfo


def test_a_name_may_hold_whatever_ends_a_line_elsewhere() -> None:
    """The kernel escapes blanks, tabs, newlines and backslashes."""
    line = b"36 35 98:0 / /a\rb\x0cc\\012d rw shared:1 - tmpfs \x1c rw\n"
    first, second = parse_mountinfo(line * 2)
    assert first == second
    assert first.mount_point == "/a\rb\x0cc\nd"
    assert first.source == "\x1c"
