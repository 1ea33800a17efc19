"""The modalities are in balance as far as this record can tell.

Said when there was enough to find an imbalance and no rule before this one found one. Runs last.
"""

from __future__ import annotations

from mmtool.diagnose.verdict.evidence import Evidence

CODE = "balanced"
ORDER = 100
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Hold for whatever is left."""
    del evidence
    return ()


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say how the decision is shared."""
    del modalities
    return f"no imbalance found: {shared(evidence)}"


def shared(evidence: Evidence) -> str:
    """Give every modality's share of the decision in words."""
    names = evidence.case.modalities
    parts = [f"{m} {e.value:.0%}" for m in names if (e := evidence.get("share", m))]
    return f"reliance is shared ({', '.join(parts)})"
