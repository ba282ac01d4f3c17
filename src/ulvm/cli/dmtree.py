"""`dmsetup ls --tree`: every device that no other uses, and what it stands on; or upside down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ulvm.dm_ioctl import DM_MAJOR, DeviceInfo, DeviceMapper
from ulvm.errors import UsageError
from ulvm.report.dm_fields import block_name

__all__ = ["TreeStyle", "parse_style", "tree_lines"]

Number = tuple[int, int]

_SIGNS = {
    "ascii": ("|-", "`-", "| ", "-+-", "---"),
    "utf": ("├─", "└─", "│ ", "─┬─", "───"),
    "vt100": (
        "\x1b(0\x0ftq\x1b(B",
        "\x1b(0\x0fmq\x1b(B",
        "\x1b(0\x0fx\x1b(B ",
        "\x1b(0\x0fqwq\x1b(B",
        "\x1b(0\x0fqqq\x1b(B",
    ),
}
"""One of several, the last, what goes on beside others; of a compact tree several, and one."""

_WIDTH = 80


@dataclass
class TreeStyle:
    """What -o says."""

    signs: str = "ascii"
    compact: bool = False
    inverted: bool = False
    cut: bool = True
    numbers: bool = True
    """Major and minor numbers, and devices that are not mapped."""
    shows: set[str] = field(default_factory=set)
    """Of active, rw, open, uuid and blkdevname."""


def parse_style(text: str | None) -> TreeStyle:
    """The words of -o; UsageError for one that is not known."""
    style = TreeStyle()
    for word in (text or "").split(","):
        if word in _SIGNS:
            style.signs = word
        elif word in ("active", "rw", "open", "uuid", "blkdevname"):
            style.shows.add(word)
        elif word == "compact":
            style.compact = True
        elif word == "inverted":
            style.inverted = True
        elif word == "notrunc":
            style.cut = False
        elif word in ("device", "nodevice"):
            style.numbers = word == "device"
        elif word:
            raise UsageError(f"Tree options not recognised: {text}.")
    return style


def tree_lines(
    dm: DeviceMapper, devices: Sequence[DeviceInfo], style: TreeStyle | None = None
) -> Iterator[str]:
    """The lines as dmsetup prints them; `devices` by name."""
    tree = _Tree(dm, devices, style or TreeStyle())
    for line in tree.lines():
        cut = tree.style.cut and tree.style.signs == "ascii" and len(line) > _WIDTH
        yield line[: _WIDTH - 3] + "..." if cut else line


class _Tree:
    def __init__(self, dm: DeviceMapper, devices: Sequence[DeviceInfo], style: TreeStyle) -> None:
        self.style = style
        self._dm = dm
        self._infos = {(info.major, info.minor): info for info in devices}
        lower = {(info.major, info.minor): list(dm.deps(info.name)) for info in devices}
        self._paths: dict[Number, str | None] = {}
        if not style.numbers:
            lower = {
                top: [number for number in below if number in self._infos]
                for top, below in lower.items()
            }
        if style.inverted:
            upper: dict[Number, list[Number]] = {}
            for top in lower:
                for below in lower[top]:
                    upper.setdefault(below, []).append(top)
            # Disks come first; a mapped device only if it stands on nothing.
            disks = [number for number in upper if number not in self._infos]
            self._roots = disks + [top for top, below in lower.items() if not below]
            self._next = upper
        else:
            used = {number for below in lower.values() for number in below}
            self._roots = [top for top in lower if top not in used]
            self._next = lower

    def lines(self) -> Iterator[str]:
        for root in self._roots:
            if self.style.compact:
                yield from self._compact(root, "")
            else:
                yield self._text(root)
                yield from self._below(root, "")

    def _below(self, number: Number, indent: str) -> Iterator[str]:
        several, last, beside, *_ = _SIGNS[self.style.signs]
        nodes = self._next.get(number, [])
        for at, node in enumerate(nodes):
            is_last = at == len(nodes) - 1
            yield f"{indent} {last if is_last else several}{self._text(node)}"
            yield from self._below(node, indent + ("   " if is_last else f" {beside}"))

    def _compact(self, number: Number, indent: str) -> Iterator[str]:
        """All of one way on one line; `indent` stands before the lines behind the first."""
        several, last, beside, fork, straight = _SIGNS[self.style.signs]
        text = self._text(number)
        nodes = self._next.get(number, [])
        if not nodes:
            yield text
            return
        room = indent + " " * (len(text) + 1)
        for at, node in enumerate(nodes):
            is_last = at == len(nodes) - 1
            inner = list(self._compact(node, room + ("   " if is_last else f"{beside} ")))
            if at == 0:
                yield text + (fork if len(nodes) > 1 else straight) + inner[0]
            else:
                yield room + (last if is_last else several) + inner[0]
            yield from inner[1:]

    def _text(self, number: Number) -> str:
        info = self._infos.get(number)
        text = info.name if info is not None else ""
        if "blkdevname" in self.style.shows:
            text += f" <{block_name(*number, self._path(number))}>"
        if self.style.numbers:
            text += f" ({number[0]}:{number[1]})"
        if info is not None and (shown := self._shown(info)) is not None:
            text += f" [{shown}]"
        return text

    def _path(self, number: Number) -> str | None:
        if number[0] == DM_MAJOR:
            return None
        if number not in self._paths:
            self._paths[number] = self._dm.device_name(*number)
        return self._paths[number]

    def _shown(self, info: DeviceInfo) -> str | None:
        values = {
            "active": "SUSPENDED" if info.suspended else "ACTIVE",
            "rw": "RO" if info.read_only else "RW",
            "open": str(info.open_count),
            "uuid": info.uuid,
        }
        chosen = [text for name, text in values.items() if name in self.style.shows]
        return ", ".join(chosen) if chosen else None
