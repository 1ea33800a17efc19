"""A weak modality could do more, and it was not measured what holds it back.

Its reliance share is far below a fair one although a probe on its encoder reaches at least 0.6 of
what the leading modality reaches above chance. Whether the encoder is under-trained or the fusion
neglects what it has learnt needs to know what it could reach: a run that trains it alone, or
`--deep`. Only from 0.9 on does the probe itself show that the encoder has learnt (`neglected`).
"""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined, known_of, led

CODE = "inconclusive"
ORDER = 72
SEVERITY = "warn"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the modalities that are held back by one or the other."""
    found = (m for m in evidence.held_back() if not evidence.is_known(m))
    return tuple(m for m in found if (evidence.ratio(m) or 0.0) < limits.TRAINED_RATIO) or None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say what is known and what is not."""
    verb = "is" if len(modalities) == 1 else "are"
    return (
        f"{joined(modalities)} {verb} held back{led(evidence)}, by the encoder or by the fusion, "
        f"which this record cannot tell: {known_of(evidence, modalities)}"
    )
