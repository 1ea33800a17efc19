"""One row per modality, as texts that every rendering in a terminal draws its own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtool.diagnose.metrics.names import constant_answer, in_words
from mmtool.diagnose.report.svg import shorten
from mmtool.diagnose.report.text_style import Table, TextStyle, bar, fitted, sparkline
from mmtool.diagnose.report.views import (
    AVAILABILITY,
    HEADROOM,
    INFORMATIVENESS,
    RELIANCE,
    SOLO,
    Plain,
    answer_rows,
    balance_rows,
    estimate,
    mapping,
)
from mmtool.text import plural

LEAST_NEEDED = (
    "J", "unimodal", "learnt by", "drop", "ms/step", "learning (val)", "gap", "solo",
    "headroom", "alone", "probe",
)  # fmt: skip
MAX_NAME = 20


def modality_table(report: Plain, style: TextStyle, gap: int = 2) -> Table:
    """Give head and rows, without the columns that nothing is known of or that do not fit."""
    metrics = mapping(report.get("metrics"))
    answers, balance = answer_rows(metrics), balance_rows(metrics)
    if not answers:
        return []
    curves = mapping(mapping(metrics.get("curves")).get("modalities"))
    head = ["modality", "learning (val)", "probe", "alone", "headroom", "solo", "gap", "unimodal",
            "drop", "ms/step", "J", "learnt by", "reliance"]  # fmt: skip
    table = [head]
    for name, row in answers.items():
        old = mapping(balance.get(name))
        table.append(
            [
                style.clean(shorten(name, MAX_NAME)),
                sparkline(_learning(mapping(curves.get(name))), unicode=style.unicode),
                _cell(row.get(INFORMATIVENESS)),
                _cell(row.get(AVAILABILITY)),
                _cell(row.get(HEADROOM)),
                _cell(row.get(SOLO)),
                _gap(row, old),
                _cell(estimate(old.get("unimodal"))),
                _cell(estimate(old.get("drop"))),
                _encoder_ms(metrics, name),
                _joules(metrics, name),
                _plateau(metrics, name),
                _reliance(row.get(RELIANCE), style),
            ]
        )
    return fitted(_known_columns(table), style.width, LEAST_NEEDED, gap)


def _known_columns(table: Table) -> Table:
    kept = [
        i
        for i in range(len(table[0]))
        if i == 0 or any(row[i] not in ("-", "") for row in table[1:])
    ]
    return [[row[i] for i in kept] for row in table]


def _learning(by_split: Plain) -> list[float]:
    val = mapping(by_split.get("val"))
    return [float(point[1]) for point in val.get("probe") or val.get("acc") or []]


def _cell(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else f"{found['value']:.2f}"


def _gap(row: Plain, old: Plain) -> str:
    known = estimate(old.get("gap"))
    if known is not None:
        return f"{known['value']:+.2f}"
    reach, probe = row.get(SOLO) or row.get(HEADROOM), row.get(INFORMATIVENESS)
    return f"{reach['value'] - probe['value']:+.2f}" if reach and probe else "-"


def _reliance(found: Mapping[str, Any] | None, style: TextStyle) -> str:
    if found is None:
        return "-"
    shown = f"{bar(found['value'], unicode=style.unicode)} {found['value']:4.0%}"
    if found.get("low") is None or found.get("high") is None:
        return shown
    return f"{shown} [{found['low']:.2f}, {found['high']:.2f}]"


def _encoder_ms(metrics: Plain, name: str) -> str:
    encoder = mapping(mapping(mapping(metrics.get("where")).get("encoders")).get(name))
    parts = [encoder.get(key) for key in ("forward_ms", "backward_ms")]
    known = [part for part in parts if isinstance(part, int | float)]
    return f"{sum(known):.1f}" if known else "-"


def _joules(metrics: Plain, name: str) -> str:
    joules = mapping(mapping(metrics.get("energy")).get("per_modality")).get(name)
    return f"{joules:,.0f}" if isinstance(joules, int | float) else "-"


def _plateau(metrics: Plain, name: str) -> str:
    epoch = mapping(mapping(metrics.get("plateau")).get(name)).get("epoch")
    return "-" if epoch is None else f"epoch {epoch}"


def table_note(metrics: Plain) -> str:
    """Say which epoch and samples the table is about, and what the fused score is."""
    balance = mapping(metrics.get("balance"))
    if balance.get("epoch") is None:
        return ""
    metric, fused = str(balance.get("metric") or "accuracy"), estimate(balance.get("fused"))
    note = f"epoch {balance['epoch']}, {plural(int(balance.get('n') or 0), 'validation sample')}"
    if balance.get("chance") is not None:
        note += f", {constant_answer(metric)} {balance['chance']:.2f}"
    if fused:
        named = "" if metric == "accuracy" else f" {in_words(metric)}"
        note += f", fused{named} {fused['value']:.2f}"
        if fused.get("low") is not None:
            note += f" [{fused['low']:.2f}, {fused['high']:.2f}]"
    return note


def step_line(metrics: Plain, style: TextStyle) -> str:
    """Say how long a step takes, how that went over the run, and by phase."""
    steps = mapping(metrics.get("steps"))
    step = mapping(steps.get("step"))
    if not step:
        return ""
    series = [r["p50_ms"] for r in steps.get("series") or () if r.get("p50_ms") is not None]
    drawn = sparkline(series, unicode=style.unicode, high=max(series, default=1.0))
    line = f"step {step['mean_ms']:.1f} ms (p50 {step['p50_ms']:.1f}, p95 {step['p95_ms']:.1f})"
    line += f" {drawn}" if len(series) > 1 else ""
    if steps.get("samples_per_s"):
        line += f", {steps['samples_per_s']:,.0f} samples/s"
    parts = [
        f"{p['name']} {p['share']:.0%}" for p in steps.get("phases") or () if p["share"] >= 0.005
    ]
    return f"{line}: {', '.join(parts)}" if parts else line


def footer(report: Plain) -> str:
    """Say what the report rests on: samples, seed, schema, version of the rules."""
    meta, thresholds = (
        mapping(report.get("meta")),
        mapping(mapping(report.get("meta")).get("thresholds")),
    )
    parts = []
    if meta.get("num_val"):
        parts.append(f"{meta['num_val']} validation samples")
    if meta.get("seed") is not None:
        parts.append(f"seed {meta['seed']}")
    groups = mapping(mapping(report.get("metrics")).get("comparison")).get("groups") or ()
    if groups:
        seeds = sorted({int(group["num_seeds"]) for group in groups})
        parts.append(f"{' to '.join(map(str, {seeds[0]: 1, seeds[-1]: 1}))} seeds per recipe")
    parts += [str(report.get("schema")), f"rules version {thresholds.get('version', 'unknown')}"]
    return ", ".join(parts)
