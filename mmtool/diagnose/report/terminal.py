"""The report as plain text: no frames and no colour needed, one fact to a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmtool.diagnose.report.comparison_text import comparison_lines
from mmtool.diagnose.report.modality_table import footer, modality_table, step_line, table_note
from mmtool.diagnose.report.text_style import TextStyle, aligned
from mmtool.diagnose.report.views import (
    Plain,
    advice_of,
    conditions,
    headline,
    listed,
    mapping,
    other_findings,
    paste_lines,
    verdict_finding,
)


def render(report: Plain, *, width: int = 100, unicode: bool = True, colour: bool = False) -> str:
    """Give `Report.as_dict()` as text of at most this width, commands to paste excepted."""
    style = TextStyle(max(width, 40), unicode, colour)
    metrics = mapping(report.get("metrics"))
    blocks = [
        _verdict(report, style),
        finding_lines(other_findings(report), style),
        comparison_lines(mapping(metrics.get("comparison")), style),
        _modalities(report, style),
        style.wrap(step_line(metrics, style)),
        [style.paint(line, "dim") for line in style.wrap(footer(report))],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _verdict(report: Plain, style: TextStyle) -> list[str]:
    verdict = headline(report)
    lines = [style.paint(style.clean(str(report.get("run"))), "dim")]
    lines += [line for said in conditions(report) for line in style.wrap(f"note: {said}")]
    lines += [style.paint(line, "bold") for line in style.wrap(verdict["sentence"])]
    if verdict.get("code"):
        lines += style.wrap(f"verdict: {' '.join([verdict['code'], *_modalities_of(verdict)])}")
    if sure := how_sure(verdict):
        lines += style.wrap(sure)
    finding = verdict_finding(report)
    if finding is not None and (why := evidence_text(mapping(finding.get("evidence")))):
        lines += style.wrap(f"why: {why}")
    if verdict.get("code"):
        lines += advice_lines(advice_of(verdict, finding), style)
    return lines


def _modalities_of(verdict: Plain) -> list[str]:
    return [str(name) for name in listed(verdict.get("modalities"))]


def how_sure(verdict: Plain) -> str:
    """Say how sure the verdict is, what else it could be and since when it holds."""
    said = []
    if isinstance(verdict.get("confidence"), int | float):
        said.append(f"confidence {verdict['confidence']:.2f}")
    runner = mapping(verdict.get("runner_up"))
    if runner:
        sure = runner.get("confidence")
        beside = f" {sure:.2f}" if isinstance(sure, int | float) else ""
        named = " ".join([str(runner.get("code")), *_modalities_of(runner)])
        said.append(f"runner-up {named}{beside}")
    if verdict.get("since_epoch") is not None:
        said.append(f"since epoch {verdict['since_epoch']}")
    return ", ".join(said)


def advice_lines(advice: Sequence[Plain], style: TextStyle) -> list[str]:
    """Give what to try, with the lines to paste on lines of their own."""
    lines: list[str] = []
    for entry in advice:
        needs = "; ".join(map(str, listed(entry.get("preconditions"))))
        lines += style.wrap(f"try: {entry.get('text') or ''}")
        lines += style.wrap(f"needs: {needs}", "  ") if needs else []
        lines += [f"    {style.clean(line)}" for line in paste_lines(entry)]
    return lines


def finding_lines(findings: Sequence[Plain], style: TextStyle) -> list[str]:
    """Give findings with their evidence and advice."""
    lines: list[str] = []
    given: set[str] = set()
    for finding in findings:
        if lines:
            lines.append("")
        sure = finding.get("confidence")
        beside = f"  confidence {sure:.2f}" if isinstance(sure, int | float) else ""
        severity, advice = str(finding.get("severity") or "info"), str(finding.get("advice") or "")
        head = style.paint(severity.upper().ljust(5), severity)
        lines.append(f"{head} {style.clean(str(finding['rule']))}{style.paint(beside, 'dim')}")
        lines += style.wrap(str(finding.get("what") or ""), "  ")
        why = evidence_text(mapping(finding.get("evidence")))
        if why:
            lines += [style.paint(line, "dim") for line in style.wrap(f"why: {why}", "  ")]
        if advice in given and advice:
            lines.append("  try: as above")
        elif advice:
            given.add(advice)
            lines.append("  try:")
            lines += style.wrap(advice, "    ")
    return lines


def evidence_text(evidence: Mapping[str, Any]) -> str:
    """Give the numbers of a finding, each with its interval."""
    parts = []
    for name, value in evidence.items():
        if name.endswith("_ci95") or value is None:
            continue
        interval = evidence.get(f"{name}_ci95")
        if isinstance(value, Mapping):
            if value.get("value") is None:
                continue
            low, high = value.get("low"), value.get("high")
            interval = None if low is None or high is None else [low, high]
            value = value["value"]
        shown = _number(value)
        if interval:
            shown += f" [{_number(interval[0])}, {_number(interval[1])}]"
        parts.append(f"{name} {shown}")
    return ", ".join(parts)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _modalities(report: Plain, style: TextStyle) -> list[str]:
    table = modality_table(report, style)
    if not table:
        return []
    lines = aligned(table)
    note = style.wrap(table_note(mapping(report.get("metrics"))))
    return [style.paint(lines[0], "dim"), *lines[1:], *(style.paint(n, "dim") for n in note)]
