"""Several runs side by side: what differs in the recipe, and whether the result differs too.

Runs that differ only in the seed form a group. A difference is called improved or regressed only
if it exceeds the noise floor: from the spread over seeds where both groups have at least two,
otherwise from the validation counts and a typical seed spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from mmtool.diagnose.finding import Finding, Report
from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.intervals import Z95
from mmtool.diagnose.metrics.names import in_words
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.errors import RequestError

T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Two-sided 95 % points of Student's t for 1 to 10 degrees of freedom."""
NOT_COMPARED = ("launch", "log")
"""Sections that do not change what is learnt."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one recipe that differ in the seed only."""

    label: str
    members: tuple[int, ...]
    accs: tuple[float, ...]
    step_ms: tuple[float, ...]
    n: int
    error: float | None = None
    """Standard error over samples of a score that is no rate."""
    metric: str = "accuracy"

    @property
    def acc(self) -> float | None:
        """Mean final validation score over the seeds."""
        return sum(self.accs) / len(self.accs) if self.accs else None


def compare(runs: Sequence[Run], reports: Sequence[Report]) -> Report:
    """Give one report that sets comparable runs side by side; the first group is the baseline."""
    _check_comparable(runs)
    values = [_flat(run) for run in runs]
    differing = _differing(values)
    groups = _groups(runs, reports, values, differing)
    changes = [_change(groups[0], group) for group in groups[1:]]
    seeds = min(len(group.members) for group in groups)
    return Report(
        run=" vs ".join(run.name for run in runs),
        verdict=_verdict(groups, changes),
        findings=tuple(_finding(change) for change in changes),
        metrics={
            "comparison": {
                "differing": {key: [v.get(key) for v in values] for key in differing},
                "runs": [_row(run, report) for run, report in zip(runs, reports, strict=True)],
                "groups": [_group_row(group, runs) for group in groups],
                "changes": changes,
            },
            "runs": [{"run": r.run, "verdict": r.verdict, **r.metrics} for r in reports],
        },
        limits=(
            ()
            if seeds >= 3
            else ("Fewer than three seeds per recipe: the spread between seeds is hardly known.",)
        )
        + reports[0].limits[:1],
        meta={"paths": [str(run.path) for run in runs], "thresholds": limits.as_dict()},
    )


def _check_comparable(runs: Sequence[Run]) -> None:
    keys = {str(run.dataset_key) for run in runs}
    if len(keys) > 1:
        listed = ", ".join(f"{run.name}: {run.tables.head.get('dataset')}" for run in runs)
        raise RequestError(
            "these runs cannot be compared: they were trained on different datasets",
            where=listed,
            why="accuracies on different validation samples do not compare",
            fix=f"mmtool diagnose {runs[0].path}",
        )
    if len({run.metric for run in runs}) > 1:
        raise RequestError(
            "these runs cannot be compared: they were trained on different tasks",
            where=", ".join(f"{run.name}: {run.task}" for run in runs),
            why=f"{' and '.join(sorted({in_words(run.metric) for run in runs}))} do not compare",
            fix=f"mmtool diagnose {runs[0].path}",
        )


def _flat(run: Run) -> dict[str, Any]:
    """Recipe values by dotted key; without a resolved recipe, what the log's head says."""
    if not run.recipe:
        head = run.tables.head
        return {k: head.get(k) for k in ("method", "batch_size", "epochs", "modalities")}
    flat: dict[str, Any] = {}

    def walk(value: object, key: str) -> None:
        if isinstance(value, Mapping):
            for name, entry in value.items():
                walk(entry, f"{key}.{name}" if key else str(name))
        else:
            flat[key] = value

    walk({k: v for k, v in run.recipe.items() if k not in NOT_COMPARED}, "")
    return flat


def _differing(values: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for value in values for key in value})
    return [key for key in keys if any(v.get(key) != values[0].get(key) for v in values)]


def _groups(
    runs: Sequence[Run],
    reports: Sequence[Report],
    values: Sequence[Mapping[str, Any]],
    differing: Sequence[str],
) -> list[Group]:
    without_seed = [key for key in differing if key != "train.seed"]
    members: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        label = ", ".join(f"{key}={_short(value.get(key))}" for key in without_seed)
        members.setdefault(label or "same recipe", []).append(index)
    if len(members) == 1 and "train.seed" not in differing:
        members = {run.name: [index] for index, run in enumerate(runs)}
    return [_group(label, some, reports) for label, some in members.items()]


def _short(value: object) -> str:
    return "unset" if value is None else str(value)


def _group(label: str, members: Sequence[int], reports: Sequence[Report]) -> Group:
    rows = [_measured(reports[index]) for index in members]
    return Group(
        label=label,
        members=tuple(members),
        accs=tuple(r["acc"] for r in rows if r["acc"] is not None),
        step_ms=tuple(r["step_p50_ms"] for r in rows if r["step_p50_ms"] is not None),
        n=min((int(r["n"] or 0) for r in rows), default=0),
        error=max((r["error"] for r in rows if r["error"] is not None), default=None),
        metric=str(rows[0]["metric"]) if rows else "accuracy",
    )


def _measured(report: Report) -> dict[str, Any]:
    balance = report.metrics.get("balance") or {}
    fused = report.metrics["curves"]["fused"]
    last_val = (fused.get("val", {}).get("acc") or [(None, None)])[-1]
    step = (report.metrics.get("steps") or {}).get("step") or {}
    metric, interval = report.meta.get("metric") or "accuracy", balance.get("fused")
    is_rate = metric != "r2" or not interval
    return {
        "metric": metric,
        "error": None if is_rate else (interval["high"] - interval["low"]) / (2 * Z95),
        "acc": last_val[1],
        "epoch": last_val[0],
        "n": balance.get("n") or report.meta.get("num_val"),
        "test_acc": (fused.get("test", {}).get("acc") or [(None, None)])[-1][1],
        "step_p50_ms": step.get("p50_ms"),
        "samples_per_s": (report.metrics.get("steps") or {}).get("samples_per_s"),
    }


def _row(run: Run, report: Report) -> dict[str, Any]:
    modalities = (report.metrics.get("balance") or {}).get("modalities") or []

    def value(m: Mapping[str, Any], key: str) -> Any:
        return (m.get(key) or {}).get("value")

    return {
        "run": run.name,
        "method": run.method,
        "seed": run.option("train", "seed"),
        "finished": run.finished,
        **_measured(report),
        "modalities": {
            m["modality"]: {key: value(m, key) for key in ("share", "alone", "probe", "unimodal")}
            for m in modalities
        },
    }


def _group_row(group: Group, runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "label": group.label,
        "runs": [runs[index].name for index in group.members],
        "num_seeds": len(group.members),
        "acc_mean": group.acc,
        "acc_deviation": sqrt(_variance(group.accs)) if len(group.accs) > 1 else None,
    }


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def noise_floor(base: Group, other: Group) -> float:
    """Give the difference of scores that chance alone would exceed once in twenty times."""
    if len(base.accs) > 1 and len(other.accs) > 1:
        freedom = len(base.accs) + len(other.accs) - 2
        pooled = (
            _variance(base.accs) * (len(base.accs) - 1)
            + _variance(other.accs) * (len(other.accs) - 1)
        ) / freedom
        point = T95[freedom - 1] if freedom <= len(T95) else Z95
        return float(point * sqrt(pooled * (1 / len(base.accs) + 1 / len(other.accs))))
    floor = 0.0
    for group in (base, other):
        acc = group.acc or 0.0
        of_rate = max(acc * (1 - acc), 0.0) / max(group.n, 1)
        floor += (of_rate if group.error is None else group.error**2) / len(group.members)
        floor += limits.SEED_SPREAD**2 / len(group.members)
    return Z95 * sqrt(floor)


def _wording(difference: float, floor: float) -> str:
    if abs(difference) <= floor:
        return "no change detected"
    return "improved" if difference > 0 else "regressed"


def _change(base: Group, other: Group) -> dict[str, Any]:
    change: dict[str, Any] = {
        "baseline": base.label,
        "group": other.label,
        "n": other.n,
        "metric": other.metric,
    }
    if base.acc is not None and other.acc is not None:
        floor = noise_floor(base, other)
        difference = other.acc - base.acc
        change |= {
            "acc_difference": difference,
            "acc_noise_floor": floor,
            "acc_wording": _wording(difference, floor),
            "num_seeds": [len(base.members), len(other.members)],
        }
    if base.step_ms and other.step_ms:
        before = sum(base.step_ms) / len(base.step_ms)
        relative = sum(other.step_ms) / len(other.step_ms) / before - 1
        change |= {
            "step_time_relative": relative,
            "step_time_noise_floor": limits.TIME_NOISE,
            "step_time_wording": _wording(-relative, limits.TIME_NOISE),
        }
    return change


def _sentence(change: Mapping[str, Any]) -> str:
    parts = []
    if "acc_wording" in change:
        parts.append(
            f"validation {in_words(change['metric'])} {change['acc_wording']} "
            f"({change['acc_difference']:+.3f}, noise floor {change['acc_noise_floor']:.3f})"
        )
    if "step_time_wording" in change:
        parts.append(
            f"step time {change['step_time_wording']} ({change['step_time_relative']:+.0%})"
        )
    return f"{change['group']}: {', '.join(parts) or 'nothing in common to compare'}"


def _finding(change: Mapping[str, Any]) -> Finding:
    worse = change.get("acc_wording") == "regressed"
    return Finding(
        rule="comparison",
        severity="warn" if worse else "info",
        what=_sentence(change),
        evidence=change,
        advice="" if min(change.get("num_seeds") or [3]) >= 3 else "train with --seeds 0,1,2",
    )


def _verdict(groups: Sequence[Group], changes: Sequence[Mapping[str, Any]]) -> str:
    if not changes:
        only = groups[0]
        spread = sqrt(_variance(only.accs)) if len(only.accs) > 1 else 0.0
        mean = "unknown" if only.acc is None else f"{only.acc:.3f}"
        score = f"{in_words(only.metric)} {mean}, deviation {spread:.3f}"
        return f"One recipe, {len(only.members)} seeds: {score}."
    listed = "; ".join(_sentence(change) for change in changes)
    return f"Against {groups[0].label}: {listed}."
