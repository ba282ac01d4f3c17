"""Which names LVM accepts for volume groups, logical volumes and tags, and the names it makes up.

Facts: lvm(8) section VALID NAMES, and what LVM2 2.03.16 prints (spec/lvm2-format.md sec. 5). The
limit of 128 counts `vg/lv` plus the two bytes LVM reserves in a dm name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ulvm.errors import FormatError, UsageError

__all__ = [
    "NAME_LEN",
    "RESERVED_INFIXES",
    "RESERVED_PREFIXES",
    "check_lv_name_length",
    "check_new_lv_name",
    "check_new_vg_name",
    "check_stored_name",
    "check_tag",
    "name_problem",
    "next_lv_index",
    "next_lv_name",
    "next_snapshot_name",
    "reserved_problem",
]

NAME_LEN = 128
RESERVED_PREFIXES = ("pvmove", "snapshot")
RESERVED_INFIXES = (
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig", "_mimage", "_mlog", "_rimage",
    "_rmeta", "_tdata", "_tmeta", "_vdata", "_imeta", "_iorig", "_pmspare", "_vorigin",
)  # fmt: skip

_OF_THE_TEXT = frozenset({"contents", "version"})
"""What LVM2 knows a text of metadata by: beside a section of the name it does not find it."""

_CHARSET = re.compile(r"[a-zA-Z0-9._+-]+")
_TAG = re.compile(r"[A-Za-z0-9_+.\-/=!:&#]{1,1024}")


def name_problem(name: str) -> str | None:
    """Why a VG or LV name is invalid, in LVM's words; None if it is valid."""
    if not name:
        return "Name is zero length."
    if name.startswith("-"):
        return "Name cannot start with hyphen."
    if name in {".", ".."}:
        return "Name starts with . or .. and has no following character(s)."
    if not _CHARSET.fullmatch(name):
        return "Name contains invalid character, valid set includes: [a-zA-Z0-9.-_+]."
    if len(name) >= NAME_LEN:
        return f"Name length exceeds maximum limit of {NAME_LEN - 1}."
    return None


def reserved_problem(name: str) -> str | None:
    """Why an LV name is kept for LVM's own use; None if a user may have it."""
    for prefix in RESERVED_PREFIXES:
        if name.startswith(prefix):
            return f'Names starting "{prefix}" are reserved. Please choose a different LV name.'
    for infix in RESERVED_INFIXES:
        if infix in name:
            return f'Names including "{infix}" are reserved. Please choose a different LV name.'
    return None


def check_new_vg_name(name: str) -> None:
    """UsageError (exit code 3) unless a new VG may have the name."""
    problem = name_problem(name)
    if name in _OF_THE_TEXT:
        problem = "Name is reserved for the metadata."
    if problem is not None:
        raise UsageError(f'{problem}\nNew volume group name "{name}" is invalid.')


def check_new_lv_name(name: str) -> None:
    """UsageError (exit code 3) unless a user may give an LV the name."""
    if name_problem(name) is not None:
        raise UsageError(f'Logical volume name "{name}" is invalid.')
    problem = reserved_problem(name)
    if problem is not None:
        raise UsageError(problem)


def check_lv_name_length(vg_name: str, lv_name: str) -> None:
    """UsageError if `vg/lv` is longer than a dm name may be."""
    longest = NAME_LEN - len(vg_name) - 3
    if len(lv_name) > longest:
        raise UsageError(
            f'New logical volume name "{lv_name}" may not exceed {longest} characters.'
        )


def check_stored_name(kind: str, name: str) -> None:
    """FormatError if a name that was read from metadata could not be one: names become paths."""
    problem = name_problem(name)
    if problem is not None:
        raise FormatError(f"Invalid {kind} name {name[:200]!r} in metadata: {problem}")


def check_tag(tag: str, option: str = "--addtag") -> str:
    """The tag, without a leading `@`; UsageError if LVM would not have it."""
    bare = tag.removeprefix("@")
    if not _TAG.fullmatch(bare):
        raise UsageError(f"Invalid argument for {option}: {tag}")
    return bare


def next_lv_index(names: Iterable[str], prefix: str) -> int:
    """The index after the highest in use: gaps are not filled."""
    highest = -1
    for name in names:
        digits = name.removeprefix(prefix)
        if digits != name and digits.isascii() and digits.isdecimal():
            highest = max(highest, int(digits))
    return highest + 1


def next_lv_name(names: Iterable[str]) -> str:
    """`lvolN` for an LV that was created without a name."""
    return f"lvol{next_lv_index(names, 'lvol')}"


def next_snapshot_name(names: Iterable[str]) -> str:
    """`snapshotN` for the hidden LV of a new snapshot."""
    return f"snapshot{next_lv_index(names, 'snapshot')}"
