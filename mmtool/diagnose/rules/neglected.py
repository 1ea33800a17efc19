"""The encoder of a weak modality has learnt, and the fused head leaves it aside.

Its reliance share is far below a fair one although it reaches at least 0.6 of what the leading
modality reaches above chance, and training it alone gets no further than a probe on the encoder as
it is. Often its features are on a smaller scale than the others'.
"""

from __future__ import annotations

from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined, known_of, led

CODE = "neglected"
ORDER = 75
SEVERITY = "warn"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the weak modalities whose features the fusion ignores."""
    return tuple(m for m in evidence.held_back() if not evidence.is_behind(m)) or None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say what can be read from its features and how little of it is used."""
    told = known_of(evidence, modalities)
    verb = "is" if len(modalities) == 1 else "are"
    return f"{joined(modalities)} {verb} neglected by the fusion{led(evidence)}: {told}"
