"""A GPU's memory lies in pieces that are too small for what is asked for.

torch's allocator had to free everything and ask again at least once, and holds a third more than is
in use.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("system.reserved_peak_mb",)
IS_OPTIONAL = True


def check(facts: Facts) -> Finding | None:
    """Say that memory is lost in gaps."""
    memory = facts.system.get("allocator") or {}
    if not memory.get("retries"):
        return None
    ratio = memory["reserved_over_allocated"]
    if ratio <= limits.FRAGMENTED_RATIO:
        return None
    return Finding(
        rule="fragmented",
        severity="warn",
        what=(
            f"torch holds {ratio:.1f} times the GPU memory that is in use and had to start over "
            f"{memory['retries']} times to find room"
        ),
        evidence={
            "n": memory["n"],
            "reserved_over_allocated": ratio,
            "ratio_bound": limits.FRAGMENTED_RATIO,
            "retries": memory["retries"],
            "ooms": memory["ooms"],
            "allocated_peak_mb": memory["allocated_peak_mb"],
            "reserved_peak_mb": memory["reserved_peak_mb"],
        },
        advice="let its segments grow:\nPYTORCH_CUDA_ALLOC_CONF=expandable_segments:True "
        f"mmtool train {recipe_argument(facts.run)}",
    )
