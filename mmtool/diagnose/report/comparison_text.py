"""A comparison as text: groups, what differs in the recipe, what changed, single runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mmtool.diagnose.metrics.names import in_words
from mmtool.diagnose.report.groups import column_notes, group_table
from mmtool.diagnose.report.text_style import TextStyle, aligned, fitted
from mmtool.diagnose.report.views import Plain, listed, mapping

FEW = 6
"""Changes of more recipes than this are counted rather than told one by one."""
MOST_RUNS = 12
"""More runs than this are shown as groups only."""


def comparison_lines(comparison: Plain, style: TextStyle) -> list[str]:
    """Give every part of a comparison, with blank lines between them."""
    if not comparison:
        return []
    lines = [*_grouped(comparison, style), "", *_differing(comparison, style)]
    lines += _modalities(comparison, style)
    if len(comparison["runs"]) <= MOST_RUNS:
        lines += ["", *_each_run(comparison, style)]
    return lines


def _grouped(comparison: Plain, style: TextStyle) -> list[str]:
    table = [[style.clean(cell) for cell in row] for row in group_table(comparison)]
    kept = {"recipe", "seeds", table[0][4], table[0][5]}
    least_needed = ["logits by", "time", "step", *reversed(table[0][6:-3]), table[0][3]]
    table = fitted(table, style.width, [name for name in least_needed if name not in kept])
    lines = aligned(table)
    notes = [line for note in column_notes(comparison) for line in style.wrap(note)]
    return [style.paint(lines[0], "dim"), *lines[1:], *(style.paint(n, "dim") for n in notes)]


def _differing(comparison: Plain, style: TextStyle) -> list[str]:
    differing = comparison["differing"]
    if len(comparison["runs"]) > MOST_RUNS:
        others = [key for key in differing if not key.startswith("method.")]
        return style.wrap(f"differs: the method and its options, {', '.join(others)}")
    told = [f"{key} = {' | '.join(str(v) for v in values)}" for key, values in differing.items()]
    return style.wrap(f"differs: {'; '.join(told) or 'nothing in the recipe'}")


def _modalities(comparison: Plain, style: TextStyle) -> list[str]:
    """Say which modality changed, and how the verdicts did; what did not change is not told."""
    changes = listed(comparison.get("changes"))
    if len(changes) > FEW:
        return _counted(changes, style)
    lines: list[str] = []
    for change in changes:
        told = [
            f"{name} {question} {found['wording']} ({found['difference']:+.3f}, 95 % interval "
            f"{found['ci95'][0]:+.3f} to {found['ci95'][1]:+.3f})"
            for name, row in mapping(change.get("modalities")).items()
            for question, found in row.items()
            if found["wording"] != "no change detected"
        ]
        if change.get("verdict_change"):
            told.append(str(change["verdict_change"]))
        if told:
            lines += style.wrap(f"{change['group']}: {'; '.join(told)}")
    return ["", *lines] if lines else []


def _counted(changes: Sequence[Plain], style: TextStyle) -> list[str]:
    """Count in how many recipes a modality changed, a row for each question about it."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for change in changes:
        for name, row in mapping(change.get("modalities")).items():
            for question, found in row.items():
                counts.setdefault((str(name), question), Counter())[found["wording"]] += 1
    if not counts:
        return []
    table = [["modality", "question", "more or better", "less or worse", "no change detected"]]
    for (name, question), found in counts.items():
        up, down = found["rose"] + found["improved"], found["fell"] + found["regressed"]
        told = [str(up), str(down), str(found["no change detected"])]
        table.append([style.clean(name), question, *told])
    lines = aligned(table)
    return ["", style.paint(lines[0], "dim"), *lines[1:]]


def _each_run(comparison: Plain, style: TextStyle) -> list[str]:
    metric = comparison["runs"][0].get("metric") or "accuracy"
    score = "acc" if metric == "accuracy" else in_words(metric)
    table = [["run", "seed", f"val {score}", f"test {score}", "step ms", "verdict", "reliance"]]
    for row in comparison["runs"]:
        shares = ", ".join(
            f"{name} {m['share']:.0%}"
            for name, m in row["modalities"].items()
            if m["share"] is not None
        )
        seed = "-" if row["seed"] is None else str(row["seed"])
        step = "-" if row["step_p50_ms"] is None else f"{row['step_p50_ms']:.1f}"
        scores = [_cell(row["acc"]), _cell(row["test_acc"])]
        told = [*scores, step, str(row.get("verdict") or "-"), shares or "-"]
        table.append([style.clean(row["run"]), seed, *map(style.clean, told)])
    return aligned(fitted(table, style.width, ("step ms", "verdict", "seed")))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
