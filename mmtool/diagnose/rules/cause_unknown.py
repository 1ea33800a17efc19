"""A modality is hardly used, and what it could reach was not measured.

Its encoder was probed, the probe is poor, and a poor encoder looks like a poor signal. A run that
trains the modality alone, or `--deep`, which trains this checkpoint's encoder alone for a while,
tells them apart; the log does not, and neither does it tell whether the answer is in an interaction
when no modality says anything alone.
"""

from __future__ import annotations

from mmtool.diagnose.rules import synergy, uninformative
from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined, known_of, led

CODE = "inconclusive"
ORDER = 77
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the modalities of which it is not known why they are weak."""
    if evidence.takes_probes:
        return None
    if synergy.is_read_by_none(evidence):
        has_all = all(evidence.is_known(m) for m in evidence.case.modalities)
        return None if has_all and evidence.get("synergy") else evidence.case.modalities
    empty = [m for m in evidence.case.modalities if uninformative.is_empty(evidence, m)]
    poor = [m for m in evidence.weak if m != evidence.dominant and not evidence.is_informative(m)]
    unknown = {m for m in (*empty, *poor) if not evidence.is_known(m)}
    return tuple(m for m in evidence.case.modalities if m in unknown) or None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say what is known of them."""
    if synergy.is_read_by_none(evidence):
        return (
            f"nothing can be read from {joined(modalities)} alone, and whether their interaction "
            "tells was not measured"
        )
    told = known_of(evidence, modalities)
    return (
        f"{joined(modalities)} may be held back{led(evidence)}, or may say little, which this "
        "record cannot tell: "
        f"{told}"
    )
