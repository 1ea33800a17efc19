"""The report as one HTML file that opens offline: no script, no network, light and dark.

Rendered from the report's plain data, so that it says what `--json` says. Every text is escaped.
"""

from __future__ import annotations

import json

from mmtool.diagnose.report.balance_figures import answer_figures, learning_figures
from mmtool.diagnose.report.bias_figures import bias_figures, bias_tables, class_figures
from mmtool.diagnose.report.comparison_figures import (
    comparison_html,
    modality_figures,
    score_figures,
)
from mmtool.diagnose.report.figure import (
    Figure,
    curve_rows,
    details,
    figures_html,
    number,
    section,
    tabbed,
    table,
)
from mmtool.diagnose.report.style import STYLE
from mmtool.diagnose.report.svg import safe
from mmtool.diagnose.report.system_figures import (
    cost_figures,
    cost_notes,
    pauses_table,
    step_figures,
    step_notes,
    timeline_figures,
)
from mmtool.diagnose.report.verdict_html import conditions_html, findings_html, verdict_html
from mmtool.diagnose.report.views import Plain, capital, listed, mapping

IN_CHARTS = ("val share", "val probe", "val nll", "train nll")
"""Curves of a modality that the tables of charts hold in full."""
FUSED_IN_CHARTS = ("val acc", "train acc")
METHOD = (
    "Reliance: share of predictions that change when one modality is permuted over the validation "
    "samples; of a regression, of the distance that they move. Availability: accuracy, or the "
    "score of the task, with every other modality replaced by its mean feature. Informativeness: a "
    "linear probe on the encoder's features. They answer different questions and are not combined."
)


def render_html(report: Plain) -> str:
    """Give the page for a report given as `Report.as_dict()`."""
    meta, metrics = mapping(report.get("meta")), mapping(report.get("metrics"))
    name = safe(report.get("run") or "")
    body = [
        f"<header><h1>{name}</h1>",
        f'<p class="facts">{safe(_facts(meta))}</p></header><main>',
        section(
            "Verdict and evidence",
            conditions_html(report) + verdict_html(report) + findings_html(report),
        ),
        comparison_html(metrics),
        *_run_sections(metrics, mapping(report.get("system"))),
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
        f"<title>{name}: mmtool diagnose</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def all_figures(report: Plain) -> list[Figure]:
    """Give every chart of the page that has something to show, in its order."""
    metrics, system = mapping(report.get("metrics")), mapping(report.get("system"))
    comparison = mapping(metrics.get("comparison"))
    compared = [*score_figures(metrics), *modality_figures(comparison)] if comparison else []
    figures = [
        *compared,
        *learning_figures(metrics),
        *answer_figures(metrics),
        *class_figures(metrics),
        *bias_figures(metrics),
        *step_figures(metrics),
        *timeline_figures(system),
        *cost_figures(metrics),
    ]
    return [figure for figure in figures if figure.drawing]


def _run_sections(metrics: Plain, system: Plain) -> list[str]:
    step_said, cost_said = _notes(step_notes(metrics)), _notes(cost_notes(metrics))
    pauses = details("Longest pauses", pauses_table(metrics))
    return [
        section("Learning curves", figures_html(learning_figures(metrics))),
        section("Reliance, availability, informativeness", figures_html(answer_figures(metrics))),
        section("Classes and groups", figures_html(class_figures(metrics))),
        section("Bias and robustness", figures_html(bias_figures(metrics)), bias_tables(metrics)),
        section("Where a step goes", figures_html(step_figures(metrics)), step_said, pauses),
        section("GPU and host over time", figures_html(timeline_figures(system))),
        section(
            "Energy and cost by modality",
            figures_html(cost_figures(metrics)),
            cost_said,
        ),
    ]


def _notes(said: list[str]) -> str:
    return "".join(f'<p class="note">{safe(capital(note))}</p>' for note in said)


def _facts(meta: Plain) -> str:
    named = {
        "dataset": meta.get("dataset"),
        "modalities": ", ".join(map(str, listed(meta.get("modalities")))),
        "method": meta.get("method"),
        "fusion": meta.get("fusion"),
        "validation samples": meta.get("num_val"),
        "seed": meta.get("seed"),
    }
    return " · ".join(f"{key} {value}" for key, value in named.items() if value not in (None, ""))


def _limits(report: Plain) -> str:
    thresholds = mapping(mapping(report.get("meta")).get("thresholds"))
    limits = "".join(f"<li>{safe(limit)}</li>" for limit in listed(report.get("limits")))
    rows = [(str(key), number(value)) for key, value in thresholds.items()]
    folded = details(f"Thresholds, version {thresholds.get('version')}", _table(rows))
    return section("Limits and method", f"<ul>{limits}</ul><p>{safe(METHOD)}</p>{folded}")


def _table(rows: list[tuple[str, str]]) -> str:
    return table(("threshold", "value"), rows) if rows else ""


def _recipe(meta: Plain) -> str:
    recipe = f"<pre>{safe(meta['recipe'])}</pre>" if meta.get("recipe") else ""
    environment = ""
    if meta.get("environment"):
        text = json.dumps(meta["environment"], indent=1, ensure_ascii=False)
        environment = f"<pre>{safe(text)}</pre>"
    return section(
        "Recipe and environment",
        details("Recipe, as resolved", recipe),
        details("Environment", environment),
        is_folded=True,
    )


def _raw(report: Plain) -> str:
    curves = mapping(mapping(report.get("metrics")).get("curves"))
    parts = _by_epoch("Fused, by epoch", mapping(curves.get("fused")), FUSED_IN_CHARTS)
    for name, by_split in mapping(curves.get("modalities")).items():
        parts += _by_epoch(f"{name}, by epoch", mapping(by_split), IN_CHARTS)
    summary = mapping(mapping(report.get("system")).get("summary")).items()
    rows = [(str(key), number(v.get("mean")), number(v.get("max"))) for key, v in summary]
    parts += details("System", table(("signal", "mean", "maximum"), rows) if rows else "")
    said = (
        '<p class="note">Columns are separated by tabs; what stands in the table of a chart is not '
        "repeated. Everything is in the report as JSON: mmtool diagnose --json.</p>"
    )
    return section("Raw tables", parts and parts + said, is_folded=True)


def _by_epoch(title: str, by_split: Plain, left_out: tuple[str, ...]) -> str:
    found = {
        f"{split} {metric}": points
        for split, metrics in by_split.items()
        for metric, points in mapping(metrics).items()
        if f"{split} {metric}" not in left_out
    }
    head, rows = curve_rows(found, "epoch")
    return details(title, tabbed(head, rows) if rows else "")
