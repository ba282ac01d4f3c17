"""What `-o help` and `-S help` print (libdevmapper's reports)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ulvm.errors import UlvmError
from ulvm.report.catalogue import Section

__all__ = ["HelpAsked", "field_lines", "operand_lines", "selectable_lines", "selection_lines"]


class HelpAsked(UlvmError):
    """`help` in place of fields or of a selection: the message is what to print."""

    exit_code = 0


_TYPES = {
    "str": "string",
    "list": "string list",
    "num": "number",
    "size": "size",
    "pct": "percent",
    "time": "time",
}

_SPECIAL = (
    ("selected", "Set if item passes selection criteria.", " [number]"),
    ("help", "Show help.", " [unselectable number]"),
    ("?", "Show help.", " [unselectable number]"),
)

_OPERANDS = """\
Selection operands
------------------
  field               - Reporting field.
  number              - Non-negative integer value.
  size                - Floating point value with units, 'm' unit used by default if not specified.
  percent             - Non-negative integer with or without % suffix.
  string              - Characters quoted by ' or " or unquoted.
  string list         - Strings enclosed by [ ] or { } and elements delimited by either
                        "all items must match" or "at least one item must match" operator.
  regular expression  - Characters quoted by ' or " or unquoted.

"""

_RESERVED = """\
Reserved values
---------------
  -1, unknown, undefined, undef   - Reserved value for undefined numeric value. [number]
  allocatable, yes                -  [unknown]
  allocatable, no                 -  [unknown]
  exported, yes                   -  [unknown]
  exported, no                    -  [unknown]
  missing, yes                    -  [unknown]
  missing, no                     -  [unknown]
  used, in use, yes               -  [unknown]
  used, in use, no                -  [unknown]
  duplicate, yes                  -  [unknown]
  duplicate, no                   -  [unknown]
  extendable, yes                 -  [unknown]
  extendable, no                  -  [unknown]
  exported, yes                   -  [unknown]
  exported, no                    -  [unknown]
  partial, yes                    -  [unknown]
  partial, no                     -  [unknown]
  clustered, yes                  -  [unknown]
  clustered, no                   -  [unknown]
  shared, yes                     -  [unknown]
  shared, no                      -  [unknown]
  writeable, rw, read-write       -  [unknown]
  read-only, r, ro                -  [unknown]

"""

_OPERATORS = """\
Selection operators
-------------------
  Comparison operators:
        =~  - Matching regular expression. [regex]
        !~  - Not matching regular expression. [regex]
         =  - Equal to. [number, size, percent, string, string list, time]
        !=  - Not equal to. [number, size, percent, string, string_list, time]
        >=  - Greater than or equal to. [number, size, percent, time]
         >  - Greater than. [number, size, percent, time]
        <=  - Less than or equal to. [number, size, percent, time]
         <  - Less than. [number, size, percent, time]
     since  - Since specified time (same as '>='). [time]
     after  - After specified time (same as '>'). [time]
     until  - Until specified time (same as '<='). [time]
    before  - Before specified time (same as '<'). [time]

  Logical and grouping operators:
      &&  - All fields must match
       ,  - All fields must match
      ||  - At least one field must match
       #  - At least one field must match
       !  - Logical negation
       (  - Left parenthesis
       )  - Right parenthesis
       [  - List start
       ]  - List end
       {  - List subset start
       }  - List subset end

"""


def _entries(sections: Sequence[Section], *, typed: bool) -> Iterator[str]:
    width = max(len(entry.name) for section in sections for entry in section.entries)

    def line(name: str, words: str) -> str:
        return f"  {name:<{width}} - {words}"

    for section in sections:
        yield section.title
        yield "-" * len(section.title)
        if not typed:
            yield line(section.all_name, "All fields in this section.")
        for entry in section.entries:
            yield line(entry.name, entry.help + (f" [{_TYPES[entry.type]}]" if typed else ""))
        yield " "
    yield "Special Fields"
    yield "--------------"
    for name, words, kind in _SPECIAL:
        yield line(name, words + (kind if typed else ""))
    yield " "


def field_lines(sections: Sequence[Section]) -> list[str]:
    """`-o help`: all fields."""
    return list(_entries(sections, typed=False))


def selectable_lines(sections: Sequence[Section]) -> list[str]:
    """All fields with their types."""
    return list(_entries(sections, typed=True))


def operand_lines(sections: Sequence[Section]) -> list[str]:
    """What may be compared, and how."""
    has_reserved = any(entry.name == "vg_extendable" for s in sections for entry in s.entries)
    reserved = _RESERVED if has_reserved else ""
    text = _OPERANDS + reserved + _OPERATORS
    # A line between two paragraphs holds a blank.
    return [line or " " for line in text.rstrip("\n").split("\n")] + [" "]


def selection_lines(sections: Sequence[Section]) -> list[str]:
    """`-S help`."""
    return [*selectable_lines(sections), *operand_lines(sections)]
