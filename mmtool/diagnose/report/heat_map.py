"""Shares by class and modality as cells that carry their number, so that shade is only a help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmtool.diagnose.report.svg import WIDTH, shorten, svg, text

MOST_ROWS = 40
"""More classes than this are left to the table under the chart."""


def heat_map(
    title: str,
    rows: Sequence[tuple[str, Mapping[str, float | None]]],
    columns: Sequence[str],
    *,
    owned: Mapping[str, str | None],
) -> str:
    """Draw a cell per row and column; the cell of a row's owner has a frame."""
    if not rows or not columns:
        return ""
    left, top, tall = 140.0, 28.0, 28.0
    wide = min((WIDTH - left - 4) / len(columns), 140.0)
    body = [
        text(left + (i + 0.5) * wide, 18, shorten(name, max(int(wide // 10), 5)), anchor="middle",
             kind="strong")
        for i, name in enumerate(columns)
    ]  # fmt: skip
    for index, (name, shares) in enumerate(rows):
        y = top + index * tall
        body.append(text(left - 8, y + 19, shorten(name), anchor="end"))
        for i, column in enumerate(columns):
            share = shares.get(column)
            x = left + i * wide
            place = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{tall - 2:g}"'
            depth = 0.0 if share is None else 0.55 * min(max(share, 0.0), 1.0)
            kind = "cell owner" if owned.get(name) == column else "cell"
            said = "-" if share is None else f"{share:.2f}"
            body.append(f'<rect {place} class="{kind}" fill-opacity="{depth:.2f}"/>')
            body.append(text(x + wide / 2, y + 19, "-" if share is None else said, anchor="middle"))
    described = "; ".join(
        f"{name}: " + ", ".join(f"{c} {v:.2f}" for c in columns if (v := shares.get(c)) is not None)
        for name, shares in rows
    )
    return svg(WIDTH, top + tall * len(rows) + 4, title, described, "".join(body))
