"""Primitives of the charts: the accessible frame, text, round ticks and thinned curves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MAX_POINTS = 400
WIDTH = 840
MAX_NAME = 20


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Give at most 400 points: minimum and maximum of equal bins, in order."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = -(-2 * len(points) // MAX_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept[:MAX_POINTS]


def svg(width: float, height: float, title: str, description: str, body: str) -> str:
    """Wrap a drawing so that a screen reader announces what it shows."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" class="chart">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{body}</svg>"
    )


def text(x: float, y: float, content: str, *, anchor: str = "start", kind: str = "label") -> str:
    """Give one piece of text; `kind` is its CSS class."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{escape(content)}</text>"
    )


def shorten(name: str) -> str:
    """Give a name that fits beside a chart, with both its ends when it is long."""
    if len(name) <= MAX_NAME:
        return name
    half = (MAX_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Give round numbers that cover low to high."""
    span = (high - low) or 1.0
    raw = span / about
    power = 1.0
    while power * 10 <= raw:
        power *= 10
    while power > raw:
        power /= 10
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw)
    first = int(low // step)
    ticks = [round((first + i) * step, 10) for i in range(about * 3)]
    return [t for t in ticks if low - 1e-9 <= t <= high + 1e-9]


def unit_scale(left: float, span: float, top: float, bottom: float) -> str:
    """Give grid lines and numbers for a horizontal scale from 0 to 1."""
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * span
        parts.append(f'<path d="M{x:.1f} {top:g}V{bottom:.1f}" class="grid"/>')
        parts.append(text(x, bottom + 15, f"{tick:g}", anchor="middle", kind="axis"))
    return "".join(parts)
