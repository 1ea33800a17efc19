"""Sending gradients between ranks takes a large part of every step.

In each step the shortest wait of all ranks is the transfer itself: what the others wait longer is
for the rank that came last, which is the straggler's matter. Fires when the transfer exceeds its
share of the step and outweighs the wait for the last rank. In a profiler's trace it is the time of
the collectives during which nothing was computed, waits included.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.traced import Traced, compute_traced
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("steps.ms_step",)
IS_OPTIONAL = True


def check(facts: Facts) -> Finding | None:
    """Say how much of a step is spent on the exchange of gradients."""
    traced = compute_traced(facts.run)
    if traced is not None:
        return _in_trace(facts, traced)
    times = facts.steps
    exchange = times.exchange if times else None
    if times is None or exchange is None or exchange.transfer_share <= limits.COMM_SHARE:
        return None
    if exchange.last.wait_share >= exchange.transfer_share:
        return None
    return Finding(
        rule="comm-bound",
        severity="warn",
        what=(
            f"{exchange.transfer_share:.0%} of a step goes into sending gradients between "
            f"{times.num_ranks} ranks ({exchange.transfer_ms:.1f} ms), which nothing hides"
        ),
        evidence={
            "n": exchange.num_steps,
            "num_ranks": times.num_ranks,
            "transfer_share": exchange.transfer_share,
            "transfer_share_bound": limits.COMM_SHARE,
            "transfer_ms": exchange.transfer_ms,
            "wait_share": exchange.last.wait_share,
            "arrives_last": exchange.last.arrives_last,
            "predicted_gain": 1 / max(1 - exchange.transfer_share, 1e-3),
        },
        advice=_advice(facts),
    )


def _in_trace(facts: Facts, traced: Traced) -> Finding | None:
    exposed = traced.exposed_communication
    if exposed <= limits.COMM_SHARE:
        return None
    return Finding(
        rule="comm-bound",
        severity="warn",
        what=f"{exposed:.0%} of the traced time goes into collectives that nothing hides, waits "
        "for other ranks included",
        evidence=traced.as_evidence() | {"predicted_gain": 1 / max(1 - exposed, 1e-3)},
        advice=_advice(facts),
    )


def _advice(facts: Facts) -> str:
    run, lines = facts.run, []
    recipe = recipe_argument(run)
    if not run.option("launch", "overlap"):
        lines.append(f"mmtool train {recipe} -s launch.overlap=true")
    lines.append(f"mmtool train {recipe} -s train.batch_size=N    # larger: fewer exchanges")
    return "send while the backward pass still computes, or less often:\n" + "\n".join(lines)
