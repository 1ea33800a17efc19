"""Charts about modalities: how they learnt, and the three answers beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtool.diagnose.metrics.names import constant_answer, in_words
from mmtool.diagnose.report.bar_charts import Bar, bars
from mmtool.diagnose.report.curve_chart import Line, line_chart
from mmtool.diagnose.report.dot_charts import Mark, dot_plot
from mmtool.diagnose.report.figure import Figure, curve_rows, interval
from mmtool.diagnose.report.views import Plain, answer_rows, mapping
from mmtool.diagnose.rules import _thresholds as limits


def score_name(metrics: Plain) -> str:
    """Give what the scores of a run are."""
    return str(mapping(metrics.get("balance")).get("metric") or "accuracy")


def learning_figures(metrics: Plain) -> list[Figure]:
    """Give the curves of scores, losses and reliance by epoch."""
    curves = mapping(metrics.get("curves"))
    modalities = mapping(curves.get("modalities"))
    return [
        _scores(metrics, mapping(curves.get("fused")), modalities),
        _losses(metrics, mapping(curves.get("fused")), modalities),
        _reliance(metrics, modalities),
    ]


def _scores(metrics: Plain, fused: Plain, modalities: Plain) -> Figure:
    metric = score_name(metrics)
    chance = mapping(metrics.get("balance")).get("chance")
    lines = [
        Line(f"fused {split}", mapping(fused.get(split)).get("acc") or (), 0, dash)
        for dash, split in enumerate(("val", "train"))
    ]
    for index, (name, by_split) in enumerate(modalities.items(), start=1):
        val = mapping(mapping(by_split).get("val"))
        kind = "probe" if val.get("probe") else "unimodal"
        points = val.get("probe") or val.get("acc") or ()
        lines.append(Line(f"{name} {kind}", points, index, index + 1))
    words = in_words(metric)
    drawing = line_chart(
        f"{words[:1].upper()}{words[1:]} by epoch",
        lines,
        x_label="epoch",
        y_label=words,
        y_range=(0.0, 1.0),
        reference=None if chance is None else (constant_answer(metric), float(chance)),
    )
    caption = f"Fused {words}, and what each encoder has learnt on its own (validation)."
    caption += " Values below 0 are drawn at 0." if metric == "r2" else ""
    head, rows = curve_rows({line.label: line.points for line in lines}, "epoch")
    return Figure("learning", drawing, caption, head, rows)


def _losses(metrics: Plain, fused: Plain, modalities: Plain) -> Figure:
    lines = []
    for index, (name, by_split) in enumerate(modalities.items(), start=1):
        for dash, split in enumerate(("val", "train")):
            points = mapping(mapping(by_split).get(split)).get("nll") or ()
            lines.append(Line(f"{name} {split}", points, index, dash))
    if not any(line.points for line in lines):
        lines = [
            Line(f"fused {split}", mapping(fused.get(split)).get("loss") or (), 0, dash)
            for dash, split in enumerate(("val", "train"))
        ]
        title, caption = "Loss by epoch", "Loss of the fused model."
    else:
        title = "Unimodal loss by epoch"
        caption = "Loss of each modality's own logits; a rising validation curve is overfitting."
    unit = "squared error" if score_name(metrics) == "r2" else "NLL, nats"
    drawing = line_chart(title, lines, x_label="epoch", y_label=unit)
    head, rows = curve_rows({line.label: line.points for line in lines}, "epoch")
    return Figure("loss", drawing, caption, head, rows)


def _reliance(metrics: Plain, modalities: Plain) -> Figure:
    moves = "shifts" if score_name(metrics) == "r2" else "flips"
    lines = [
        Line(str(name), mapping(mapping(by_split).get("val")).get("share") or (), index, index - 1)
        for index, (name, by_split) in enumerate(modalities.items(), start=1)
    ]
    drawing = line_chart(
        "Reliance by epoch",
        lines,
        x_label="epoch",
        y_label=f"share of {moves}",
        y_range=(0.0, 1.0),
        height=220,
    )
    caption = (
        "Share of the predictions that change when this modality is permuted."
        if moves == "flips"
        else "Share of the distance that predictions move when modalities are permuted."
    )
    head, rows = curve_rows({line.label: line.points for line in lines}, "epoch")
    return Figure("reliance", drawing, caption, head, rows)


def mark(value: Mapping[str, Any]) -> Mark:
    """Give an estimate as a mark of a chart."""
    return Mark(float(value["value"]), value.get("low"), value.get("high"))


def answer_figures(metrics: Plain) -> list[Figure]:
    """Give the three answers of every modality in one chart, and reliance against its bound."""
    balance, metric = mapping(metrics.get("balance")), score_name(metrics)
    answers = answer_rows(metrics)
    chance = balance.get("chance")
    moves = "shifts" if metric == "r2" else "flips"
    scores = "R^2, drawn at 0 where it is below" if metric == "r2" else "scores"
    dots = Figure(
        "answers",
        dot_plot(
            "Reliance, availability and informativeness by modality",
            {name: {key: mark(v) for key, v in row.items()} for name, row in answers.items()},
            reference=None if chance is None else (constant_answer(metric), float(chance)),
        ),
        f"Reliance is a share of {moves} or of Shapley values; the others are {scores}, beside "
        f"{constant_answer(metric)}. An informative modality with little reliance is held back. "
        "Whiskers are 95 % intervals.",
        ("modality", "question", "value and 95 % interval", "n", "obtained by"),
        tuple(
            (name, key, interval(v), str(v.get("n") or "-"), str(v.get("source") or "-"))
            for name, row in answers.items()
            for key, v in row.items()
        ),
    )
    shares = [(name, row["reliance"]) for name, row in answers.items() if "reliance" in row]
    bound = limits.dominant_share(max(len(answers), 2))
    drawn = [
        Bar(name, float(v["value"]), v.get("low"), v.get("high"), index)
        for index, (name, v) in enumerate(shares, start=1)
    ]
    reliance = Figure(
        "reliance_share",
        bars("Reliance share", drawn, threshold=(f"dominant {bound:.2f}", bound)),
        "Reliance share with its 95 % interval" + _at(balance) + ".",
        ("modality", "reliance share"),
        tuple((name, interval(v)) for name, v in shares),
    )
    return [dots, reliance]


def _at(balance: Plain) -> str:
    if balance.get("epoch") is None:
        return ""
    return f" at epoch {balance['epoch']}, {balance.get('n')} validation samples"
