"""Where a training step's time goes, how fast samples pass, and what ranks wait for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.encoders import EncoderTime, compute_encoders
from mmtool.diagnose.metrics.intervals import Interval
from mmtool.diagnose.metrics.loop import Loop, compute_loop
from mmtool.diagnose.metrics.waiting import Exchange, Straggler, compute_exchange, share_of
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import has, number, rows

FASTEST = 0.1
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
    data_share: Interval | None = None
    """Share of the step in which it waits for data."""
    queue_empty: Interval | None = None
    """Share of steps at whose batch a GPU had run out of work; None on a CPU."""
    exchange: Exchange | None = None
    encoders: tuple[EncoderTime, ...] = ()
    loop: Loop | None = None
    num_operators: int | None = None
    """Differentiable operators of one step's forward pass."""
    us_per_operator: float | None = None
    """Time of an operator, a forward one counting with the about two of its gradient.

    Processor time where the log has it, in the fastest tenth of the steps: what else the machine
    does must not look like work.
    """

    processor_share: float | None = None
    """Of forward and backward on a CPU, the time in which the thread had a processor."""

    def phase(self, name: str) -> Phase | None:
        """Give one phase, or None when it was not measured."""
        return next((p for p in self.phases if p.name == name), None)

    def share(self, *names: str) -> float:
        """Give the share of some phases together; what was not measured counts as nothing."""
        return sum(p.share for p in self.phases if p.name in names)


def compute_steps(run: Run) -> StepTimes | None:
    """Give the step timing of the first rank, or None when no step was timed."""
    steps = run.tables.steps
    if steps.empty or not has(steps, "ms_step"):
        return None
    first_rank = steps[steps["rank"] == steps["rank"].min()] if "rank" in steps else steps
    timed = first_rank[first_rank["ms_step"].notna() & (first_rank["ms_step"] > 0)]
    steady, dropped = _steady(timed)
    if steady.empty:
        return None
    mean_step = float(steady["ms_step"].mean())
    seconds = float(steady["ms_step"].sum()) / 1000
    exchange = compute_exchange(steps)
    return StepTimes(
        num_steps=len(steady),
        num_warmup_dropped=dropped,
        step=_phase("step", steady["ms_step"], mean_step),
        phases=_phases(steady, mean_step),
        samples_per_s=float(steady["n"].sum()) / seconds if has(steady, "n") else None,
        num_skipped=num_skipped(first_rank),
        num_logged=len(first_rank),
        max_over_median=float(steady["ms_step"].max()) / float(steady["ms_step"].median()),
        num_ranks=int(steps["rank"].nunique()) if "rank" in steps else 1,
        straggler=exchange.last if exchange else None,
        data_share=share_of(steady, "ms_data"),
        queue_empty=share_of(steady.assign(ones=1.0), "queue_empty", "ones"),
        exchange=exchange,
        encoders=compute_encoders(run, steady),
        loop=compute_loop(steady, run.tables.events),
        num_operators=(count := _num_operators(run)),
        us_per_operator=_us_per_operator(steady, count),
        processor_share=_processor_share(steady),
    )


def num_skipped(steps: pd.DataFrame) -> int:
    """Count the steps whose update was skipped because of a non-finite gradient."""
    if "skipped" not in steps.columns:
        return 0
    return int(sum(1 for value in steps["skipped"].tolist() if value is True or value == 1))


def _num_operators(run: Run) -> int | None:
    counted = [number(event, "num") for event in rows(run.tables.events, what="operators")]
    known = [value for value in counted if value is not None]
    return int(known[-1]) if known else None


def _processor_share(steady: pd.DataFrame) -> float | None:
    columns = [c for c in ("ms_forward", "ms_backward") if has(steady, c)]
    if not has(steady, "ms_cpu") or len(columns) < 2:
        return None
    wall = float(steady[columns].sum().sum())
    return min(1.0, float(steady["ms_cpu"].sum()) / wall) if wall > 0 else None


def _us_per_operator(steady: pd.DataFrame, count: int | None) -> float | None:
    columns = [c for c in ("ms_forward", "ms_backward") if has(steady, c)]
    if not count or len(columns) < 2:
        return None
    computing = steady["ms_cpu"] if has(steady, "ms_cpu") else steady[columns].sum(axis=1)
    return float(computing.quantile(FASTEST)) * 1e3 / (3 * count)


def _steady(timed: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Drop the first steps of every attempt, unless that would leave too few."""
    attempts = timed["attempt"] if "attempt" in timed else pd.Series(0, index=timed.index)
    keep = timed.groupby(attempts.fillna(0)).cumcount() >= limits.WARMUP_STEPS
    if int(keep.sum()) < limits.MIN_STEPS:
        return timed, 0
    return timed[keep], int((~keep).sum())


def _phases(steady: pd.DataFrame, mean_step: float) -> tuple[Phase, ...]:
    """Give the measured phases, and what is left of the step as `other`."""
    columns = {p: steady[f"ms_{p}"].fillna(0.0) for p in PHASES if has(steady, f"ms_{p}")}
    total = max(mean_step, sum(float(c.mean()) for c in columns.values()))
    phases = [_phase(name, column, total) for name, column in columns.items()]
    if columns:
        rest = steady["ms_step"] - sum(columns.values())
        phases.append(_phase("other", rest.clip(lower=0.0), total))
    return tuple(phases)


def _phase(name: str, column: pd.Series[Any], total: float) -> Phase:
    mean = float(column.mean())
    return Phase(
        name=name,
        mean_ms=mean,
        p50_ms=float(column.quantile(0.5)),
        p95_ms=float(column.quantile(0.95)),
        share=mean / total if total > 0 else 0.0,
    )


def step_table(times: StepTimes | None) -> dict[str, Any]:
    """Give the step timing as plain data for the report."""
    if times is None:
        return {}
    return {
        "num_steps": times.num_steps,
        "num_warmup_dropped": times.num_warmup_dropped,
        "num_ranks": times.num_ranks,
        "samples_per_s": times.samples_per_s,
        "max_over_median": times.max_over_median,
        "step": _phase_table(times.step),
        "phases": [_phase_table(p) for p in times.phases],
        "straggler": straggler_table(times.straggler),
    }


def straggler_table(late: Straggler | None) -> dict[str, Any] | None:
    """Give the rank that arrives last as plain data."""
    if late is None:
        return None
    return {"rank": late.rank, "arrives_last": late.arrives_last, "wait_share": late.wait_share}


def _phase_table(phase: Phase) -> dict[str, Any]:
    return {
        "name": phase.name,
        "mean_ms": phase.mean_ms,
        "p50_ms": phase.p50_ms,
        "p95_ms": phase.p95_ms,
        "share": phase.share,
    }
