"""The modalities are in balance, and together they are no better than the best alone.

No imbalance was found; the fused score is less than 0.02 above what the best modality reaches
alone. The others buy robustness only, at the cost of their computation.
"""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules.balanced import shared
from mmtool.diagnose.verdict.evidence import Evidence

CODE = "balanced-redundant"
ORDER = 91
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Say that one modality would do."""
    surplus = evidence.get("surplus")
    return () if surplus is not None and surplus.value < limits.REDUNDANT_GAIN else None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say how the decision is shared."""
    del modalities
    return (
        f"no imbalance found: {shared(evidence)}; together they are no better than the best "
        "alone, the others buy robustness only"
    )
