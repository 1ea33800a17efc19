"""The report as plain text: verdict, why, what to try, one row per modality, where a step goes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmtool.diagnose.finding import Finding, Report
from mmtool.diagnose.metrics.names import constant_answer, in_words
from mmtool.diagnose.report.groups import column_notes, group_table
from mmtool.text import plural

SPARK_BINS = 16
BAR_CELLS = 10
MOST_RUNS = 12
"""More runs than this are shown as groups only."""
SPARKS = {True: "▁▂▃▄▅▆▇█", False: "_.-=+*%#"}
BAR = {True: ("█", "·"), False: ("#", ".")}
ASCII_FOR = str.maketrans({"≥": ">=", "≤": "<=", "±": "+-", "–": "-", "—": "-", "…": "..."})
COLOURS = {"error": "31", "warn": "33", "info": "36", "bold": "1", "dim": "2"}


@dataclass(frozen=True, slots=True)
class _Style:
    width: int
    unicode: bool
    colour: bool

    def paint(self, text: str, name: str) -> str:
        return f"\x1b[{COLOURS[name]}m{text}\x1b[0m" if self.colour else text

    def clean(self, text: str) -> str:
        """Drop control characters, and in ASCII whatever the terminal cannot show."""
        text = "".join(c for c in text if c.isprintable() or c == "\n")
        if self.unicode:
            return text
        return text.translate(ASCII_FOR).encode("ascii", "replace").decode("ascii")

    def wrap(self, text: str, indent: str = "") -> list[str]:
        lines: list[str] = []
        for line in self.clean(text).splitlines():
            # A command must survive copy and paste, so it is never broken over lines.
            if line.startswith(("mmtool ", "#")):
                lines.append(indent + line)
                continue
            lines += textwrap.wrap(
                line, self.width, initial_indent=indent, subsequent_indent=indent
            ) or [""]
        return lines


def render(report: Report, *, width: int = 100, unicode: bool = True, colour: bool = False) -> str:
    """Give the report as text of at most this width, commands to paste excepted."""
    style = _Style(max(width, 40), unicode, colour)
    blocks = [
        _verdict(report, style),
        _findings(report.findings, style),
        _comparison(report.metrics.get("comparison") or {}, style),
        _modalities(report, style),
        _steps(report.metrics.get("steps") or {}, style),
        _footer(report, style),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _verdict(report: Report, style: _Style) -> list[str]:
    title = style.paint(style.clean(report.run), "dim")
    return [title, *(style.paint(line, "bold") for line in style.wrap(report.verdict))]


def _findings(findings: Sequence[Finding], style: _Style) -> list[str]:
    lines: list[str] = []
    given: set[str] = set()
    if sum(finding.rule == "comparison" for finding in findings) > MOST_RUNS:
        findings = [finding for finding in findings if finding.rule != "comparison"]
    for finding in findings:
        if lines:
            lines.append("")
        sure = "" if finding.confidence is None else f"  confidence {finding.confidence:.2f}"
        head = style.paint(finding.severity.upper().ljust(5), finding.severity)
        lines.append(f"{head} {finding.rule}{style.paint(sure, 'dim')}")
        lines += style.wrap(finding.what, "  ")
        why = _evidence(finding.evidence)
        if why:
            lines += [style.paint(line, "dim") for line in style.wrap(f"why: {why}", "  ")]
        if finding.advice in given:
            lines.append("  try: as above")
        elif finding.advice:
            given.add(finding.advice)
            lines.append("  try:")
            lines += style.wrap(finding.advice, "    ")
    return lines


def _evidence(evidence: Mapping[str, Any]) -> str:
    parts = []
    for name, value in evidence.items():
        if name.endswith("_ci95") or value is None or isinstance(value, Mapping):
            continue
        interval = evidence.get(f"{name}_ci95")
        shown = _number(value)
        if interval:
            shown += f" [{_number(interval[0])}, {_number(interval[1])}]"
        parts.append(f"{name} {shown}")
    return ", ".join(parts)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def sparkline(
    values: Sequence[float], *, unicode: bool, low: float = 0.0, high: float = 1.0
) -> str:
    """Give at most sixteen cells whose height follows the values between low and high."""
    marks = SPARKS[unicode]
    if not values:
        return ""
    num_bins = min(SPARK_BINS, len(values))
    edges = [round(i * len(values) / num_bins) for i in range(num_bins + 1)]
    cells = []
    for start, stop in pairwise(edges):
        part = values[start:stop]
        level = (sum(part) / len(part) - low) / ((high - low) or 1)
        cells.append(marks[min(max(int(level * len(marks)), 0), len(marks) - 1)])
    return "".join(cells)


def bar(share: float, *, unicode: bool, cells: int = BAR_CELLS) -> str:
    """Give a horizontal bar for a share between 0 and 1."""
    full, empty = BAR[unicode]
    share = min(max(share, 0.0), 1.0)
    filled = round(share * cells) if share > 0.995 else min(round(share * cells), cells - 1)
    return full * filled + empty * (cells - filled)


def _modalities(report: Report, style: _Style) -> list[str]:
    balance = report.metrics.get("balance") or {}
    rows = balance.get("modalities") or []
    if not rows:
        return []
    curves = (report.metrics.get("curves") or {}).get("modalities") or {}
    head = ["modality", "learning (val)", "probe", "alone", "unimodal", "drop", "reliance"]
    table = [head]
    for row in rows:
        share = _value(row, "share")
        table.append(
            [
                style.clean(row["modality"]),
                sparkline(_learning(curves.get(row["modality"], {})), unicode=style.unicode),
                *(_cell(_value(row, key)) for key in ("probe", "alone", "unimodal", "drop")),
                "-" if share is None else f"{bar(share, unicode=style.unicode)} {share:4.0%}",
            ]
        )
    lines = _fit(table, style.width)
    fused, metric = balance.get("fused") or {}, balance.get("metric") or "accuracy"
    note = f"epoch {balance['epoch']}, {plural(int(balance['n']), 'validation sample')}"
    if balance.get("chance") is not None:
        note += f", {constant_answer(metric)} {balance['chance']:.2f}"
    if fused:
        named = "" if metric == "accuracy" else f" {in_words(metric)}"
        note += f", fused{named} {fused['value']:.2f} [{fused['low']:.2f}, {fused['high']:.2f}]"
    notes = [style.paint(line, "dim") for line in style.wrap(note)]
    return [style.paint(lines[0], "dim"), *lines[1:], *notes]


def _learning(curves: Mapping[str, Any]) -> list[float]:
    val = curves.get("val") or {}
    return [point[1] for point in val.get("probe") or val.get("acc") or []]


def _value(row: Mapping[str, Any], key: str) -> float | None:
    found = row.get(key)
    return None if found is None else float(found["value"])


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _fit(table: list[list[str]], width: int) -> list[str]:
    """Align the columns; where the width is short, drop the least needed ones."""
    for column in ("drop", "unimodal", "learning (val)", "alone", "probe"):
        if _table_width(table) <= width:
            break
        index = table[0].index(column)
        table = [row[:index] + row[index + 1 :] for row in table]
    return _aligned(table)


def _table_width(table: list[list[str]]) -> int:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return sum(widths) + 2 * (len(widths) - 1)


def _steps(steps: Mapping[str, Any], style: _Style) -> list[str]:
    if not steps:
        return []
    step = steps["step"]
    rate = steps.get("samples_per_s")
    line = f"step {step['mean_ms']:.1f} ms (p50 {step['p50_ms']:.1f}, p95 {step['p95_ms']:.1f})"
    if rate:
        line += f", {rate:,.0f} samples/s"
    parts = [f"{p['name']} {p['share']:.0%}" for p in steps["phases"] if p["share"] >= 0.005]
    return style.wrap(f"{line}: {', '.join(parts)}" if parts else line)


def _comparison(comparison: Mapping[str, Any], style: _Style) -> list[str]:
    if not comparison:
        return []
    lines = [*_grouped(comparison, style), "", *_differing(comparison, style)]
    if len(comparison["runs"]) <= MOST_RUNS:
        lines += ["", *_each_run(comparison, style)]
    return lines


def _grouped(comparison: Mapping[str, Any], style: _Style) -> list[str]:
    table = [[style.clean(cell) for cell in row] for row in group_table(comparison)]
    kept = {"recipe", "seeds", table[0][4], table[0][5]}
    least_needed = ["logits by", "time", "step", *reversed(table[0][6:-3]), table[0][3]]
    for name in (name for name in least_needed if name not in kept):
        if _table_width(table) <= style.width:
            break
        at = table[0].index(name)
        table = [row[:at] + row[at + 1 :] for row in table]
    lines = _aligned(table)
    notes = [line for note in column_notes(comparison) for line in style.wrap(note)]
    return [style.paint(lines[0], "dim"), *lines[1:], *(style.paint(n, "dim") for n in notes)]


def _differing(comparison: Mapping[str, Any], style: _Style) -> list[str]:
    differing = comparison["differing"]
    if len(comparison["runs"]) > MOST_RUNS:
        others = [key for key in differing if not key.startswith("method.")]
        return style.wrap(f"differs: the method and its options, {', '.join(others)}")
    told = [f"{key} = {' | '.join(str(v) for v in values)}" for key, values in differing.items()]
    return style.wrap(f"differs: {'; '.join(told) or 'nothing in the recipe'}")


def _each_run(comparison: Mapping[str, Any], style: _Style) -> list[str]:
    metric = comparison["runs"][0].get("metric") or "accuracy"
    score = "acc" if metric == "accuracy" else in_words(metric)
    table = [["run", "seed", f"val {score}", f"test {score}", "step ms", "reliance"]]
    for row in comparison["runs"]:
        shares = ", ".join(
            f"{name} {m['share']:.0%}"
            for name, m in row["modalities"].items()
            if m["share"] is not None
        )
        seed = "-" if row["seed"] is None else str(row["seed"])
        step = "-" if row["step_p50_ms"] is None else f"{row['step_p50_ms']:.1f}"
        cells = [_cell3(row["acc"]), _cell3(row["test_acc"]), step, shares or "-"]
        table.append([style.clean(row["run"]), seed, *cells])
    return _aligned(table)


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table
    ]


def _cell3(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _footer(report: Report, style: _Style) -> list[str]:
    thresholds = report.meta.get("thresholds") or {}
    line = f"{report.schema}, rules version {thresholds.get('version', 'unknown')}"
    return [style.paint(line, "dim")]
