"""Shares of a step with their intervals, and what ranks wait for when they exchange gradients.

In the exchange every rank waits for the last one, and then the transfer takes all of them the same
time: the shortest wait of a step is the transfer, what the others wait longer is for that rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import pandas as pd

from mmtool.diagnose.metrics.intervals import Interval
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import has

_BLOCKS = 20
_STUDENT = 2.093
"""Two-sided 95 % with 19 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Straggler:
    """The rank that arrives last most often, and what the others wait for it."""

    rank: int
    arrives_last: float
    """Share of steps in which this rank waits least."""
    wait_share: float
    """Mean waiting time of the other ranks, as a share of the step."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The exchange of gradients as all ranks saw it, over the steps that all of them logged."""

    num_steps: int
    transfer_ms: float
    transfer_share: float
    """Shortest wait of each step, as a share of the mean step."""
    last: Straggler


def share_of(steady: pd.DataFrame, part: str, whole: str = "ms_step") -> Interval | None:
    """Give the share of one column in another, with an interval from blocks of steps.

    Neighbouring steps resemble each other, so that their number says little of the certainty.
    """
    if not has(steady, part) or len(steady) < limits.MIN_STEPS:
        return None
    parts, wholes = steady[part].fillna(0.0).astype(float), steady[whole].astype(float)
    total = float(wholes.sum())
    value = float(parts.sum()) / total if total > 0 else 0.0
    size = len(steady) // _BLOCKS
    shares = []
    for block in range(_BLOCKS):
        here = slice(block * size, len(steady) if block == _BLOCKS - 1 else (block + 1) * size)
        denominator = float(wholes.iloc[here].sum())
        shares.append(float(parts.iloc[here].sum()) / denominator if denominator > 0 else 0.0)
    mean = sum(shares) / _BLOCKS
    spread = sqrt(sum((s - mean) ** 2 for s in shares) / (_BLOCKS - 1))
    half = _STUDENT * spread / sqrt(_BLOCKS)
    low, high = max(0.0, value - half), min(1.0, value + half)
    return Interval(value, low, high, len(steady), is_rate=False)


def compute_exchange(steps: pd.DataFrame) -> Exchange | None:
    """Give the exchange of gradients, None with one rank or where waits were not logged."""
    if "rank" not in steps or steps["rank"].nunique() < 2 or not has(steps, "ms_sync"):
        return None
    wait = steps.pivot_table(index="step", columns="rank", values="ms_sync").dropna()
    wait = wait[wait.index >= limits.WARMUP_STEPS]
    if len(wait) < limits.MIN_STEPS or len(wait.columns) < 2:
        return None
    mean_step = float(steps[steps["step"].isin(wait.index)]["ms_step"].mean())
    transfer = float(wait.min(axis=1).mean())
    return Exchange(
        num_steps=len(wait),
        transfer_ms=transfer,
        transfer_share=transfer / mean_step if mean_step > 0 else 0.0,
        last=_last(wait, mean_step),
    )


def _last(wait: pd.DataFrame, mean_step: float) -> Straggler:
    """Find the rank whose wait is shortest most often."""
    last: pd.Series[Any] = wait.idxmin(axis=1)
    rank = last.mode().iloc[0]
    extra = wait.drop(columns=[rank]).sub(wait[rank], axis=0).clip(lower=0.0)
    return Straggler(
        rank=int(rank),
        arrives_last=float((last == rank).mean()),
        wait_share=float(extra.to_numpy().mean()) / mean_step if mean_step > 0 else 0.0,
    )
