"""Marks with intervals: several questions for each modality, and paired changes around zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmtool.diagnose.report.svg import (
    WIDTH,
    nice_step,
    scale,
    shorten,
    svg,
    text,
    whisker,
)

MARKS = (
    '<rect x="-6" y="-6" width="12" height="12" class="f0 mark"/>',
    '<path d="M0 -7L7 6H-7Z" class="f1 mark"/>',
    '<circle r="6.5" class="f2 mark"/>',
    '<path d="M-5 -5L5 5M-5 5L5 -5" class="cross"/>',
    '<path d="M0 -8L7 0L0 8L-7 0Z" class="f4 mark"/>',
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval, where one is known."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def shown(self) -> str:
        """The number in words."""
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def dot_plot(
    title: str,
    rows: Mapping[str, Mapping[str, Mark]],
    *,
    reference: tuple[str, float] | None = None,
) -> str:
    """Draw a block per modality with one line and one shape for each question, from 0 to 1."""
    rows = {name: marks for name, marks in rows.items() if marks}
    if not rows:
        return ""
    questions = list(dict.fromkeys(key for marks in rows.values() for key in marks))
    left, right, line, head = 146.0, 160.0, 24.0, 26.0
    span, top = WIDTH - left - right, 24.0 if reference else 6.0
    bottom = top + sum(head + line * len(marks) for marks in rows.values())
    body = [scale(left, span, top, bottom)]

    def at(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * span

    if reference is not None:
        x = at(reference[1])
        body.append(f'<path d="M{x:.1f} {top - 4:g}V{bottom:.1f}" class="reference"/>')
        body.append(text(x, top - 9, reference[0], anchor="middle", kind="axis"))
    y = top
    for name, marks in rows.items():
        body.append(text(2, y + 18, shorten(name, 40), kind="strong halo"))
        y += head
        for key, mark in marks.items():
            shape = MARKS[questions.index(key) % len(MARKS)]
            body.append(text(left - 12, y + 12, key, anchor="end", kind="axis"))
            body.append(f'<path d="M{left:g} {y + 8:.1f}H{left + span:.1f}" class="stem"/>')
            if mark.low is not None and mark.high is not None:
                body.append(whisker(at(mark.low), at(mark.high), y + 8))
            body.append(f'<g transform="translate({at(mark.value):.1f} {y + 8:g})">{shape}</g>')
            body.append(text(left + span + 12, y + 13, mark.shown))
            y += line
    described = "; ".join(
        f"{name}: " + ", ".join(f"{key} {mark.shown}" for key, mark in marks.items())
        for name, marks in rows.items()
    )
    return svg(WIDTH, bottom + 24, title, described, "".join(body))


@dataclass(frozen=True, slots=True)
class Change:
    """A difference from the baseline with its interval, and what it is called."""

    label: str
    value: float
    low: float
    high: float
    wording: str


_UP = '<path d="M0 -7L7 6H-7Z" class="f2 mark"/>'
_DOWN = '<path d="M0 7L7 -6H-7Z" class="f1 mark"/>'
_CHANGED = {"improved": _UP, "rose": _UP, "regressed": _DOWN, "fell": _DOWN}
_UNCHANGED = '<circle r="5.5" class="hollow"/>'


def forest_plot(
    title: str, changes: Sequence[Change], *, better: str = "better", worse: str = "worse"
) -> str:
    """Draw differences on a scale around zero: up for improved, down for regressed."""
    if not changes:
        return ""
    left, right, row, top = 28.0, 172.0, 46.0, 26.0
    span = WIDTH - left - right
    bottom = top + row * len(changes)
    reach = max(max(abs(c.low), abs(c.high), abs(c.value)) for c in changes) or 0.01
    step = nice_step(reach, 4)
    reach = -(-reach * 1.02 // step) * step

    def at(value: float) -> float:
        return left + (value + reach) / (2 * reach) * span

    body = [scale(left, span, top, bottom, -reach, reach)]
    body.append(f'<path d="M{at(0):.1f} {top - 4:g}V{bottom:.1f}" class="zero"/>')
    body.append(text(at(0) - 8, top - 9, f"← {worse}", anchor="end", kind="axis"))
    body.append(text(at(0) + 8, top - 9, f"{better} →", kind="axis"))
    for index, change in enumerate(changes):
        y = top + index * row
        body.append(text(4, y + 17, shorten(change.label, 40), kind="label halo"))
        body.append(whisker(at(change.low), at(change.high), y + 30))
        shape = _CHANGED.get(change.wording, _UNCHANGED)
        body.append(f'<g transform="translate({at(change.value):.1f} {y + 30:.1f})">{shape}</g>')
        body.append(text(left + span + 12, y + 17, change.wording, kind="axis"))
        shown = f"{change.value:+.3f}"
        body.append(text(left + span + 12, y + 36, shown))
    described = "; ".join(
        f"{c.label}: {c.wording} {c.value:+.3f} ({c.low:+.3f} to {c.high:+.3f})" for c in changes
    )
    return svg(WIDTH, bottom + 24, title, described, "".join(body))
