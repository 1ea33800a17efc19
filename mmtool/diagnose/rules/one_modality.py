"""A run of one modality has no balance to judge.

It serves as the reference of runs that use its modality among others: give it to `mmtool diagnose`
beside such a run.
"""

from __future__ import annotations

from mmtool.diagnose.verdict.evidence import Evidence

CODE = "one-modality"
ORDER = -10
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the only modality."""
    return evidence.case.modalities if len(evidence.case.modalities) == 1 else None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say that there is nothing to compare."""
    del evidence
    return f"one modality only ({', '.join(modalities)}), so there is no balance to judge"
