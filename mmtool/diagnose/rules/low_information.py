"""A modality is hardly used because it has little to say.

Its reliance share is far below a fair one, and even trained alone it reaches less than 0.6 of what
the leading modality reaches above chance. This is how it should be: balancing would move the
decision to the modality that knows less. It may buy robustness where the other is missing.
"""

from __future__ import annotations

from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined, known_of

CODE = "low-information"
ORDER = 80
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the weak modalities that say little even when trained alone."""
    weak = [m for m in evidence.weak if m != evidence.dominant and evidence.is_known(m)]
    return tuple(m for m in weak if not evidence.is_informative(m)) or None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say how little."""
    told = known_of(evidence, modalities)
    verb = "says" if len(modalities) == 1 else "say"
    return f"{joined(modalities)} {verb} little, so that little rests on it is no failure: {told}"
