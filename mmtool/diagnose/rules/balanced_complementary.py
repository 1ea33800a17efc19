"""The modalities are in balance and complement each other.

No imbalance was found; every modality is missed when it is permuted (more than 0.10), and together
they beat what the best of them reaches alone by more than 0.05.
"""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules.balanced import shared
from mmtool.diagnose.verdict.evidence import Evidence

CODE = "balanced-complementary"
ORDER = 90
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Say that each modality adds something."""
    drops = [evidence.get("drop", m) for m in evidence.case.modalities]
    surplus = evidence.get("surplus")
    if surplus is None or any(d is None or d.value <= limits.COMPLEMENTARY_DROP for d in drops):
        return None
    return () if surplus.value > limits.COMPLEMENTARY_GAIN else None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say how the decision is shared."""
    del modalities
    return f"no imbalance found: {shared(evidence)}; the modalities complement each other"
