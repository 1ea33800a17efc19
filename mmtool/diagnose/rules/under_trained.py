"""The encoder of a weak modality stopped learning before it was done.

Its reliance share is far below a fair one, it could reach at least 0.6 of what the leading modality
reaches above chance, and training it alone (a solo run, or headroom: this checkpoint's encoder
trained on alone for a while) gets further than what the encoder has learnt here by more than 0.02,
interval included and on the same samples.
"""

from __future__ import annotations

from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined, known_of, led

CODE = "under-trained"
ORDER = 70
SEVERITY = "warn"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the weak modalities whose encoders could do more."""
    return tuple(m for m in evidence.held_back() if evidence.is_behind(m)) or None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say what it reaches alone and what here."""
    told = known_of(evidence, modalities)
    verb = "is" if len(modalities) == 1 else "are"
    return f"{joined(modalities)} {verb} under-trained{led(evidence)}: {told}"
