"""Training waits for data.

Fires when the time between asking for a batch and having it exceeds a tenth of the mean step, after
the first steps of every attempt are left out. The predicted step time is the one without the wait.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("steps.ms_step", "steps.ms_data")


def check(facts: Facts) -> Finding | None:
    """Say how much of a step is spent waiting for the loader."""
    times = facts.steps
    data = times.phase("data") if times else None
    if times is None or data is None or times.num_steps < limits.MIN_STEPS:
        return None
    if data.share <= limits.DATA_WAIT_SHARE:
        return None
    return Finding(
        rule="loader-bound",
        severity="warn",
        what=(
            f"{data.share:.0%} of a step waits for data: {data.mean_ms:.1f} of "
            f"{times.step.mean_ms:.1f} ms, so training would be up to "
            f"{1 / max(1 - data.share, 1e-3):.1f} times as fast without the wait"
        ),
        evidence={
            "n": times.num_steps,
            "data_share": data.share,
            "data_share_bound": limits.DATA_WAIT_SHARE,
            "data_mean_ms": data.mean_ms,
            "data_p50_ms": data.p50_ms,
            "data_p95_ms": data.p95_ms,
            "step_mean_ms": times.step.mean_ms,
            "step_without_wait_ms": times.step.mean_ms - data.mean_ms,
            "samples_per_s": times.samples_per_s,
            "num_warmup_dropped": times.num_warmup_dropped,
        },
        advice=(
            "keep the prepared dataset on a local disk that fits in memory, prepare smaller media, "
            "and see what the loader alone reaches:\n"
            f"mmtool profile {recipe_argument(facts.run)}"
        ),
    )
