"""A chart with its caption and the table that it was drawn from, and how each looks on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmtool.diagnose.report.svg import binned, safe

MAX_TABLE_ROWS = 100
LONG_CELL = 44
"""Longer texts are broken over lines; shorter ones stay on one."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart; `name` is what its exported file is called."""

    name: str
    drawing: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def title(self) -> str:
        """What the drawing announces itself as, escaped already."""
        return self.drawing.partition("<title>")[2].partition("</title>")[0]


def figures_html(figures: Iterable[Figure]) -> str:
    """Give charts side by side, each with its data table folded away below it."""
    shown = "".join(
        f"<figure><h3>{f.title}</h3>{f.drawing}<figcaption>{safe(f.caption)}</figcaption>"
        f"<details><summary>Table</summary>{table(f.head, f.rows)}</details></figure>"
        for f in figures
        if f.drawing
    )
    return f'<div class="figures">{shown}</div>' if shown else ""


def section(title: str, *content: str, is_folded: bool = False) -> str:
    """Give a section with its title, or nothing without content; a folded one is not printed."""
    joined = "".join(content)
    kind = ' class="folded"' if is_folded else ""
    return f"<section{kind}><h2>{safe(title)}</h2>{joined}</section>" if joined else ""


def details(title: str, content: str) -> str:
    """Give something folded away, or nothing without content."""
    if not content:
        return ""
    return f"<details><summary>{safe(title)}</summary>{content}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table with a header row; every cell is escaped.

    The end tags of cells and rows may be left out, which saves a tenth of a long page.
    """
    top = "".join(f'<th scope="col">{safe(cell)}' for cell in head)
    body = "".join("<tr>" + "".join(map(_td, row)) for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def number(value: Any) -> str:
    """Give a cell's text: four significant digits, lists and mappings spelled out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(number(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def interval(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Give a value with its interval, a dash where it is unknown."""
    if not value or value.get("value") is None:
        return "-"
    low, high = value.get("low"), value.get("high")
    shown = f"{value['value']:.{digits}f}"
    if low is None or high is None:
        return shown
    return f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def _td(cell: str) -> str:
    kind = ' class="long"' if len(cell) > LONG_CELL else ""
    return f"<td{kind}>{safe(cell)}"


def tabbed(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table as text with tabs, which a spreadsheet takes and which is short."""
    lines = ["\t".join(" ".join(cell.split()) for cell in row) for row in (head, *rows)]
    return f'<pre class="tabbed" tabindex="0">{safe(chr(10).join(lines))}</pre>'


def curve_rows(
    curves: Mapping[str, Sequence[Sequence[float]]], x_name: str, most: int = MAX_TABLE_ROWS
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Give curves as one table by place; a long one as bins with their mean and range."""
    curves = {name: points for name, points in curves.items() if points}
    longest = max((len(points) for points in curves.values()), default=0)
    if longest <= most:
        places = sorted({float(point[0]) for points in curves.values() for point in points})
        at = {name: {float(p[0]): p[1] for p in points} for name, points in curves.items()}
        rows = (
            (f"{place:g}", *(_short(found.get(place)) for found in at.values())) for place in places
        )
        return (x_name, *curves), tuple(rows)
    listed = [
        (name, f"{x:.6g}", _short(mean), _short(low), _short(high))
        for name, points in curves.items()
        for x, low, mean, high in binned(points, max(most // len(curves), 1))
    ]
    return ("curve", x_name, "mean", "smallest", "largest"), tuple(listed)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
