"""Charts as inline SVG: direct labels, dash patterns beside colours, a title and a description.

Colours are CSS variables of the page, so the same file serves light and dark. Each chart is
well-formed XML on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mmtool.diagnose.report.svg import WIDTH, nice_ticks, shorten, svg, text, thin, unit_scale

DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 4", "12 4")
LABEL_GAP = 15


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: points by x, which of the palette's colours and which dash pattern."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dash: int = 0


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    reference: tuple[str, float] | None = None,
    height: float = 250,
) -> str:
    """Draw curves with their names at their right ends; empty when there is nothing to draw."""
    lines = [Line(c.label, thin(c.points), c.colour, c.dash) for c in lines if c.points]
    if not lines:
        return ""
    left, right, top, bottom = 48.0, 195.0, 30.0, 34.0
    xs = [x for c in lines for x, _ in c.points]
    ys = [y for c in lines for _, y in c.points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = y_range or (min(0.0, *ys), max(*ys, 0.0) * 1.05 or 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = (min(max(y, y_low), y_high) - y_low) / ((y_high - y_low) or 1)
        return left + across * (WIDTH - left - right), height - bottom - up * (
            height - top - bottom
        )

    plot_right = WIDTH - right
    body = [text(4, 13, y_label, kind="axis")]
    for tick in nice_ticks(y_low, y_high):
        y = place(x_low, tick)[1]
        body.append(f'<path d="M{left:.1f} {y:.1f}H{plot_right:.1f}" class="grid"/>')
        body.append(text(left - 6, y + 4, f"{tick:g}", anchor="end", kind="axis"))
    for tick in _x_ticks(x_low, x_high):
        x = place(tick, y_low)[0]
        body.append(text(x, height - bottom + 16, f"{tick:g}", anchor="middle", kind="axis"))
    body.append(text(plot_right, height - 4, x_label, anchor="end", kind="axis"))
    if reference is not None:
        y = place(x_low, reference[1])[1]
        body.append(f'<path d="M{left:.1f} {y:.1f}H{plot_right:.1f}" class="reference"/>')
        body.append(text(plot_right - 4, y + 14, reference[0], anchor="end", kind="axis"))
    body += [_curve(c, [place(x, y) for x, y in c.points]) for c in lines]
    body += _end_labels(
        [(c, place(*c.points[-1])) for c in lines], plot_right, top, height - bottom
    )
    described = "; ".join(
        f"{c.label} from {c.points[0][1]:.3g} to {c.points[-1][1]:.3g}" for c in lines
    )
    return svg(WIDTH, height, title, described, "".join(body))


def _x_ticks(low: float, high: float) -> list[float]:
    ticks = nice_ticks(low, high, about=6)
    whole = all(float(x).is_integer() for x in (low, high))
    return [t for t in ticks if not whole or float(t).is_integer()]


def _curve(line: Line, placed: Sequence[tuple[float, float]]) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    style = f'class="line s{line.colour % 6}" stroke-dasharray="{DASHES[line.dash % len(DASHES)]}"'
    dots = ""
    if len(placed) == 1:
        x, y = placed[0]
        dots = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="f{line.colour % 6}"/>'
    return f'<polyline points="{joined}" {style}/>{dots}'


def _end_labels(
    ends: Sequence[tuple[Line, tuple[float, float]]], x: float, top: float, bottom: float
) -> list[str]:
    """Place the names beside the ends of the curves, pushed apart so that none overlap."""
    order = sorted(ends, key=lambda end: end[1][1])
    ys: list[float] = []
    for _, (_, y) in order:
        ys.append(max(y, ys[-1] + LABEL_GAP) if ys else max(y, top))
    overflow = (ys[-1] - bottom) if ys else 0
    if overflow > 0:
        ys[-1] -= overflow
        for i in range(len(ys) - 2, -1, -1):
            ys[i] = min(ys[i], ys[i + 1] - LABEL_GAP)
    parts = []
    for (line, (_, end_y)), y in zip(order, ys, strict=True):
        dash = DASHES[line.dash % len(DASHES)]
        parts.append(f'<path d="M{x + 3:.1f} {end_y:.1f}L{x + 10:.1f} {y:.1f}" class="leader"/>')
        parts.append(
            f'<path d="M{x + 10:.1f} {y:.1f}h18" class="line s{line.colour % 6}" '
            f'stroke-dasharray="{dash}"/>'
        )
        parts.append(text(x + 32, y + 4, shorten(line.label)))
    return parts


def stacked_bar(title: str, parts: Sequence[tuple[str, float]], unit: str = "ms") -> str:
    """Draw one bar of named parts, each with its own pattern, and list them below in order."""
    total = sum(value for _, value in parts)
    if total <= 0:
        return ""
    left, width, height = 4.0, WIDTH - 8.0, 34.0
    body, x = [_patterns()], left
    for index, (name, value) in enumerate(parts):
        size = value / total * width
        body.append(
            f'<rect x="{x:.1f}" y="6" width="{size:.2f}" height="{height:g}" class="f{index % 6} '
            f'part"><title>{escape(name)} {value:.3g} {unit}</title></rect>'
            f'<rect x="{x:.1f}" y="6" width="{size:.2f}" height="{height:g}" '
            f'fill="url(#pattern{index % 4})"/>'
        )
        if size > 8 * len(name) + 12:
            wide = 7.2 * len(name) + 10
            body.append(
                f'<rect x="{x + size / 2 - wide / 2:.1f}" y="14" width="{wide:.1f}" height="18" '
                f'rx="3" class="plate"/>'
            )
            body.append(text(x + size / 2, 27, name, anchor="middle"))
        x += size
    columns, row_height = 3, 20.0
    for index, (name, value) in enumerate(parts):
        cx = left + (index % columns) * (width / columns)
        cy = 6 + height + 20 + (index // columns) * row_height
        body.append(
            f'<rect x="{cx:.1f}" y="{cy - 10:.1f}" width="12" height="12" class="f{index % 6}"/>'
        )
        body.append(
            f'<rect x="{cx:.1f}" y="{cy - 10:.1f}" width="12" height="12" '
            f'fill="url(#pattern{index % 4})"/>'
        )
        body.append(text(cx + 18, cy, f"{name} {value:.2f} {unit} ({value / total:.0%})"))
    tall = 6 + height + 16 + -(-len(parts) // columns) * row_height
    described = ", ".join(f"{name} {value:.3g} {unit}" for name, value in parts)
    return svg(WIDTH, tall, title, described, "".join(body))


def _patterns() -> str:
    """Overlays that tell neighbours apart without colour; the first is plain."""
    strokes = ("", "M0 6L6 0", "M3 0V6", "M0 3H6")
    return (
        "<defs>"
        + "".join(
            f'<pattern id="pattern{i}" width="6" height="6" patternUnits="userSpaceOnUse">'
            f'<path d="{d or "M0 0"}" class="hatch"/></pattern>'
            for i, d in enumerate(strokes)
        )
        + "</defs>"
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar with an interval."""

    label: str
    value: float
    low: float
    high: float
    colour: int = 0


def bars_with_interval(
    title: str, bars: Sequence[Bar], *, threshold: tuple[str, float] | None = None
) -> str:
    """Draw shares between 0 and 1 with their intervals and an optional bound."""
    if not bars:
        return ""
    left, right, row, top = 160.0, 140.0, 30.0, 22.0
    span = WIDTH - left - right
    height = top + row * len(bars) + 22
    body = [unit_scale(left, span, top, height - 22)]
    for index, b in enumerate(bars):
        y = top + index * row + row / 2
        body.append(text(left - 8, y + 4, shorten(b.label), anchor="end"))
        body.append(
            f'<rect x="{left:g}" y="{y - 8:.1f}" width="{b.value * span:.1f}" height="16" '
            f'class="f{b.colour % 6}"/>'
        )
        body.append(
            f'<path d="M{left + b.low * span:.1f} {y:.1f}H{left + b.high * span:.1f}'
            f"M{left + b.low * span:.1f} {y - 4:.1f}v8M{left + b.high * span:.1f} {y - 4:.1f}v8"
            f'" class="whisker"/>'
        )
        body.append(text(WIDTH - right + 10, y + 4, f"{b.value:.2f} [{b.low:.2f}, {b.high:.2f}]"))
    if threshold is not None:
        x = left + threshold[1] * span
        body.append(f'<path d="M{x:.1f} {top:g}V{height - 22:.1f}" class="reference"/>')
        body.append(text(x, top - 8, threshold[0], anchor="middle", kind="axis"))
    described = "; ".join(f"{b.label} {b.value:.2f} ({b.low:.2f} to {b.high:.2f})" for b in bars)
    return svg(WIDTH, height, title, described, "".join(body))


MARKS = {
    "reliance": '<rect x="-6" y="-6" width="12" height="12" class="{c}"/>',
    "availability": '<path d="M0 -8L8 6H-8Z" class="{c}"/>',
    "informativeness": '<circle r="6.5" class="{c}"/>',
    "trained alone": '<path d="M-6 -6L6 6M-6 6L6 -6" class="cross"/>',
}


def dot_plot(
    title: str,
    rows: Mapping[str, Mapping[str, float]],
    *,
    reference: tuple[str, float] | None = None,
) -> str:
    """Draw one row per modality with a differently shaped mark per question, on a 0 to 1 scale."""
    if not rows:
        return ""
    left, right, row, top = 160.0, 30.0, 66.0, 46.0
    span = WIDTH - left - right
    bottom = top + row * len(rows)
    height = bottom + 22
    body = [unit_scale(left, span, top, bottom), _legend(rows)]
    if reference is not None:
        x = left + reference[1] * span
        body.append(f'<path d="M{x:.1f} {top:g}V{bottom:.1f}" class="reference"/>')
        body.append(text(x + 4, top - 4, reference[0], kind="axis"))
    for index, (name, marks) in enumerate(rows.items()):
        y = top + index * row + row / 2
        body.append(text(left - 8, y + 4, shorten(name), anchor="end"))
        for key, value in marks.items():
            shape = MARKS[key].format(c=f"f{list(MARKS).index(key)} mark")
            x, level = left + value * span, y + 14 * list(MARKS).index(key) - 21
            body.append(f'<path d="M{left:g} {level:.1f}H{x:.1f}" class="stem"/>')
            body.append(
                f'<g transform="translate({x:.1f} {level:.1f})">{shape}'
                f"<title>{escape(name)}: {key} {value:.2f}</title></g>"
            )
    described = "; ".join(
        f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in marks.items())
        for name, marks in rows.items()
    )
    return svg(WIDTH, height, title, described, "".join(body))


def _legend(rows: Mapping[str, Mapping[str, float]]) -> str:
    used = [key for key in MARKS if any(key in marks for marks in rows.values())]
    parts = []
    for index, key in enumerate(used):
        x = 166.0 + index * 150
        shape = MARKS[key].format(c=f"f{list(MARKS).index(key)} mark")
        parts.append(f'<g transform="translate({x:.1f} 12)">{shape}</g>{text(x + 13, 16, key)}')
    return "".join(parts)
