"""Which charts a report has, and what each of them is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from mmtool.diagnose.metrics.intervals import Interval, estimated, wilson
from mmtool.diagnose.metrics.names import constant_answer, in_words
from mmtool.diagnose.report.charts import (
    Bar,
    Line,
    bars_with_interval,
    dot_plot,
    line_chart,
    stacked_bar,
)
from mmtool.diagnose.report.groups import column_notes, group_table
from mmtool.diagnose.rules import _thresholds as limits

Plain = Mapping[str, Any]
QUESTIONS = {
    "reliance": "share",
    "availability": "alone",
    "informativeness": "probe",
    "trained alone": "reference",
}
SIGNALS = {
    "GPU busy, %": ("_util",),
    "GPU memory, MB": ("_mem_mb",),
    "GPU power, W": ("_power_w",),
    "CPU, % of one core": ("cpu_percent",),
    "process memory, MB": ("rss_mb",),
}


def run_figures(metrics: Plain, system: Plain) -> str:
    """Give the sections with charts for one run."""
    curves = metrics.get("curves") or {}
    balance = metrics.get("balance") or {}
    return (
        _section("Learning curves", _learning(curves, balance))
        + _section("Reliance, availability, informativeness", _questions(balance))
        + _section("Where a step goes", _steps(metrics.get("steps") or {}))
        + _section("GPU and host over time", _timeline(system.get("timeline") or {}))
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def figure(drawing: str, caption: str = "") -> str:
    """Give a figure with its caption, or nothing without a drawing."""
    if not drawing:
        return ""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _learning(curves: Plain, balance: Plain) -> str:
    modalities = curves.get("modalities") or {}
    fused = curves.get("fused") or {}
    chance, metric = balance.get("chance"), balance.get("metric") or "accuracy"
    name_of_score = in_words(metric)
    lines = [
        Line(f"fused {split}", fused[split]["acc"], 0, dash)
        for dash, split in enumerate(("val", "train"))
        if fused.get(split, {}).get("acc")
    ]
    for index, (name, by_split) in enumerate(modalities.items(), start=1):
        val = by_split.get("val") or {}
        kind = "probe" if val.get("probe") else "unimodal"
        points = val.get("probe") or val.get("acc") or ()
        lines.append(Line(f"{name} {kind}", points, index, index + 1))
    accuracy = line_chart(
        f"{name_of_score[:1].upper()}{name_of_score[1:]} by epoch",
        lines,
        x_label="epoch",
        y_label=name_of_score,
        y_range=(0.0, 1.0),
        reference=None if chance is None else (constant_answer(metric), chance),
    )
    losses = []
    for index, (name, by_split) in enumerate(modalities.items(), start=1):
        for dash, split in enumerate(("val", "train")):
            points = (by_split.get(split) or {}).get("nll") or ()
            losses.append(Line(f"{name} {split}", points, index, dash))
    unit, moves = ("squared error", "shifts") if metric == "r2" else ("NLL, nats", "flips")
    shares = [
        Line(name, (by_split.get("val") or {}).get("share") or (), index, index - 1)
        for index, (name, by_split) in enumerate(modalities.items(), start=1)
    ]
    return (
        figure(
            accuracy,
            f"Fused {name_of_score}, and what each encoder has learnt on its own."
            + (" Values below 0 are drawn at 0." if metric == "r2" else ""),
        )
        + figure(
            line_chart("Unimodal loss by epoch", losses, x_label="epoch", y_label=unit),
            "Loss of each modality's own logits; a rising validation curve is overfitting.",
        )
        + figure(
            line_chart(
                "Reliance by epoch",
                shares,
                x_label="epoch",
                y_label=f"share of {moves}",
                y_range=(0.0, 1.0),
                height=200,
            ),
            "Share of the predictions that change when this modality is permuted."
            if moves == "flips"
            else "Share of the distance that predictions move when modalities are permuted.",
        )
    )


def _questions(balance: Plain) -> str:
    rows = balance.get("modalities") or ()
    metric = balance.get("metric") or "accuracy"
    marks = {
        row["modality"]: {q: _on_scale(row[k]["value"]) for q, k in QUESTIONS.items() if row.get(k)}
        for row in rows
    }
    chance = balance.get("chance")
    dots = dot_plot(
        "Reliance, availability and informativeness by modality",
        {name: found for name, found in marks.items() if found},
        reference=None if chance is None else (constant_answer(metric), chance),
    )
    moves = "shifts" if metric == "r2" else "flips"
    scores = "R^2, drawn at 0 where it is below" if metric == "r2" else "accuracies"
    bars = [
        Bar(row["modality"], s["value"], s["low"], s["high"], index)
        for index, row in enumerate(rows, start=1)
        if (s := row.get("share"))
    ]
    bound = limits.dominant_share(max(len(rows), 2))
    return figure(
        dots,
        f"Reliance is a share of {moves}; the others are {scores}. An informative modality with "
        "little reliance is held back.",
    ) + figure(
        bars_with_interval("Reliance share", bars, threshold=(f"dominant {bound:.2f}", bound)),
        f"Reliance share with its 95 % interval at epoch {balance.get('epoch')}, "
        f"{balance.get('n')} validation samples.",
    )


def _steps(steps: Plain) -> str:
    if not steps:
        return ""
    phases = [(p["name"], p["mean_ms"]) for p in steps["phases"] if p["mean_ms"] > 0]
    step = steps["step"]
    caption = (
        f"Mean over {steps['num_steps']} steps, {steps['num_warmup_dropped']} warm-up steps left "
        f"out; step {step['mean_ms']:.1f} ms, median {step['p50_ms']:.1f}, 95th percentile "
        f"{step['p95_ms']:.1f}"
    )
    rate = steps.get("samples_per_s")
    if rate:
        caption += f"; {rate:,.0f} samples per second"
    drawing = stacked_bar("Step time by phase", phases)
    return figure(drawing, caption + ".") or f"<p>{escape(caption)}.</p>"


def _timeline(timeline: Plain) -> str:
    parts = ""
    for label, endings in SIGNALS.items():
        lines = [
            Line(key.split("_")[0] if key.startswith("gpu") else "host", points, index, index)
            for index, (key, points) in enumerate(
                (k, p) for k, p in timeline.items() if k.endswith(endings)
            )
        ]
        parts += figure(line_chart(label, lines, x_label="seconds", y_label=label, height=150))
    return parts


def _on_scale(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _interval(row: Plain) -> Interval:
    n, error = int(row["n"] or 0), row.get("error")
    return wilson(row["acc"], n) if error is None else estimated(row["acc"], error, n)


def comparison_figures(comparison: Plain) -> str:
    """Give the comparison's table and the accuracies side by side."""
    if not comparison:
        return ""
    metric = comparison["runs"][0].get("metric") or "accuracy"
    score = in_words(metric)
    shown = "acc" if metric == "accuracy" else score
    head = ("run", "method", "seed", f"val {shown}", f"test {shown}", "step p50 ms")
    keys = ("run", "method", "seed", "acc", "test_acc", "step_p50_ms")
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(row.get(key)))}</td>" for key in keys) + "</tr>"
        for row in comparison["runs"]
    )
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    differing = "".join(
        f"<tr><td>{escape(key)}</td>"
        + "".join(f"<td>{escape(_cell(value))}</td>" for value in values)
        + "</tr>"
        for key, values in comparison["differing"].items()
    )
    accuracies = [
        Bar(row["run"], _on_scale(i.value), _on_scale(i.low), _on_scale(i.high), index)
        for index, row in enumerate(comparison["runs"])
        if row["acc"] is not None and (i := _interval(row))
    ]
    drawing = bars_with_interval(f"Final validation {score} by run", accuracies)
    return _section(
        "Comparison",
        _grouped(comparison)
        + figure(
            drawing, f"Final validation {score}; the interval is of the samples, not of seeds."
        )
        + f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        f"</div><h3>What differs in the recipe</h3>"
        f'<div class="scroll"><table><tbody>{differing}</tbody></table></div>',
    )


def _grouped(comparison: Plain) -> str:
    head, *rows = group_table(comparison)
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in column_notes(comparison))
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{notes}<h3>Each run</h3>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
