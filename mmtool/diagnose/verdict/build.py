"""The verdict on a run as plain data, with everything that was computed on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from mmtool.diagnose.finding import Finding, Severity
from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.balance import Balance, Reference
from mmtool.diagnose.metrics.names import constant_answer_key, score_key
from mmtool.diagnose.verdict.advice import Advice, advise
from mmtool.diagnose.verdict.answers import answers_table
from mmtool.diagnose.verdict.bias import bias_table
from mmtool.diagnose.verdict.calibration import calibration_table
from mmtool.diagnose.verdict.case import read_case
from mmtool.diagnose.verdict.estimates import Quantity
from mmtool.diagnose.verdict.evidence import Case
from mmtool.diagnose.verdict.from_deep import DeepEvidence
from mmtool.diagnose.verdict.judge import Answer, Judgement, judge
from mmtool.diagnose.verdict.notes import notes
from mmtool.diagnose.verdict.stake import (
    accuracy_stake,
    is_calm,
    robustness_stakes,
    stake_table,
)

EVIDENCE = ("share", "flip", "drop", "alone", "probe", "headroom", "solo", "gap")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict: the finding that leads the report, and the tables behind it."""

    finding: Finding
    metrics: Mapping[str, Any]
    case: Case


def build_verdict(
    run: Run,
    balance: Balance | None,
    references: Mapping[str, Reference],
    epoch: int | None = None,
) -> Verdict:
    """Decide what is the matter with a run, how sure that is, and what to do."""
    read = read_case(run, balance, references, epoch)
    case, deep = read.case, read.deep
    found = judge(case)
    accuracy, robustness = accuracy_stake(case, deep), robustness_stakes(case)
    advice = advise(run, found, robustness)
    calm = is_calm(accuracy, robustness)
    told = notes(case, found, accuracy, is_calm=calm)
    metrics: dict[str, Any] = {
        "verdict": {
            **_verdict_table(case, found),
            "stake": stake_table(accuracy, robustness),
            "notes": told,
            "advice": [one.as_dict() for one in advice],
        },
        "answers": answers_table(case),
        "bias": bias_table(case, deep),
    }
    if deep is not None:
        metrics |= _deep_tables(case, deep)
    return Verdict(_finding(case, found, advice, is_calm=calm), metrics, case)


def _verdict_table(case: Case, found: Judgement) -> dict[str, Any]:
    runner = found.runner_up
    total = max(sum(found.tally.values()), 1)
    return {
        "code": found.code,
        "modalities": list(found.modalities),
        "sentence": found.sentence,
        "confidence": found.confidence,
        "runner_up": None
        if runner is None
        else {"code": runner[0][0], "modalities": list(runner[0][1]), "confidence": runner[1]},
        "tally": {_key(answer): num / total for answer, num in found.tally.most_common()},
        "since_epoch": case.since_epoch,
        "basis": case.basis,
        "clusters": {"kind": case.clusters[0], "n": case.clusters[1]},
        "n": case.n,
    }


def _key(answer: Answer) -> str:
    return ":".join((answer[0], ",".join(answer[1]))) if answer[1] else answer[0]


def _deep_tables(case: Case, deep: DeepEvidence) -> dict[str, Any]:
    synergy = case.quantity("synergy")
    tables: dict[str, Any] = {
        "shapley": {
            split: {
                m: {"acc": q.as_dict(), "gain": g and g.as_dict()}
                for m in case.modalities
                if (q := case.quantity(name, m))
                for g in (case.quantity(f"{name}_gain", m),)
            }
            for split, name in (("val", "phi"), ("train", "train_phi"))
        },
        "emap": None if synergy is None else _emap(synergy),
        "calibration": calibration_table(deep),
    }
    return tables


def _emap(synergy: Quantity) -> dict[str, Any]:
    table = dict(synergy.as_dict())
    table["how"] = table.pop("source", "")
    return table


def _finding(case: Case, found: Judgement, advice: list[Advice], *, is_calm: bool) -> Finding:
    severity = "info" if is_calm and found.severity == "warn" else found.severity
    return Finding(
        rule=found.code,
        severity=cast(Severity, severity),
        what=found.sentence,
        modality=found.modalities[0] if len(found.modalities) == 1 else None,
        evidence=_evidence(case, found),
        advice="\n".join(one.in_words() for one in advice),
        confidence=found.confidence,
    )


def _evidence(case: Case, found: Judgement) -> dict[str, Any]:
    """Give the numbers of the modalities named, of all of them where none is."""
    given: dict[str, Any] = {
        "n": case.n,
        "split": "val",
        "basis": case.basis,
        "epoch": case.epoch,
        "since_epoch": case.since_epoch,
        constant_answer_key(case.metric): case.chance,
    }
    joint = case.quantity("joint")
    if joint is not None:
        given |= _numbers(score_key(case.metric), joint)
    for m in found.modalities or case.modalities:
        of = "" if len(found.modalities) == 1 else f" of {m}"
        for name in EVIDENCE:
            known = case.quantity(name, m)
            if known is not None:
                shown = "shift" if name == "flip" and case.metric == "r2" else name
                given |= _numbers(f"{shown}{of}", known)
        if m in case.solo_runs:
            given[f"reference_run{of}"] = case.solo_runs[m]
    return given


def _numbers(name: str, known: Quantity) -> dict[str, Any]:
    whole = known.estimate
    return {name: whole.value, f"{name}_ci95": [whole.low, whole.high]}
