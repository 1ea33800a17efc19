"""One bar of named parts, and bars with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmtool.diagnose.report.svg import NUM_COLOURS, WIDTH, safe, scale, shorten, svg, text, whisker

_STROKES = ("", "M0 6L6 0", "M3 0V6", "M0 3H6", "M0 0L6 6", "M3 0V6M0 3H6")
_ROW = 22.0


def stacked_bar(title: str, parts: Sequence[tuple[str, float]], unit: str = "ms") -> str:
    """Draw one bar of named parts, each with its own pattern, and list them below in order."""
    total = sum(value for _, value in parts)
    if total <= 0:
        return ""
    left, width, tall = 2.0, WIDTH - 4.0, 36.0
    key = "".join(c for c in title.lower() if c.isascii() and c.isalnum())
    body, x = [_patterns(key)], left
    for index, (name, value) in enumerate(parts):
        size = value / total * width
        shown = f"{name} {value:.3g} {unit}"
        body.append(
            f'<rect x="{x:.1f}" y="4" width="{size:.2f}" height="{tall:g}" '
            f'class="f{index % NUM_COLOURS} part"><title>{safe(shown)}</title></rect>'
            f'<rect x="{x:.1f}" y="4" width="{size:.2f}" height="{tall:g}" '
            f'fill="url(#{key}{_pattern(index)})"/>'
        )
        wide = 10.0 * len(name) + 10
        if size > wide + 4:
            body.append(
                f'<rect x="{x + size / 2 - wide / 2:.1f}" y="12" width="{wide:.1f}" height="20" '
                f'rx="3" class="plate"/>'
            )
            body.append(text(x + size / 2, 27, name, anchor="middle"))
        x += size
    columns = 2
    for index, (name, value) in enumerate(parts):
        cx = left + (index % columns) * (width / columns)
        cy = tall + 26 + (index // columns) * _ROW
        body.append(_swatch(cx, cy, index, key))
        body.append(
            text(cx + 19, cy, f"{shorten(name)} {_amount(value)} {unit}, {value / total:.0%}")
        )
    height = tall + 12 + -(-len(parts) // columns) * _ROW + 6
    described = ", ".join(f"{name} {value:.3g} {unit}" for name, value in parts)
    return svg(WIDTH, height, title, described, "".join(body))


def _pattern(index: int) -> int:
    """Give a pattern so that parts of one colour have different ones."""
    return (index + index // NUM_COLOURS) % len(_STROKES)


def _amount(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _swatch(x: float, y: float, index: int, key: str) -> str:
    place = f'x="{x:.1f}" y="{y - 11:.1f}" width="13" height="13"'
    return (
        f'<rect {place} class="f{index % NUM_COLOURS}"/>'
        f'<rect {place} fill="url(#{key}{_pattern(index)})"/>'
    )


def _patterns(key: str) -> str:
    """Overlays that tell neighbours apart without colour; the first is plain."""
    return (
        "<defs>"
        + "".join(
            f'<pattern id="{key}{i}" width="6" height="6" patternUnits="userSpaceOnUse">'
            f'<path d="{d or "M0 0"}" class="hatch"/></pattern>'
            for i, d in enumerate(_STROKES)
        )
        + "</defs>"
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar, with an interval where one is known."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    colour: int = 0

    @property
    def shown(self) -> str:
        """The number beside the bar."""
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bars(title: str, listed: Sequence[Bar], *, threshold: tuple[str, float] | None = None) -> str:
    """Draw shares between 0 and 1, each with its name above it, and an optional bound."""
    if not listed:
        return ""
    left, right, row, top = 8.0, 162.0, 44.0, 24.0 if threshold else 6.0
    span = WIDTH - left - right
    bottom = top + row * len(listed)
    body = [scale(left, span, top, bottom)]

    def at(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * span

    for index, bar in enumerate(listed):
        y = top + index * row
        body.append(text(left + 4, y + 16, shorten(bar.label, 34), kind="label halo"))
        width = at(bar.value) - left
        body.append(
            f'<rect x="{left:g}" y="{y + 22:.1f}" width="{width:.1f}" height="14" '
            f'class="f{bar.colour % NUM_COLOURS}"/>'
        )
        if bar.low is not None and bar.high is not None:
            body.append(whisker(at(bar.low), at(bar.high), y + 29))
        body.append(text(left + span + 10, y + 34, bar.shown))
    if threshold is not None:
        x = at(threshold[1])
        body.append(f'<path d="M{x:.1f} {top - 4:g}V{bottom:.1f}" class="reference"/>')
        body.append(text(x, top - 9, threshold[0], anchor="middle", kind="axis"))
    described = "; ".join(f"{bar.label} {bar.shown}" for bar in listed)
    return svg(WIDTH, bottom + 24, title, described, "".join(body))
