"""The report on a terminal: a panel with the verdict, a row per modality, where a step goes."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmtool.diagnose.report.comparison_text import comparison_lines
from mmtool.diagnose.report.modality_table import footer, modality_table, step_line, table_note
from mmtool.diagnose.report.terminal import evidence_text, finding_lines, how_sure
from mmtool.diagnose.report.text_style import TextStyle
from mmtool.diagnose.report.views import (
    advice_of,
    capital,
    conditions,
    headline,
    listed,
    mapping,
    other_findings,
    paste_lines,
    system_verdict,
    verdict_finding,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Plain = Mapping[str, Any]
BORDERS = {"error": "red", "warn": "yellow", "info": "cyan"}
MOST_COLUMNS = 120
"""A sentence across a whole wide screen is hard to read."""
_FRAME = 4


def render_panel(report: Plain, *, width: int, unicode: bool, colour: bool) -> str:
    """Give `Report.as_dict()` as text with a panel and a table."""
    from rich.text import Text

    style = TextStyle(min(max(width, 40), MOST_COLUMNS), unicode, colour)
    file = io.StringIO()
    console = console_for(file, style)
    for part in report_view(report, style):
        # Lines are broken already, apart from those that must stay whole.
        console.print(part, soft_wrap=isinstance(part, Text))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def console_for(file: Any, style: TextStyle, *, is_live: bool = False) -> "Console":
    """Give a console that shows exactly what the style allows."""
    from rich.console import Console

    return Console(
        file=file,
        width=style.width,
        force_terminal=style.colour or is_live,
        color_system="standard" if style.colour else None,
        no_color=not style.colour,
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=False,
    )


def report_view(report: Plain, style: TextStyle) -> "list[RenderableType]":
    """Give everything a terminal shows of a report, from top to bottom."""
    metrics = mapping(report.get("metrics"))
    parts: list[RenderableType] = [verdict_panel(report, style)]
    parts += _lines(_patches(report, style))
    parts += _block(finding_lines(_shown_findings(report), style))
    parts += _block(comparison_lines(mapping(metrics.get("comparison")), style))
    parts += modalities_view(report, style)
    step = step_line(metrics, style)
    parts += _block(style.wrap(step)) if step else []
    return parts


def verdict_panel(report: Plain, style: TextStyle) -> "RenderableType":
    """Give the frame with verdict, reasons, advice and what the machine did."""
    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    verdict, finding = headline(report), verdict_finding(report)
    body = Text()
    for said in conditions(report):
        body.append(style.clean(f"note: {said}\n"), style="yellow")
    body.append(style.clean(str(verdict["sentence"])), style="bold")
    why = evidence_text(mapping((finding or {}).get("evidence")))
    named = {"why": why, "how sure": how_sure(verdict), "try": _advice(verdict, finding)}
    if "comparison" not in mapping(report.get("metrics")):
        named["machine"] = capital(system_verdict(report))
    for label, text in named.items():
        if text:
            body.append(f"\n{label}: ", style="dim")
            body.append(style.clean(text))
    border = BORDERS[str(verdict["severity"])]
    return Panel(
        body,
        box=box.ROUNDED if style.unicode else box.ASCII,
        title=Text(style.clean(_title(report, verdict)), style="bold"),
        title_align="left",
        subtitle=Text(style.clean(_within(footer(report), style.width - 8)), style="dim"),
        subtitle_align="right",
        border_style=border,
        width=style.width,
    )


def _within(text: str, width: int) -> str:
    """Leave out the front of a footer that does not fit; the schema stands at its end."""
    parts = text.split(", ")
    while len(", ".join(parts)) > width and len(parts) > 1:
        parts = parts[1:]
    return ", ".join(parts)


def _title(report: Plain, verdict: Plain) -> str:
    named = [str(verdict.get("code") or ""), ", ".join(map(str, listed(verdict.get("modalities"))))]
    told = " ".join(part for part in named if part)
    run = str(report.get("run") or "")
    return f"{run}: {told}" if told else run


def _advice(verdict: Plain, finding: Plain | None) -> str:
    if not verdict.get("code"):
        return ""
    advice = [_one_advice(entry) for entry in advice_of(verdict, finding)]
    if len(advice) < 2:
        return "".join(advice)
    return "".join(f"\n  {at}. {text}" for at, text in enumerate(advice, start=1))


def _one_advice(entry: Plain) -> str:
    needs = "; ".join(map(str, listed(entry.get("preconditions"))))
    return f"{entry.get('text') or ''}{f' (needs: {needs})' if needs else ''}"


def _patches(report: Plain, style: TextStyle) -> list[str]:
    """Give the lines to paste below the frame, where a selection holds nothing else."""
    verdict = headline(report)
    if not verdict.get("code"):
        return []
    lines: list[str] = []
    advice = advice_of(verdict, verdict_finding(report))
    for at, entry in enumerate(advice, start=1):
        patch = [style.clean(line) for line in paste_lines(entry)]
        if patch:
            lines += ["", *([f"# {at}"] if len(advice) > 1 else []), *patch]
    return lines


def _shown_findings(report: Plain) -> list[Plain]:
    """Leave out what the panel says already."""
    return [f for f in other_findings(report) if f.get("what") != report.get("verdict")]


def modalities_view(report: Plain, style: TextStyle) -> "list[RenderableType]":
    """Give the table with a row per modality, and what it is about."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    narrower = TextStyle(style.width - _FRAME, style.unicode, style.colour)
    found = modality_table(report, narrower, gap=2)
    if not found:
        return []
    table = Table(
        box=box.SIMPLE_HEAD if style.unicode else None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in found[0]:
        table.add_column(Text(name), no_wrap=True, header_style="dim", overflow="crop")
    for row in found[1:]:
        table.add_row(*(Text(cell) for cell in row))
    note = table_note(mapping(report.get("metrics")))
    return [Text(""), table, *(Text(line, style="dim") for line in style.wrap(note))]


def _block(lines: list[str]) -> "list[RenderableType]":
    return _lines(["", *lines]) if lines else []


def _lines(lines: list[str]) -> "list[RenderableType]":
    """Give lines as they are: what is to be pasted may be wider than the terminal."""
    from rich.text import Text

    return [Text.from_ansi(line, no_wrap=True, overflow="ignore") for line in lines]
