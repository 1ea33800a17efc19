"""Charts and tables of several runs side by side."""

from __future__ import annotations

from typing import Any

from mmtool.diagnose.metrics.intervals import Interval, estimated, wilson
from mmtool.diagnose.metrics.names import in_words
from mmtool.diagnose.report.bar_charts import Bar, bars
from mmtool.diagnose.report.curve_chart import Line, line_chart
from mmtool.diagnose.report.dot_charts import Change, forest_plot
from mmtool.diagnose.report.figure import Figure, curve_rows, figures_html, section, table
from mmtool.diagnose.report.groups import column_notes, group_table, judged_split
from mmtool.diagnose.report.svg import safe
from mmtool.diagnose.report.views import Plain, listed, mapping

MOST_CURVES = 6
MANY = 12
"""More changes or runs than this are thinned out in charts; their tables keep all."""
NO_CHANGE = "no change detected"
_KEYS = {"val": "acc", "test": "test"}
_SPLITS = {"val": "validation", "test": "test"}
ABOUT = {
    "reliance": "Reliance",
    "availability": "Score with this modality only",
    "informativeness": "What the encoder has learnt",
    "own score": "Score by its own logits",
}


def score_figures(metrics: Plain) -> list[Figure]:
    """Give the changes of the fused score, how it was learnt, and the score of every run."""
    comparison = mapping(metrics.get("comparison"))
    split = judged_split(listed(comparison.get("groups")))
    return [_forest(comparison, split), _learning(metrics), _runs(comparison)]


def _learning(metrics: Plain) -> Figure:
    """Draw the mean over the seeds of each recipe, as far as all its runs went."""
    comparison = mapping(metrics.get("comparison"))
    score, groups = in_words(_metric(comparison)), listed(comparison.get("groups"))
    fused = {
        str(r.get("run")): mapping(mapping(r.get("curves")).get("fused")) for r in _runs_of(metrics)
    }
    lines = []
    for index, group in enumerate(groups):
        curves = [
            {
                int(epoch): float(value)
                for epoch, value in mapping(fused[run].get("val")).get("acc") or ()
            }
            for run in map(str, listed(group.get("runs")))
            if run in fused
        ]
        epochs = sorted(set.intersection(*map(set, curves))) if curves else []
        points = [(float(e), sum(c[e] for c in curves) / len(curves)) for e in epochs]
        lines.append(Line(str(group["label"]), points, index, index))
    shown = lines if len(lines) <= MOST_CURVES else []
    head, rows = curve_rows({line.label: line.points for line in lines}, "epoch")
    return Figure(
        "learning_by_recipe",
        line_chart(
            f"Validation {score} by epoch",
            shown,
            x_label="epoch",
            y_label=score,
            y_range=(0.0, 1.0),
        ),
        "Mean over the seeds of each recipe.",
        head,
        rows,
    )


def _runs_of(metrics: Plain) -> list[Plain]:
    return [run for run in listed(metrics.get("runs")) if isinstance(run, dict)]


def _forest(comparison: Plain, split: str) -> Figure:
    key = _KEYS[split]
    changes = [c for c in listed(comparison.get("changes")) if f"{key}_difference" in c]
    drawn = [
        Change(c["group"], c[f"{key}_difference"], low, high, c[f"{key}_wording"])
        for c in changes
        for low, high in (span(c, key),)
    ]
    score = in_words(_metric(comparison))
    has_floor = any(f"{key}_noise_floor" in c for c in changes)
    return Figure(
        "changes",
        forest_plot(f"Change of {_SPLITS[split]} {score}", drawn),
        f"Against {comparison.get('baseline')}: difference of mean {_SPLITS[split]} {score}, with "
        + ("the noise floor around it." if has_floor else "its paired 95 % interval."),
        ("recipe", "difference", "from", "to", "in words"),
        tuple(_cells(change) for change in drawn),
    )


def _cells(change: Change) -> tuple[str, ...]:
    numbers = (f"{value:+.4f}" for value in (change.value, change.low, change.high))
    return (change.label, *numbers, change.wording)


def span(change: Plain, key: str) -> tuple[float, float]:
    """Give the interval of a difference, or the noise floor to both of its sides."""
    value = float(change[f"{key}_difference"])
    interval = change.get(f"{key}_difference_ci95")
    if interval:
        return float(interval[0]), float(interval[1])
    floor = float(change.get(f"{key}_noise_floor") or 0.0)
    return value - floor, value + floor


def _metric(comparison: Plain) -> str:
    return str(comparison["runs"][0].get("metric") or "accuracy")


def _runs(comparison: Plain) -> Figure:
    score = in_words(_metric(comparison))
    known = [row for row in listed(comparison.get("runs")) if row.get("acc") is not None]
    found = [(row["run"], _interval(row)) for row in known]
    return Figure(
        "runs",
        bars(
            f"Final validation {score} by run",
            [Bar(n, i.value, i.low, i.high, 0) for n, i in found] if len(found) <= MANY else [],
        ),
        f"Final validation {score}; the interval is of the samples, not of seeds.",
        ("run", f"validation {score}", "from", "to"),
        tuple((name, *(f"{v:.3f}" for v in (i.value, i.low, i.high))) for name, i in found),
    )


def _interval(row: Plain) -> Interval:
    n, error = int(row.get("n") or 0), row.get("error")
    return wilson(row["acc"], n) if error is None else estimated(row["acc"], error, n)


def modality_figures(comparison: Plain) -> list[Figure]:
    """Give what changed about each modality, a forest plot for each of the questions."""
    return [_question(comparison, question, title) for question, title in ABOUT.items()]


def _question(comparison: Plain, question: str, title: str) -> Figure:
    found = [
        _change(f"{c['group']}: {name}", one)
        for c in listed(comparison.get("changes"))
        for name, row in mapping(c.get("modalities")).items()
        if (one := mapping(mapping(row).get(question)))
    ]
    drawn = found
    if len(found) > MANY:
        drawn = [change for change in found if change.wording != NO_CHANGE]
    better, worse = ("more", "less") if question == "reliance" else ("better", "worse")
    caption = f"{title}, against {comparison.get('baseline')}, with 95 % intervals."
    if question == "reliance":
        caption += " Neither more nor less is better by itself."
    if len(drawn) < len(found):
        caption += f" {len(found) - len(drawn)} without a detected change are in the table only."
    return Figure(
        f"changes_{question.replace(' ', '_')}",
        forest_plot(f"{title}: change by modality", drawn, better=better, worse=worse),
        caption,
        ("recipe and modality", "difference", "from", "to", "in words"),
        tuple(_cells(change) for change in found),
    )


def _change(label: str, found: Plain) -> Change:
    low, high = found["ci95"]
    return Change(label, found["difference"], low, high, found["wording"])


def comparison_html(metrics: Plain) -> str:
    """Give every section of a comparison."""
    comparison = mapping(metrics.get("comparison"))
    if not comparison:
        return ""
    head, *rows = group_table(comparison)
    notes = "".join(f'<p class="note">{safe(note)}</p>' for note in column_notes(comparison))
    return (
        section("Comparison", table(head, rows), notes, figures_html(score_figures(metrics)))
        + section("Verdicts before and after", _verdicts(comparison))
        + section("What changed about each modality", figures_html(modality_figures(comparison)))
        + section("What differs in the recipe", _differing(comparison))
        + section("Each run", _each_run(comparison))
    )


def _verdicts(comparison: Plain) -> str:
    rows = []
    for group in listed(comparison.get("groups")):
        found = mapping(group.get("verdicts"))
        if found:
            told = ", ".join(f"{code} ({count})" for code, count in found.items())
            rows.append((str(group["label"]), str(group["num_seeds"]), told))
    if not rows:
        return ""
    changes = [c for c in listed(comparison.get("changes")) if c.get("verdict_change")]
    said = "".join(
        f"<p>{safe(c['group'])}: {safe(c['verdict_change'])}</p>"
        for c in (changes if len(changes) <= MANY else [])
    )
    return said + table(("recipe", "seeds", "verdicts (runs)"), rows)


def _differing(comparison: Plain) -> str:
    differing = mapping(comparison.get("differing"))
    if not differing:
        return "<p>Nothing.</p>"
    names = [str(row["run"]) for row in listed(comparison.get("runs"))]
    rows = [(key, *map(cell, values)) for key, values in differing.items()]
    return table(("key", *names), rows)


def _each_run(comparison: Plain) -> str:
    metric = _metric(comparison)
    shown = "acc" if metric == "accuracy" else in_words(metric)
    head = ("run", "method", "seed", "verdict", f"val {shown}", f"test {shown}", "step p50 ms")
    keys = ("run", "method", "seed", "verdict", "acc", "test_acc", "step_p50_ms")
    rows = [[cell(row.get(key)) for key in keys] for row in listed(comparison.get("runs"))]
    return table(head, rows)


def cell(value: Any) -> str:
    """Give a cell of a comparison."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
