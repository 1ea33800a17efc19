"""Several runs side by side: what differs in the recipe, and whether the result differs too.

Runs that differ only in the seed form a group. The baseline is the group of the method `none`, or
the first one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mmtool.diagnose.changes import SPLITS, Group, change, main_wording, sentence
from mmtool.diagnose.finding import Finding, Report
from mmtool.diagnose.groups import Members, differing_keys, group_runs, recipe_values
from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.bootstrap import NUM_RESAMPLES, SEED
from mmtool.diagnose.metrics.intervals import Z95
from mmtool.diagnose.metrics.names import in_words
from mmtool.diagnose.modality_changes import modality_changes, verdict_change, verdicts
from mmtool.diagnose.paired import Answers, modality_score, read_answers
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.steady import judgement_of
from mmtool.errors import RequestError
from mmtool.text import plural

if TYPE_CHECKING:
    from mmtool.runlog.suite import SuiteRecord

FEW = 6
"""More changes than this are counted rather than told one by one."""
_NO_ANSWERS = (
    "Some of these runs left no answers of single samples: their changes are judged by a noise "
    "floor from scores alone."
)
_MANY = (
    "{count} comparisons with one baseline: one in twenty leaves out zero by chance, and the best "
    "of them looks better than it is."
)
_CONTENDED = (
    "The times of {count} of {runs} are left out: other work had the processors of the machine "
    "(host-contended)."
)
_FEW_SEEDS = "Fewer than three seeds per recipe: the spread between seeds is hardly known."


def compare(
    runs: Sequence[Run],
    reports: Sequence[Report],
    *,
    suite: SuiteRecord | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Give one report that sets comparable runs side by side."""
    _check_comparable(runs)
    values = [recipe_values(run) for run in runs]
    differing = differing_keys(values)
    rows = [_row(run, report) for run, report in zip(runs, reports, strict=True)]
    answers, unread = _all_answers(runs)
    groups = [_group(some, runs, rows, answers) for some in group_runs(runs, values)]
    base = next((g for g in groups if g.facts["method"] == "none"), groups[0])
    plain = [report.as_dict() for report in reports]
    told = {group.label: verdicts(group, plain) for group in groups}
    split = "test" if all(group.scores["test"] for group in groups) else "val"
    changes = [
        change(base, group, answers)
        | {
            "modalities": modality_changes(base, group, plain, answers[split]),
            "verdict_change": verdict_change(told[base.label], told[group.label]),
        }
        for group in groups
        if group is not base
    ]
    return Report(
        run=" vs ".join(run.name for run in runs) if suite is None else suite.name,
        verdict=_verdict(groups, changes),
        findings=tuple(_finding(found) for found in changes),
        metrics={
            "comparison": {
                "baseline": base.label,
                "differing": {key: [v.get(key) for v in values] for key in differing},
                "runs": rows,
                "groups": [{**group.row(), "verdicts": told[group.label]} for group in groups],
                "changes": changes,
                "bootstrap": {
                    "resamples": NUM_RESAMPLES,
                    "seed": SEED,
                    "clusters": {split: answers[split].num_units for split in SPLITS},
                },
            },
            "runs": [{"run": r.run, "verdict": r.verdict, **r.metrics} for r in reports],
        },
        limits=(*notes, *unread, *_limits(groups, changes, rows), *reports[0].limits[:1]),
        meta={
            "paths": [str(run.path) for run in runs],
            "thresholds": limits.as_dict(),
            "suite": None if suite is None else asdict(suite),
            "environment": dict(runs[0].environment),
        },
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
    protocols = {run.tables.head.get("protocol") for run in runs} - {None}
    if len(protocols) > 1:
        raise RequestError(
            "these runs cannot be compared: they used different splits of the dataset",
            where=", ".join(f"{run.name}: {run.tables.head.get('protocol')}" for run in runs),
            why="accuracies on different test samples do not compare",
            fix=f"mmtool diagnose {runs[0].path}",
        )
    if len({run.metric for run in runs}) > 1:
        raise RequestError(
            "these runs cannot be compared: they were trained on different tasks",
            where=", ".join(f"{run.name}: {run.task}" for run in runs),
            why=f"{' and '.join(sorted({in_words(run.metric) for run in runs}))} do not compare",
            fix=f"mmtool diagnose {runs[0].path}",
        )


def _all_answers(runs: Sequence[Run]) -> tuple[dict[str, Answers], list[str]]:
    answers: dict[str, Answers] = {}
    notes: list[str] = []
    for split in SPLITS:
        answers[split], unread = read_answers(runs, split)
        notes += unread
    return answers, notes


def _group(
    some: Members,
    runs: Sequence[Run],
    rows: Sequence[Mapping[str, Any]],
    answers: Mapping[str, Answers],
) -> Group:
    first = runs[some.at[0]]
    members = [rows[index] for index in some.at]
    logged = {"val": "acc", "test": "test_acc"}
    scores = {
        split: [answers[split].scores.get(i, rows[i][key]) for i in some.at]
        for split, key in logged.items()
    }
    num_test = [int(runs[i].tables.head.get("num_test") or 0) for i in some.at]
    timed = [row for row in members if not row["contended"]]
    return Group(
        label=some.label,
        members=some.at,
        scores={k: tuple(v for v in found if v is not None) for k, found in scores.items()},
        n={"val": min(int(r["n"] or 0) for r in members), "test": min(num_test)},
        step_ms=tuple(r["step_p50_ms"] for r in timed if r["step_p50_ms"] is not None),
        seconds=tuple(r["seconds"] for r in timed if r["seconds"] is not None),
        error=max((r["error"] for r in members if r["error"] is not None), default=None),
        metric=str(members[0]["metric"]),
        facts={
            "method": first.method,
            "fusion": first.fusion,
            "runs": [r["run"] for r in members],
            "seeds": [r["seed"] for r in members],
            "unimodal": first.tables.head.get("unimodal"),
            "modalities": _by_modality(some, runs, answers),
        },
    )


def _by_modality(
    some: Members, runs: Sequence[Run], answers: Mapping[str, Answers]
) -> dict[str, dict[str, float | None]]:
    """Give the mean score of each modality by itself, on each split."""
    found: dict[str, dict[str, float | None]] = {}
    for modality in runs[some.at[0]].modalities:
        found[modality] = {}
        for split in SPLITS:
            kept = [answers[split].found.get(index) for index in some.at]
            scores = [
                _logged(runs[at], split, modality) if one is None else modality_score(one, modality)
                for at, one in zip(some.at, kept, strict=True)
            ]
            known = [score for score in scores if score is not None]
            found[modality][split] = sum(known) / len(known) if known else None
    return found


def _logged(run: Run, split: str, modality: str) -> float | None:
    table = run.tables.epoch_modalities
    kept = table[(table["split"] == split) & (table["modality"] == modality)]["acc"].dropna()
    return float(kept.iloc[-1]) if len(kept) else None


def _measured(report: Report) -> dict[str, Any]:
    balance = report.metrics.get("balance") or {}
    fused = report.metrics["curves"]["fused"]
    last_val = (fused.get("val", {}).get("acc") or [(None, None)])[-1]
    step = (report.metrics.get("steps") or {}).get("step") or {}
    metric, interval = report.meta.get("metric") or "accuracy", balance.get("fused") or {}
    has_error = metric == "r2" and bool(interval)
    return {
        "metric": metric,
        "error": (interval["high"] - interval["low"]) / (2 * Z95) if has_error else None,
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

    # The time of a run that was resumed is that of its last attempt only.
    is_whole = len(run.tables.attempts) == 1
    return {
        "run": run.name,
        "method": run.method,
        "seed": run.option("train", "seed"),
        "finished": run.finished,
        "verdict": judgement_of(report.as_dict()).words,
        **_measured(report),
        "seconds": run.tables.status.get("seconds") if is_whole else None,
        "contended": any(found.rule == "host-contended" for found in report.findings),
        "modalities": {
            m["modality"]: {key: value(m, key) for key in ("share", "alone", "probe", "unimodal")}
            for m in modalities
        },
    }


def _limits(
    groups: Sequence[Group],
    changes: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> list[str]:
    contended = sum(row["contended"] for row in rows)
    said = [_CONTENDED.format(count=contended, runs=plural(len(rows), "run"))] * bool(contended)
    if min(len(group.members) for group in groups) < 3:
        said.append(_FEW_SEEDS)
    if any(key.endswith("acc_noise_floor") for found in changes for key in found):
        said.append(_NO_ANSWERS)
    if len(changes) >= FEW:
        said.append(_MANY.format(count=len(changes)))
    return said


def _finding(found: Mapping[str, Any]) -> Finding:
    return Finding(
        rule="comparison",
        severity="warn" if main_wording(found) == "regressed" else "info",
        what=sentence(found),
        evidence={k: v for k, v in found.items() if k not in ("modalities", "verdict_change")},
        advice="" if min(found["num_seeds"]) >= 3 else "train with --seeds 0,1,2",
    )


def _verdict(groups: Sequence[Group], changes: Sequence[Mapping[str, Any]]) -> str:
    if not changes:
        only = groups[0]
        split = "test" if only.scores["test"] and not only.scores["val"] else "val"
        mean = only.mean(split)
        score = f"{in_words(only.metric)} {'unknown' if mean is None else f'{mean:.3f}'}"
        spread = only.deviation(split) or 0.0
        return f"One recipe, {len(only.members)} seeds: {score}, deviation {spread:.3f}."
    base = changes[0]["baseline"]
    if len(changes) <= FEW:
        return f"Against {base}: {'; '.join(map(sentence, changes))}."
    counts = Counter(main_wording(found) for found in changes)
    parts = [f"{counts[w]} {w}" for w in ("improved", "regressed", "no change detected")]
    return f"Against {base}, of {plural(len(changes), 'other recipe')}: {', '.join(parts)}."
