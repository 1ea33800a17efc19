"""Something in every step makes the host wait for the GPU.

The engine itself never waits in a step, but a method, an encoder or a fusion may (`.item()`, `if`
on a tensor). The GPU has then run out of work at almost every batch, stands still part of the time,
and it is neither data nor many small operators that it waits for. A profiler's trace has the waits
themselves.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.traced import Traced, compute_traced
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("steps.ms_step",)
IS_OPTIONAL = True
ORDER = 55


def check(facts: Facts) -> Finding | None:
    """Say that the GPU is let run dry at every step."""
    traced = compute_traced(facts.run)
    if traced is not None:
        return _in_trace(facts, traced)
    times = facts.steps
    gpus = [g for g in facts.system.get("gpus") or () if g["n"] >= limits.MIN_GPU_SAMPLES]
    if times is None or times.queue_empty is None or not gpus:
        return None
    if facts.fired("data-bound", "launch-bound") or times.num_operators is None:
        return None
    empty, busy = times.queue_empty, gpus[0]["busy_percent"]
    if empty.low <= limits.QUEUE_ALWAYS_EMPTY or busy is None:
        return None
    idle = 1 - busy / 100
    if idle <= limits.SYNC_IDLE:
        return None
    return Finding(
        rule="sync-bound",
        severity="warn",
        what=(
            f"the GPU has nothing left to do at {empty.value:.0%} of the steps and stands still "
            f"{idle:.0%} of the time, with little wait for data and "
            f"{3 * times.num_operators} operators a step: something makes the host wait for it"
        ),
        evidence={
            "n": times.num_steps,
            "queue_empty_share": empty.value,
            "queue_empty_share_ci95": [empty.low, empty.high],
            "queue_empty_bound": limits.QUEUE_ALWAYS_EMPTY,
            "idle_share": idle,
            "num_gpu_samples": gpus[0]["n"],
            "data_share": times.share("data"),
            "num_operators_forward": times.num_operators,
            "us_per_operator": times.us_per_operator,
            "predicted_gain": 1 / max(1 - idle, 1e-3),
        },
        advice=_advice(facts),
    )


def _in_trace(facts: Facts, traced: Traced) -> Finding | None:
    if facts.fired("launch-bound") or traced.idle <= limits.SYNC_IDLE:
        return None
    if traced.blocked <= limits.SYNC_IDLE or traced.num_blocks < max(traced.num_steps, 1):
        return None
    return Finding(
        rule="sync-bound",
        severity="warn",
        what=(
            f"the host waits for the GPU {traced.num_blocks} times in {traced.num_steps} steps, "
            f"{traced.blocked:.0%} of the traced time, and the GPU then stands still "
            f"{traced.idle:.0%} of it"
        ),
        evidence=traced.as_evidence(),
        advice=_advice(facts),
    )


def _advice(facts: Facts) -> str:
    return (
        "look for .item(), .cpu(), bool(tensor) or printing of tensors in plugins; a trace shows "
        "which line waits (cudaStreamSynchronize):\n"
        f"mmtool profile {recipe_argument(facts.run)} --trace trace.json"
    )
