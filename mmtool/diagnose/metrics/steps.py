"""Where a training step's time goes, how fast samples pass, and whether one rank is late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmtool.diagnose.load import Run
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import has

PHASES = ("data", "transfer", "forward", "backward", "sync", "optimizer")


@dataclass(frozen=True, slots=True)
class Phase:
    """Time of one phase over the steady steps of rank 0, in milliseconds."""

    name: str
    mean_ms: float
    p50_ms: float
    p95_ms: float
    share: float
    """Of the mean step time."""


@dataclass(frozen=True, slots=True)
class Straggler:
    """The rank that arrives last most often, and what the others wait for it."""

    rank: int
    arrives_last: float
    """Share of steps in which this rank waits least."""
    wait_share: float
    """Mean waiting time of the other ranks, as a share of the step."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Step timing after warm-up."""

    num_steps: int
    num_warmup_dropped: int
    step: Phase
    phases: tuple[Phase, ...]
    samples_per_s: float | None
    num_skipped: int
    num_logged: int
    max_over_median: float
    num_ranks: int
    straggler: Straggler | None = None

    def phase(self, name: str) -> Phase | None:
        """Give one phase, or None when it was not measured."""
        return next((p for p in self.phases if p.name == name), None)


def compute_steps(run: Run) -> StepTimes | None:
    """Give the step timing of rank 0, or None when no step was timed."""
    steps = run.tables.steps
    if steps.empty or not has(steps, "ms_step"):
        return None
    first_rank = steps[steps["rank"] == steps["rank"].min()] if "rank" in steps else steps
    timed = first_rank[first_rank["ms_step"].notna() & (first_rank["ms_step"] > 0)]
    steady, dropped = _steady(timed)
    if steady.empty:
        return None
    mean_step = float(steady["ms_step"].mean())
    measured = [p for p in PHASES if has(steady, f"ms_{p}")]
    columns = {p: steady[f"ms_{p}"].fillna(0.0) for p in measured}
    total = max(mean_step, sum(float(c.mean()) for c in columns.values()))
    phases = [_phase(name, column, total) for name, column in columns.items()]
    if measured:
        rest = steady["ms_step"] - sum(columns.values())
        phases.append(_phase("other", rest.clip(lower=0.0), total))
    seconds = float(steady["ms_step"].sum()) / 1000
    median = float(steady["ms_step"].median())
    return StepTimes(
        num_steps=len(steady),
        num_warmup_dropped=dropped,
        step=_phase("step", steady["ms_step"], mean_step),
        phases=tuple(phases),
        samples_per_s=float(steady["n"].sum()) / seconds if has(steady, "n") else None,
        num_skipped=num_skipped(first_rank),
        num_logged=len(first_rank),
        max_over_median=float(steady["ms_step"].max()) / median,
        num_ranks=int(steps["rank"].nunique()) if "rank" in steps else 1,
        straggler=_straggler(steps),
    )


def num_skipped(steps: pd.DataFrame) -> int:
    """Count the steps whose update was skipped because of a non-finite gradient."""
    if "skipped" not in steps.columns:
        return 0
    return int(sum(1 for value in steps["skipped"].tolist() if value is True or value == 1))


def _steady(timed: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Drop the first steps of every attempt, unless that would leave too few."""
    attempts = timed["attempt"] if "attempt" in timed else pd.Series(0, index=timed.index)
    keep = timed.groupby(attempts.fillna(0)).cumcount() >= limits.WARMUP_STEPS
    if int(keep.sum()) < limits.MIN_STEPS:
        return timed, 0
    return timed[keep], int((~keep).sum())


def _phase(name: str, column: pd.Series[Any], total: float) -> Phase:
    mean = float(column.mean())
    return Phase(
        name=name,
        mean_ms=mean,
        p50_ms=float(column.quantile(0.5)),
        p95_ms=float(column.quantile(0.95)),
        share=mean / total if total > 0 else 0.0,
    )


def _straggler(steps: pd.DataFrame) -> Straggler | None:
    """Find the rank whose wait in the gradient synchronisation is shortest most often."""
    if "rank" not in steps or steps["rank"].nunique() < 2 or not has(steps, "ms_sync"):
        return None
    wait = steps.pivot_table(index="step", columns="rank", values="ms_sync").dropna()
    wait = wait[wait.index >= limits.WARMUP_STEPS]
    if len(wait) < limits.MIN_STEPS:
        return None
    last = wait.idxmin(axis=1)
    rank = last.mode().iloc[0]
    extra = wait.drop(columns=[rank]).sub(wait[rank], axis=0).clip(lower=0.0)
    mean_step = float(steps[steps["step"].isin(wait.index)]["ms_step"].mean())
    return Straggler(
        rank=int(rank),
        arrives_last=float((last == rank).mean()),
        wait_share=float(extra.to_numpy().mean()) / mean_step if mean_step > 0 else 0.0,
    )


def step_table(times: StepTimes | None) -> dict[str, Any]:
    """Give the step timing as plain data for the report."""
    if times is None:
        return {}
    late = times.straggler
    return {
        "num_steps": times.num_steps,
        "num_warmup_dropped": times.num_warmup_dropped,
        "num_ranks": times.num_ranks,
        "samples_per_s": times.samples_per_s,
        "max_over_median": times.max_over_median,
        "step": _phase_table(times.step),
        "phases": [_phase_table(p) for p in times.phases],
        "straggler": None
        if late is None
        else {
            "rank": late.rank,
            "arrives_last": late.arrives_last,
            "wait_share": late.wait_share,
        },
    }


def _phase_table(phase: Phase) -> dict[str, Any]:
    return {
        "name": phase.name,
        "mean_ms": phase.mean_ms,
        "p50_ms": phase.p50_ms,
        "p95_ms": phase.p95_ms,
        "share": phase.share,
    }
