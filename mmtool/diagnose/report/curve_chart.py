"""Curves with their names at their right ends, told apart by dashes as well as by colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmtool.diagnose.report.svg import (
    NUM_COLOURS,
    WIDTH,
    Bin,
    Points,
    binned,
    nice_ticks,
    short,
    shorten,
    svg,
    text,
)

DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 4", "12 4")
LABEL_GAP = 19.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 162.0, 30.0, 42.0


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: points by x, which of the palette's colours and which dash pattern."""

    label: str
    points: Points
    colour: int = 0
    dash: int = 0


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where values lie on the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: float

    @property
    def right(self) -> float:
        return WIDTH - RIGHT

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        low, high = self.y
        up = (min(max(y, low), high) - low) / ((high - low) or 1)
        return LEFT + across * (self.right - LEFT), self.bottom - up * (self.bottom - TOP)


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
    """Draw curves; of a long one, the mean of each bin and a band from smallest to largest."""
    drawn = [(line, binned(line.points)) for line in lines if line.points]
    if not drawn:
        return ""
    # Names stand one under the other, however many curves there are.
    height = max(height, TOP + BOTTOM + LABEL_GAP * len(drawn))
    ends = [edge for _, bins in drawn for x, low, _, high in bins for edge in ((x, low), (x, high))]
    x_low, x_high = min(x for x, _ in ends), max(x for x, _ in ends)
    smallest, largest = min(y for _, y in ends), max(y for _, y in ends)
    y_span = y_range or (min(0.0, smallest), max(largest, 0.0) * 1.05 or 1.0)
    plot = _Plot((x_low, x_high), y_span, height)
    body = [_axes(plot, x_label, y_label)]
    if reference is not None:
        y = plot.at(x_low, reference[1])[1]
        body.append(f'<path d="M{LEFT:.1f} {y:.1f}H{plot.right:.1f}" class="reference"/>')
    body += [_curve(line, bins, plot) for line, bins in drawn]
    if reference is not None:
        # Under its line unless the axis is there already.
        below = y + 16 < plot.bottom
        body.append(text(plot.right - 4, y + 15 if below else y - 5, reference[0], anchor="end",
                         kind="axis halo"))  # fmt: skip
    body += _end_labels([(line, plot.at(b[-1][0], b[-1][2])[1]) for line, b in drawn], plot)
    described = "; ".join(
        f"{line.label} from {bins[0][2]:.3g} to {bins[-1][2]:.3g}" for line, bins in drawn
    )
    return svg(WIDTH, height, title, described, "".join(body))


def _axes(plot: _Plot, x_label: str, y_label: str) -> str:
    body = [text(4, 14, y_label, kind="axis")]
    for tick in nice_ticks(*plot.y):
        y = plot.at(plot.x[0], tick)[1]
        body.append(f'<path d="M{LEFT:.1f} {y:.1f}H{plot.right:.1f}" class="grid"/>')
        body.append(text(LEFT - 6, y + 4, f"{tick:g}", anchor="end", kind="axis"))
    for tick in _x_ticks(*plot.x):
        x = plot.at(tick, plot.y[0])[0]
        body.append(text(x, plot.bottom + 17, f"{tick:g}", anchor="middle", kind="axis"))
    body.append(text(plot.right, plot.height - 4, x_label, anchor="end", kind="axis"))
    return "".join(body)


def _x_ticks(low: float, high: float) -> list[float]:
    ticks = nice_ticks(low, high, about=5)
    whole = all(float(x).is_integer() for x in (low, high))
    return [t for t in ticks if not whole or float(t).is_integer()]


def _curve(line: Line, bins: Sequence[Bin], plot: _Plot) -> str:
    colour = line.colour % NUM_COLOURS
    placed = [plot.at(x, mean) for x, _, mean, _ in bins]
    band = ""
    if any(low < high for _, low, _, high in bins):
        over = [plot.at(x, high) for x, _, _, high in bins]
        under = [plot.at(x, low) for x, low, _, _ in reversed(bins)]
        band = f'<polygon points="{_joined([*over, *under])}" class="band f{colour}"/>'
    if len(placed) == 1:
        x, y = placed[0]
        return f'{band}<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="f{colour}"/>'
    dash = DASHES[line.dash % len(DASHES)]
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'{band}<polyline points="{_joined(placed)}" class="line s{colour}"{style}/>'


def _joined(placed: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{short(x)},{short(y)}" for x, y in placed)


def _end_labels(ends: Sequence[tuple[Line, float]], plot: _Plot) -> list[str]:
    """Place the names beside the ends of the curves, pushed apart so that none overlap."""
    order = sorted(ends, key=lambda end: end[1])
    ys: list[float] = []
    for _, y in order:
        ys.append(max(y, ys[-1] + LABEL_GAP) if ys else max(y, TOP))
    overflow = ys[-1] - plot.bottom
    if overflow > 0:
        ys[-1] -= overflow
        for i in range(len(ys) - 2, -1, -1):
            ys[i] = min(ys[i], ys[i + 1] - LABEL_GAP)
    parts, x = [], plot.right
    for (line, end_y), y in zip(order, ys, strict=True):
        dash = DASHES[line.dash % len(DASHES)]
        style = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<path d="M{x + 2:.1f} {end_y:.1f}L{x + 8:.1f} {y:.1f}" class="leader"/>')
        parts.append(
            f'<path d="M{x + 8:.1f} {y:.1f}h20" class="line s{line.colour % NUM_COLOURS}"{style}/>'
        )
        parts.append(text(x + 32, y + 4, shorten(line.label)))
    return parts
