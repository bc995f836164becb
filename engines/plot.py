"""Figures of measurements as an SVG picture: panels of lines side by side, from zero, with one legend.

Pure.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8d5a97", "#c98b1d", "#5c6670", "#2a9d8f", "#7a4b2a")
_WIDTH = 340  # pixels of one panel
_HEIGHT = 240
_LEFT = 60  # margins
_TOP = 40
_GAP = 80  # between panels
_NAME, _ROW = 120, 18  # one name of the legend


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over the same places.

    `ticks`: names of the places; `lines`: a value at each; `mark`: a dashed height, if any.
    """

    title: str
    ticks: Sequence[str]
    lines: Mapping[str, Sequence[float]]
    mark: float | None = None

    @property
    def most(self) -> float:
        """The value at the top of the axis."""
        values = [value for line in self.lines.values() for value in line]
        return max([*values, self.mark or 0.0]) or 1.0


def svg(panels: Sequence[Panel]) -> str:
    """The picture of at least one panel. A line has one colour in all panels; after eight they repeat."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = dict(zip(names, itertools.cycle(_COLOURS), strict=False))
    width = _LEFT + len(panels) * (_WIDTH + _GAP) - _GAP + 20
    columns = max(1, (width - _LEFT) // _NAME)
    parts = []
    for number, panel in enumerate(panels):
        parts += _panel(panel, _LEFT + number * (_WIDTH + _GAP), colours)
    for place, (name, colour) in enumerate(colours.items()):
        x, y = _LEFT + _NAME * (place % columns), _TOP + _HEIGHT + 44 + _ROW * (place // columns)
        parts.append(
            f'<path d="M{x} {y - 4}h20" stroke="{colour}" stroke-width="3"/>'
            + _text(x + 26, y, name, "start")
        )
    height = _TOP + _HEIGHT + 60 + _ROW * ((len(names) - 1) // columns)
    size = f'width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>", ""])


def _panel(panel: Panel, left: int, colours: Mapping[str, str]) -> list[str]:
    bottom, most = _TOP + _HEIGHT, panel.most
    across = [left + _WIDTH * (place + 0.5) / len(panel.ticks) for place in range(len(panel.ticks))]

    def down(value: float) -> float:
        return bottom - _HEIGHT * value / most

    parts = [
        f'<path d="M{left} {_TOP}V{bottom}H{left + _WIDTH}" fill="none" stroke="#888"/>',
        _text(left, _TOP - 14, panel.title, "start"),
    ]
    parts += [_text(x, bottom + 18, tick, "middle") for x, tick in zip(across, panel.ticks, strict=True)]
    digits = 0 if most >= 10 else 1
    parts += [
        _text(left - 6, down(most * step / 4) + 4, f"{most * step / 4:.{digits}f}", "end")
        for step in range(5)
    ]
    if panel.mark is not None:
        parts.append(
            f'<path d="M{left} {down(panel.mark):.1f}h{_WIDTH}" stroke="#888" stroke-dasharray="6 4"/>'
        )
    for name, colour in colours.items():
        points = " ".join(
            f"{x:.1f},{down(value):.1f}" for x, value in zip(across, panel.lines.get(name, ()), strict=False)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return parts


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'
