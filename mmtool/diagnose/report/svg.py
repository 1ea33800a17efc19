"""Primitives of the charts: the accessible frame, text, round ticks and curves made short.

A chart is 560 units wide. Beside a wide page it stands two to a row at its own size; on a telephone
it shrinks to two thirds and the style sheet enlarges its text, so every chart leaves room for text
of 17 units although it is drawn at 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

MAX_POINTS = 200
"""A curve is some 350 units long."""
WIDTH = 560.0
MAX_NAME = 14
NUM_COLOURS = 6

Points: TypeAlias = Sequence[Sequence[float]]
Bin: TypeAlias = tuple[float, float, float, float]
"""Place, smallest, mean and largest value of a part of a curve."""


def binned(points: Points, most: int = MAX_POINTS) -> list[Bin]:
    """Give a curve as at most so many bins of equal size; of a short curve each point is one."""
    size = max(-(-len(points) // most), 1)
    bins = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [float(point[1]) for point in part]
        place = float(part[0][0]) if size == 1 else (float(part[0][0]) + float(part[-1][0])) / 2
        bins.append((place, min(values), sum(values) / len(values), max(values)))
    return bins


def svg(width: float, height: float, title: str, description: str, body: str) -> str:
    """Wrap a drawing so that a screen reader announces what it shows."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" class="chart">'
        f"<title>{safe(title)}</title><desc>{safe(description)}</desc>{body}</svg>"
    )


def safe(text: object) -> str:
    """Escape text for HTML and XML, without the control characters that XML cannot hold."""
    kept = (c for c in str(text) if c in "\n\t" or (c >= " " and not _is_unwritable(c)))
    return escape("".join(kept))


def _is_unwritable(character: str) -> bool:
    code = ord(character)
    return 0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF or code in (0xFFFE, 0xFFFF)


def text(x: float, y: float, content: str, *, anchor: str = "start", kind: str = "label") -> str:
    """Give one piece of text; `kind` is its CSS class."""
    placed = "" if anchor == "start" else f' text-anchor="{anchor}"'
    named = "" if kind == "label" else f' class="{kind}"'
    return f'<text x="{short(x)}" y="{short(y)}"{placed}{named}>{safe(content)}</text>'


def short(length: float) -> str:
    """Give a coordinate to a tenth, without a needless zero."""
    return f"{round(length, 1):g}"


def shorten(name: str, most: int = MAX_NAME) -> str:
    """Give a name that fits beside a chart, with both its ends when it is long."""
    if len(name) <= most:
        return name
    half = (most - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def nice_step(span: float, about: int = 5) -> float:
    """Give a round distance of ticks, so that about so many fit into a span."""
    raw = (span or 1.0) / about
    power = 1.0
    while power * 10 <= raw:
        power *= 10
    while power > raw:
        power /= 10
    return next(f * power for f in (1, 2, 5, 10) if f * power >= raw)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Give round numbers that cover low to high."""
    step = nice_step(high - low, about)
    first = int(low // step)
    ticks = [round((first + i) * step, 10) for i in range(about * 3)]
    return [t for t in ticks if low - 1e-9 <= t <= high + 1e-9]


def scale(
    left: float, span: float, top: float, bottom: float, low: float = 0.0, high: float = 1.0
) -> str:
    """Give grid lines and numbers of a horizontal scale."""
    parts = []
    for tick in nice_ticks(low, high, 4):
        x = left + (tick - low) / ((high - low) or 1) * span
        parts.append(f'<path d="M{short(x)} {top:g}V{short(bottom)}" class="grid"/>')
        parts.append(text(x, bottom + 17, f"{tick:g}", anchor="middle", kind="axis"))
    return "".join(parts)


def whisker(low: float, high: float, y: float) -> str:
    """Give the line of an interval with a stop at each of its ends."""
    return (
        f'<path d="M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8'
        f'M{high:.1f} {y - 4:.1f}v8" class="whisker"/>'
    )
