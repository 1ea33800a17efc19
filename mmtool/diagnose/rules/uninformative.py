"""A modality says nothing about the label.

What it reaches alone (the larger of probe, headroom and solo run) is chance within error, and
permuting it costs less than 0.03. Look at the data: are its samples aligned with the labels, is it
blank? If this is how it is, leave it out and save its computation.
"""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import alone, constant, joined

CODE = "uninformative"
ORDER = 40
SEVERITY = "warn"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name every modality from which nothing can be read."""
    found = tuple(m for m in evidence.case.modalities if is_empty(evidence, m))
    return tuple(m for m in found if evidence.is_known(m)) or None


def is_empty(evidence: Evidence, m: str) -> bool:
    """Tell whether nothing was read from a modality and nothing is lost without it."""
    drop = evidence.get("drop", m)
    unused = drop is None or drop.value < limits.UNINFORMATIVE_DROP
    return evidence.at_chance(m) is True and unused


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say what each reaches alone."""
    reached = ", ".join(alone(evidence, m) for m in modalities)
    return (
        f"{joined(modalities)} {'says' if len(modalities) == 1 else 'say'} nothing about the "
        f"label: {reached}, {constant(evidence.case)}"
    )
