"""A step is made of so many small operators that starting them takes longer than their work.

On a GPU: it stands still or hardly works for a good part of the time although no data is waited
for, and had run out of work whenever a batch was there, so it is the host that cannot launch fast
enough. The number of operators of a step, counted once, has to agree where it is known: many, or
few microseconds each. On a CPU: many operators, and each takes hardly longer than torch needs to
call one. In a profiler's trace: kernels that are short or many, and a device that stands still
while the host is not waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.steps import StepTimes
from mmtool.diagnose.metrics.traced import Traced, compute_traced
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("steps.ms_step",)
IS_OPTIONAL = True


def check(facts: Facts) -> Finding | None:
    """Say that operators are too small for the device."""
    times, traced = facts.steps, compute_traced(facts.run)
    if traced is not None:
        return _in_trace(facts, traced)
    if times is None or times.num_steps < limits.MIN_STEPS:
        return None
    if times.share("data") >= limits.LAUNCH_DATA_SHARE:
        return None
    if times.queue_empty is not None:
        return _on_gpu(facts, times)
    return None if facts.system.get("gpus") else _on_cpu(facts, times)


def _in_trace(facts: Facts, traced: Traced) -> Finding | None:
    each, count = traced.kernel_p50_us, traced.kernels_per_step
    are_short = each is not None and each < limits.LAUNCH_US
    are_many = count is not None and count > 3 * limits.LAUNCH_OPERATORS
    if traced.idle <= limits.LAUNCH_IDLE or not (are_short or are_many):
        return None
    # A host that waits for the device for as long has another cause.
    if traced.blocked > traced.idle:
        return None
    per_step = "" if count is None else f"{count:.0f} kernels per step, "
    return Finding(
        rule="launch-bound",
        severity="warn",
        what=f"the GPU stands still {traced.idle:.0%} of the traced time between {per_step}"
        f"half of them shorter than {each or 0:.1f} microseconds",
        evidence=traced.as_evidence() | {"predicted_gain": 1 / max(1 - traced.idle, 1e-3)},
        advice=_advice(facts),
    )


def _on_gpu(facts: Facts, times: StepTimes) -> Finding | None:
    empty, gpu = times.queue_empty, _gpu(facts)
    if empty is None or gpu is None or empty.low <= limits.QUEUE_EMPTY_SHARE:
        return None
    busy, sm = gpu["busy_percent"], gpu["sm_percent"]
    idle = None if busy is None else 1 - busy / 100
    is_idle = idle is not None and idle > limits.LAUNCH_IDLE
    is_thin = sm is not None and sm < limits.LAUNCH_SM_PERCENT
    if not (is_idle or is_thin) or not _are_small(times):
        return None
    said = f"stands still {idle:.0%} of the time" if is_idle else f"has {sm:.0f} % of its SMs busy"
    evidence = _evidence(times) | {
        "queue_empty_share": empty.value,
        "queue_empty_share_ci95": [empty.low, empty.high],
        "idle_share": idle,
        "sm_percent": sm,
        "num_gpu_samples": gpu["n"],
    }
    if idle is not None:
        evidence["predicted_gain"] = 1 / max(1 - idle, 1e-3)
    return Finding(
        rule="launch-bound",
        severity="warn",
        what=(
            f"the GPU {said} although no data is waited for, and had nothing left to do at "
            f"{empty.value:.0%} of the steps: the host cannot launch {_operators(times)}fast enough"
        ),
        evidence=evidence,
        advice=_advice(facts),
    )


def _on_cpu(facts: Facts, times: StepTimes) -> Finding | None:
    each, count = times.us_per_operator, times.num_operators
    if each is None or count is None or count < limits.LAUNCH_OPERATORS:
        return None
    if each >= limits.LAUNCH_US:
        return None
    return Finding(
        rule="launch-bound",
        severity="warn",
        what=(
            f"a step calls about {3 * count} operators that take {each:.1f} microseconds each, "
            "hardly more than calling one costs"
        ),
        evidence=_evidence(times),
        advice=_advice(facts),
    )


def _are_small(times: StepTimes) -> bool:
    """Tell whether operators are many or short, or neither is known."""
    each, count = times.us_per_operator, times.num_operators
    if each is None or count is None:
        return True
    return count >= limits.LAUNCH_OPERATORS or each < limits.LAUNCH_US


def _gpu(facts: Facts) -> Mapping[str, Any] | None:
    known = [g for g in facts.system.get("gpus") or () if g["n"] >= limits.MIN_GPU_SAMPLES]
    return known[0] if known else None


def _operators(times: StepTimes) -> str:
    return f"{3 * times.num_operators} operators per step " if times.num_operators else ""


def _evidence(times: StepTimes) -> dict[str, Any]:
    return {
        "n": times.num_steps,
        "num_operators_forward": times.num_operators,
        "num_operators_bound": limits.LAUNCH_OPERATORS,
        "us_per_operator": times.us_per_operator,
        "us_per_operator_bound": limits.LAUNCH_US,
        "data_share": times.share("data"),
        "step_mean_ms": times.step.mean_ms,
    }


def _advice(facts: Facts) -> str:
    recipe = recipe_argument(facts.run)
    return (
        "put more work into each operator: compile the encoders, or larger batches (train.lr is to "
        f"be chosen anew):\nmmtool train {recipe} -s launch.compile=true\n"
        f"mmtool profile {recipe}"
    )
