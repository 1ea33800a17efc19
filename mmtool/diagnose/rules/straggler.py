"""One rank is late at nearly every step and the others wait for it.

Compares the time each rank waits in the gradient synchronisation: the rank that waits least
arrived last. Fires when the same rank is last in more than nine of ten steps and the others wait
more than a tenth of a step for it.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits

NEEDS = ("steps.ms_step", "steps.ms_sync", "steps.rank")
IS_OPTIONAL = True


def check(facts: Facts) -> Finding | None:
    """Name the rank for which the others wait."""
    late = facts.steps.straggler if facts.steps else None
    if facts.steps is None or late is None:
        return None
    if late.arrives_last <= limits.STRAGGLER_LAST or late.wait_share <= limits.STRAGGLER_WAIT:
        return None
    return Finding(
        rule="straggler",
        severity="warn",
        what=(
            f"rank {late.rank} arrives last in {late.arrives_last:.0%} of the steps; the other "
            f"ranks wait {late.wait_share:.0%} of a step for it"
        ),
        evidence={
            "n": facts.steps.exchange.num_steps if facts.steps.exchange else 0,
            "rank": late.rank,
            "arrives_last": late.arrives_last,
            "arrives_last_bound": limits.STRAGGLER_LAST,
            "wait_share": late.wait_share,
            "wait_share_bound": limits.STRAGGLER_WAIT,
            "num_ranks": facts.steps.num_ranks,
            "predicted_gain": 1 / max(1 - late.wait_share, 1e-3),
        },
        advice="look for another process on that rank's device, its temperature and its disk:\n"
        "mmtool doctor",
    )
