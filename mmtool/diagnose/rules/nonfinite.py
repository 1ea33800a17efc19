"""Updates were skipped because a gradient was not finite.

Counts the skipped steps of the first rank. A few at the start of an fp16 run are the loss scale
finding its level; more than one in a hundred, or a run that failed, is a warning.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.steps import num_skipped
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument
from mmtool.diagnose.tables import rows

NEEDS = ("steps.skipped",)


def check(facts: Facts) -> Finding | None:
    """Count the updates that were lost to non-finite gradients."""
    steps = facts.run.tables.steps
    first = steps[steps["rank"] == steps["rank"].min()] if "rank" in steps.columns else steps
    skipped = num_skipped(first)
    if not skipped:
        return None
    where = [int(r["step"]) for r in rows(first) if r.get("skipped")]
    failed = facts.run.tables.status.get("state") == "failed"
    share = skipped / max(len(first), 1)
    serious = failed or share > limits.NONFINITE_SHARE
    return Finding(
        rule="nonfinite",
        severity="error" if failed else "warn" if serious else "info",
        what=(
            f"{skipped} of {len(first)} updates were skipped because a gradient was not finite, "
            f"first at step {where[0]}"
        ),
        evidence={
            "n": len(first),
            "num_skipped": skipped,
            "share": share,
            "share_bound": limits.NONFINITE_SHARE,
            "first_step": where[0],
            "last_step": where[-1],
        },
        advice=(
            "lower the learning rate, warm it up or clip the gradient:\n"
            f"mmtool train {recipe_argument(facts.run)} -s train.clip_norm=5.0 "
            f"-s train.warmup_epochs=1 -s train.precision=fp32"
        )
        if serious
        else "",
    )
