"""Training waits for data.

Fires when the time between asking for a batch and having it exceeds a tenth of the mean step, its
interval included, after the first steps of every attempt are left out. On a GPU the device must
also have run out of work at many of these batches: a wait that it does not see costs nothing. The
predicted step time is the one without the wait.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("steps.ms_step", "steps.ms_data")
IS_OPTIONAL = True


def check(facts: Facts) -> Finding | None:
    """Say how much of a step is spent waiting for the loader."""
    times = facts.steps
    data = times.phase("data") if times else None
    if times is None or data is None or times.data_share is None:
        return None
    share, empty = times.data_share, times.queue_empty
    if share.low <= limits.DATA_WAIT_SHARE:
        return None
    if empty is not None and empty.value <= limits.QUEUE_EMPTY_SHARE:
        return None
    evidence = {
        "n": times.num_steps,
        "data_share": share.value,
        "data_share_ci95": [share.low, share.high],
        "data_share_bound": limits.DATA_WAIT_SHARE,
        "data_mean_ms": data.mean_ms,
        "data_p50_ms": data.p50_ms,
        "data_p95_ms": data.p95_ms,
        "step_mean_ms": times.step.mean_ms,
        "step_without_wait_ms": times.step.mean_ms - data.mean_ms,
        "predicted_gain": 1 / max(1 - share.value, 1e-3),
        "samples_per_s": times.samples_per_s,
        "num_warmup_dropped": times.num_warmup_dropped,
    }
    if empty is not None:
        evidence["queue_empty_share"] = empty.value
    return Finding(
        rule="data-bound",
        severity="warn",
        what=(
            f"{share.value:.0%} of a step waits for data: {data.mean_ms:.1f} of "
            f"{times.step.mean_ms:.1f} ms, so training would be up to "
            f"{evidence['predicted_gain']:.1f} times as fast without the wait"
        ),
        evidence=evidence,
        advice=(
            "keep the prepared dataset on a local disk that fits in memory, prepare smaller media "
            "(fewer frames, a lower resolution), and see what the loader alone reaches:\n"
            f"mmtool profile {recipe_argument(facts.run)}"
        ),
    )
