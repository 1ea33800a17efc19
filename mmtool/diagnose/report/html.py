"""The report as one HTML file that opens offline: no script, no network, light and dark.

Rendered from the report's plain data, so that it says what `--json` says. Every text is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mmtool.diagnose.report.figures import comparison_figures, run_figures
from mmtool.diagnose.report.style import STYLE

Plain = Mapping[str, Any]


def render_html(report: Plain) -> str:
    """Give the page for a report given as `Report.as_dict()`."""
    meta, metrics = report["meta"], report["metrics"]
    body = [
        f"<header><h1>{escape(report['run'])}</h1>",
        f'<p class="verdict">{escape(report["verdict"])}</p>',
        f'<p class="facts">{escape(_facts(meta))}</p></header><main>',
        _section("Findings", "".join(_finding(f) for f in report["findings"])),
        comparison_figures(metrics.get("comparison") or {}),
        run_figures(metrics, report["system"]),
        _limits(report),
        _recipe(meta),
        _raw(report),
        "</main>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\"/>"
        f"<title>{escape(report['run'])}: mmtool diagnose</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _facts(meta: Plain) -> str:
    named = {
        "dataset": meta.get("dataset"),
        "modalities": ", ".join(meta.get("modalities") or ()),
        "method": meta.get("method"),
        "fusion": meta.get("fusion"),
        "validation samples": meta.get("num_val"),
        "seed": meta.get("seed"),
    }
    return " · ".join(f"{key} {value}" for key, value in named.items() if value not in (None, ""))


def _finding(finding: Plain) -> str:
    sure = finding.get("confidence")
    head = f'<span class="badge">{escape(finding["severity"])}</span> {escape(finding["rule"])}'
    if finding.get("modality"):
        head += f" · {escape(finding['modality'])}"
    if sure is not None:
        head += f' · <span class="note">confidence {sure:.2f}</span>'
    advice = finding.get("advice")
    return (
        f'<article class="finding {escape(finding["severity"])}"><p class="head">{head}</p>'
        f"<p><strong>{escape(finding['what'])}</strong></p>"
        + (f"<p>Try:</p><pre>{escape(advice)}</pre>" if advice else "")
        + _evidence(finding.get("evidence") or {})
        + "</article>"
    )


def _evidence(evidence: Plain) -> str:
    cells = []
    for name, value in evidence.items():
        if name.endswith("_ci95") or value is None:
            continue
        interval = evidence.get(f"{name}_ci95")
        between = f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""
        shown = escape(number(value) + between)
        cells.append(f"<div><dt>{escape(name)}</dt> <dd>{shown}</dd></div>")
    if not cells:
        return ""
    return '<p class="note">Evidence, 95 % intervals in brackets:</p>' + (
        f'<dl class="evidence">{"".join(cells)}</dl>'
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


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table with a header row; every cell is escaped."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _limits(report: Plain) -> str:
    thresholds = report["meta"].get("thresholds") or {}
    listed = "".join(f"<li>{escape(limit)}</li>" for limit in report["limits"])
    rows = [(key, number(value)) for key, value in thresholds.items()]
    return _section(
        "Limits and method",
        f"<ul>{listed}</ul><p>Reliance: share of predictions that change when one modality is "
        "permuted over the validation samples; of a regression, of the distance that they move. "
        "Availability: accuracy, or the score of the task, with every other modality "
        "replaced by its mean feature. Informativeness: a linear probe on the encoder's features. "
        "They answer different questions and are not combined.</p>"
        f"<details><summary>Thresholds, version {escape(str(thresholds.get('version')))}</summary>"
        f"{table(('threshold', 'value'), rows)}</details>",
    )


def _recipe(meta: Plain) -> str:
    parts = ""
    if meta.get("recipe"):
        parts += (
            "<details><summary>Recipe, as resolved</summary>"
            f"<pre>{escape(meta['recipe'])}</pre></details>"
        )
    if meta.get("environment"):
        text = json.dumps(meta["environment"], indent=2, ensure_ascii=False)
        parts += f"<details><summary>Environment</summary><pre>{escape(text)}</pre></details>"
    return _section("Recipe and environment", parts)


def _raw(report: Plain) -> str:
    curves = report["metrics"].get("curves") or {}
    rows = [
        (split, metric, str(epoch), number(value))
        for split, metrics in (curves.get("fused") or {}).items()
        for metric, points in metrics.items()
        for epoch, value in points
    ]
    parts = _details("Fused, by epoch", ("split", "metric", "epoch", "value"), rows)
    for name, by_split in (curves.get("modalities") or {}).items():
        rows = [
            (split, metric, str(epoch), number(value))
            for split, metrics in by_split.items()
            for metric, points in metrics.items()
            for epoch, value in points
        ]
        parts += _details(f"{name}, by epoch", ("split", "metric", "epoch", "value"), rows)
    system = (report["system"].get("summary") or {}).items()
    rows_system = [(key, number(v["mean"]), number(v["max"])) for key, v in system]
    parts += _details("System", ("signal", "mean", "maximum"), rows_system)
    return _section("Raw tables", parts)


def _details(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return f"<details><summary>{escape(title)}</summary>{table(head, rows)}</details>"
