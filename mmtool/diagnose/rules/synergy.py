"""Nothing can be read from any modality alone; the answer is in how they interact.

No modality reaches more than chance alone (probe, headroom or solo run), and without interactions
(the EMAP projection of the fused logits onto a sum of functions of one modality each) the score
falls by more than 0.08. Methods that judge or train modalities by their own logits are meaningless
here. Seen from the log alone, the projection is missing and the verdict is inconclusive.
"""

from __future__ import annotations

from mmtool.diagnose.metrics.names import constant_answer
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined

CODE = "synergy"
ORDER = 30
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name all modalities when only their interaction tells."""
    gap = evidence.get("synergy")
    if not is_read_by_none(evidence) or gap is None or gap.value <= limits.SYNERGY_GAP:
        return None
    return ()


def is_read_by_none(evidence: Evidence) -> bool:
    """Tell whether no modality says anything alone."""
    return all(evidence.at_chance(m) is True for m in evidence.case.modalities)


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say what is lost without interactions."""
    del modalities
    gap = evidence.get("synergy")
    lost = f"{gap.value:.2f}" if gap else "much"
    return (
        f"only {joined(evidence.case.modalities)} together tell: alone each is no better than "
        f"{constant_answer(evidence.case.metric)}, and without their interaction {lost} of "
        f"{evidence.joint.value:.2f} is lost"
    )
