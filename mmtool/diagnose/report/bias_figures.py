"""Charts about who decides: by class and group, on disagreement, and when one goes missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmtool.diagnose.report.balance_figures import mark
from mmtool.diagnose.report.bar_charts import Bar, bars
from mmtool.diagnose.report.dot_charts import dot_plot
from mmtool.diagnose.report.figure import Figure, interval, number, table
from mmtool.diagnose.report.heat_map import MOST_ROWS, heat_map
from mmtool.diagnose.report.views import Plain, estimate, listed, mapping

MOST_TABLE_ROWS = 200
HOW = ("missing", "noise", "blank", "swapped")


def class_figures(metrics: Plain) -> list[Figure]:
    """Give who owns each class, and each group of samples."""
    bias = mapping(metrics.get("bias"))
    return [
        _owners(listed(bias.get("per_class")), "class"),
        _owners(listed(bias.get("per_group")), "group"),
    ]


def _owners(rows: Sequence[Any], kind: str) -> Figure:
    """Draw the least even classes or groups, and give many more of them in the table."""
    rows = [row for row in rows if isinstance(row, dict) and mapping(row.get("share"))]
    columns = list(dict.fromkeys(str(m) for row in rows for m in row["share"]))
    shares = [{m: _value(row["share"].get(m)) for m in columns} for row in rows]
    uneven = sorted(range(len(rows)), key=lambda i: -_spread(shares[i]))
    in_chart, in_table = sorted(uneven[:MOST_ROWS]), sorted(uneven[:MOST_TABLE_ROWS])
    caption = f"Share of the decision by {kind}; a frame marks the modality that owns the {kind}."
    plural = "classes" if kind == "class" else "groups"
    if len(rows) > MOST_ROWS:
        caption += f" Drawn are the {MOST_ROWS} least even of {len(rows)} {plural}."
    if len(rows) > MOST_TABLE_ROWS:
        caption += f" The table has {MOST_TABLE_ROWS}, the report as JSON all of them."
    return Figure(
        f"by_{kind}",
        heat_map(
            f"Reliance by {kind}",
            [(str(rows[i].get(kind)), shares[i]) for i in in_chart],
            columns,
            owned={str(row.get(kind)): row.get("owned_by") for row in rows},
        ),
        caption,
        (kind, "n", *columns, "owned by"),
        tuple(_row(rows[i], kind, columns) for i in in_table),
    )


def _row(row: Plain, kind: str, columns: Sequence[str]) -> tuple[str, ...]:
    shares = (interval(estimate(row["share"].get(m)), 2) for m in columns)
    return (str(row.get(kind)), number(row.get("n")), *shares, str(row.get("owned_by") or "-"))


def _value(found: Any) -> float | None:
    known = estimate(found)
    return None if known is None else float(known["value"])


def _spread(shares: dict[str, float | None]) -> float:
    known = [share for share in shares.values() if share is not None]
    return max(known) - min(known) if known else 0.0


def bias_figures(metrics: Plain) -> list[Figure]:
    """Give who wins when modalities disagree, and what is left when one is missing or spoilt."""
    bias = mapping(metrics.get("bias"))
    return [
        _conflicts(mapping(bias.get("conflicts"))),
        _robustness(mapping(bias.get("robustness"))),
        _shapley(mapping(mapping(metrics.get("shapley")).get("val")), "val"),
        _shapley(mapping(mapping(metrics.get("shapley")).get("train")), "train"),
    ]


def _conflicts(conflicts: Plain) -> Figure:
    known = {str(m): e for m, v in mapping(conflicts.get("share")).items() if (e := estimate(v))}
    drawn = [
        Bar(name, float(e["value"]), e.get("low"), e.get("high"), index)
        for index, (name, e) in enumerate(known.items(), start=1)
    ]
    return Figure(
        "conflicts",
        bars("Whom the fused answer follows when modalities disagree", drawn),
        f"Of {conflicts.get('n', 'unknown')} samples on which the modalities' own readouts "
        "disagree: how often the fused answer is that of each.",
        ("modality", "share of conflicts"),
        tuple((name, interval(e)) for name, e in known.items()),
    )


def _robustness(robustness: Plain) -> Figure:
    rows: dict[str, dict[str, Any]] = {}
    for name, found in robustness.items():
        kinds = mapping(found)
        order = [*(how for how in HOW if how in kinds), *(k for k in kinds if k not in HOW)]
        rows[str(name)] = {str(k): e for k in order if (e := estimate(kinds[k]))}
    return Figure(
        "robustness",
        dot_plot(
            "Score when one modality is missing or spoilt",
            {name: {key: mark(e) for key, e in row.items()} for name, row in rows.items()},
        ),
        "Score of the fused answer when this modality is missing, noise, blank, or another "
        "sample's.",
        ("modality", "what was done to it", "score", "lost"),
        tuple(
            (name, key, interval(e), number(_lost(e)))
            for name, row in rows.items()
            for key, e in row.items()
        ),
    )


def _lost(found: Plain) -> Any:
    drop = estimate(found.get("drop"))
    return None if drop is None else float(drop["value"])


def _shapley(values: Plain, split: str) -> Figure:
    rows = {str(m): e for m, v in values.items() if (e := estimate(mapping(v).get("acc")))}
    drawn = [
        Bar(name, float(e["value"]), e.get("low"), e.get("high"), index)
        for index, (name, e) in enumerate(rows.items(), start=1)
    ]
    name = "validation" if split == "val" else "training"
    return Figure(
        f"shapley_{split}",
        bars(f"Shapley values on {name} samples", drawn),
        f"What each modality adds to the score, over all orders in which they could come ({name} "
        "samples). Values below 0 are drawn at 0.",
        ("modality", "score", "log score"),
        tuple(
            (m, *(interval(estimate(mapping(v).get(key))) for key in ("acc", "gain")))
            for m, v in values.items()
        ),
    )


def bias_tables(metrics: Plain) -> str:
    """Give calibration and the part that interactions play, which need no chart."""
    parts = ""
    calibration = mapping(metrics.get("calibration"))
    keys = ("ece", "nll", "brier", "n")
    rows = [
        (str(name), *(number(_plain(found.get(key))) for key in keys))
        for name, found in calibration.items()
        if isinstance(found, dict)
    ]
    if rows:
        parts += "<h3>Calibration</h3>" + table(("of", "ECE", "NLL", "Brier", "n"), rows)
    emap = estimate(metrics.get("emap"))
    if emap:
        parts += (
            f'<p class="note">Score that needs interactions between modalities (EMAP): '
            f"{interval(emap)}, {number(emap.get('n'))} samples.</p>"
        )
    return parts


def _plain(value: Any) -> Any:
    known = estimate(value)
    return value if known is None else float(known["value"])
