"""The groups of a comparison as one table of texts, which every rendering draws its own way."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmtool.diagnose.metrics.names import in_words

Plain = Mapping[str, Any]


def group_table(comparison: Plain) -> list[list[str]]:
    """Give the head and a row for each group, the baseline first, then in the order given."""
    groups = comparison["groups"]
    metric = comparison["runs"][0].get("metric") or "accuracy"
    score = "acc" if metric == "accuracy" else in_words(metric)
    split = judged_split(groups)
    changes = {change["group"]: change for change in comparison["changes"]}
    modalities = sorted({m for group in groups for m in group["modalities"]})
    head = ["recipe", "seeds", f"test {score}", f"val {score}", f"{split} change", "", *modalities]
    table = [[*head, "logits by", "step", "time"]]
    ordered = sorted(groups, key=lambda group: group["label"] != comparison["baseline"])
    for group in ordered:
        change = changes.get(group["label"])
        alone = [group["modalities"].get(m, {}).get(split) for m in modalities]
        table.append(
            [
                group["label"],
                str(group["num_seeds"]),
                _spread(group["test_mean"], group["test_deviation"]),
                _spread(group["acc_mean"], group["acc_deviation"]),
                *_changed(change, split),
                *(_cell(value) for value in alone),
                group["unimodal"] or "-",
                _step(group, change),
                _time(group, change),
            ]
        )
    return table


def judged_split(groups: Sequence[Plain]) -> str:
    """Give test where every group has a score on it, else val."""
    return "test" if all(group["test_mean"] is not None for group in groups) else "val"


def column_notes(comparison: Plain) -> list[str]:
    """Say what the columns of the table hold."""
    split = judged_split(comparison["groups"])
    bootstrap = comparison["bootstrap"]
    notes = [
        "Scores are mean ± sample deviation over seeds, those of one modality are on "
        f"{split} by the way that 'logits by' names.",
        "step is the median time of a step, time the median of whole runs, both beside "
        f"{comparison['baseline']}.",
    ]
    key = "test" if split == "test" else "acc"
    if any(f"{key}_difference_ci95" in change for change in comparison["changes"]):
        notes.append(
            f"change: against {comparison['baseline']}, with the 95 % interval of a paired "
            f"bootstrap over {bootstrap['clusters'][split]} groups of samples, a group being "
            "what the dataset keeps together or else a single sample, and over seeds "
            f"({bootstrap['resamples']} resamples, seed {bootstrap['seed']})."
        )
    return notes


def _spread(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _changed(change: Plain | None, split: str) -> list[str]:
    key = "test" if split == "test" else "acc"
    if change is None or f"{key}_difference" not in change:
        return ["-", ""]
    value, interval = change[f"{key}_difference"], change.get(f"{key}_difference_ci95")
    if interval is None:
        shown = f"{value:+.3f} (floor {change[f'{key}_noise_floor']:.3f})"
    else:
        shown = f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    return [shown, change[f"{key}_wording"]]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _step(group: Plain, change: Plain | None) -> str:
    relative = (change or {}).get("step_time_relative")
    if relative is not None:
        return f"{relative:+.0%}"
    return "-" if group["step_p50_ms"] is None else f"{group['step_p50_ms']:.1f} ms"


def _time(group: Plain, change: Plain | None) -> str:
    relative = (change or {}).get("training_time_relative")
    if relative is not None:
        return f"{relative:+.0%}"
    return "-" if group["seconds"] is None else f"{group['seconds']:.0f} s"
