"""Bars as SVG, by hand: readable in a README, by day and by night, without a library.

Bars lie, since their labels are words. The bars of a group share a scale of their own, because rows
differ a hundredfold; a thin line across the end of a bar reaches from the least to the greatest
value. Colours change with the reader's colour scheme; nothing is said by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Group", "bars"]

_WIDTH = 860
_LABEL = 150
"""Pixels of the labels at the left."""
_LONGEST = 520
"""Pixels of the longest bar of a group."""
_BAR = 14
_STEP = 18
_HEAD = 24
_GAP = 10

_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.row { font-weight: 600 }
.value { fill: #59636e }
.ours { fill: #0969da }
.peer { fill: #9198a1 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.value { fill: #9198a1 }
.ours { fill: #4493f8 }
.peer { fill: #656c76 }
.spread { stroke: #f0f6fc }
}
"""


@dataclass(frozen=True)
class Bar:
    """`text` stands behind the bar."""

    label: str
    value: float
    low: float
    high: float
    text: str
    ours: bool


@dataclass(frozen=True)
class Group:
    title: str
    bars: Sequence[Bar]


def bars(title: str, groups: Sequence[Group]) -> str:
    """The whole picture, as the text of a file."""
    lines: list[str] = []
    y = 2 * _HEAD
    for group in groups:
        lines.extend(_group(group, y))
        y += _HEAD + _STEP * len(group.bars) + _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" '
        f'viewBox="0 0 {_WIDTH} {y}" role="img">'
    )
    return "\n".join(
        [
            head,
            f"<title>{escape(title)}</title>",
            f"<style>\n{_STYLE}</style>",
            f'<text class="title" x="0" y="{_HEAD - 6}">{escape(title)}</text>',
            *lines,
            "</svg>\n",
        ]
    )


def _group(group: Group, y: int) -> Iterator[str]:
    yield f'<text class="row" x="0" y="{y}">{escape(group.title)}</text>'
    scale = _LONGEST / (max(bar.high for bar in group.bars) or 1)
    for number, bar in enumerate(group.bars):
        top = y + 6 + number * _STEP
        base, middle = top + _BAR - 3, top + _BAR / 2
        low, high = _LABEL + bar.low * scale, _LABEL + bar.high * scale
        yield (
            f'<text x="{_LABEL - 8}" y="{base}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect class="{"ours" if bar.ours else "peer"}" x="{_LABEL}" y="{top}" '
            f'width="{bar.value * scale:.1f}" height="{_BAR}"/>'
            f'<line class="spread" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'
            f'<text class="value" x="{high + 8:.1f}" y="{base}">{escape(bar.text)}</text>'
        )
