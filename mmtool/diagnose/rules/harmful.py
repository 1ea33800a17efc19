"""The fused model is worse than one of its own encoders with a linear layer.

The best single probe is ahead of the fused validation score by more than 0.06: something that holds
on the training samples only, a shortcut or a shift, takes the decision. The modality named is the
one on which the answers to the training samples rest (Shapley values under permutation); from the
log alone, the one whose permutation flips most validation predictions.
"""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.estimates import Estimate
from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined

CODE = "harmful"
ORDER = 50
SEVERITY = "warn"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the modality that misleads."""
    if not is_misled(evidence):
        return None
    names = evidence.case.modalities
    known = [(m, e.value) for m in names if (e := evidence.get("train_share", m))]
    if known:
        return (max(known, key=lambda pair: pair[1])[0],)
    return None if evidence.dominant is None else (evidence.dominant,)


def is_misled(evidence: Evidence) -> bool:
    """Tell whether one encoder alone would answer better than all together."""
    best = max((e.value for _, e in _probes(evidence)), default=None)
    return best is not None and best > evidence.joint.value + limits.HARMFUL_GAP


def _probes(evidence: Evidence) -> list[tuple[str, Estimate]]:
    return [(m, e) for m in evidence.case.modalities if (e := evidence.get("probe", m))]


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say by how much the best encoder alone is ahead."""
    name, best = max(_probes(evidence), key=lambda pair: pair[1].value)
    return (
        f"{joined(modalities)} misleads: a linear readout of {name} alone reaches "
        f"{best.value:.2f}, all together {evidence.joint.value:.2f}"
    )
