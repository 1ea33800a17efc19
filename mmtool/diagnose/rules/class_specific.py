"""Which modality decides depends on the class.

None dominates over all samples, but each of two modalities owns at least a quarter of the classes:
within the class, more than 0.72 of the Shapley values under permutation are its, and what it
reaches alone (probe, headroom or solo run) is more than 0.20 above what any other reaches. Classes
that both know but one decides are prediction bias, which the report lists by class, and not this.
Classes of fewer than 30 validation samples do not count. Methods that hold modalities to one pace
may take from either what only it knows.
"""

from __future__ import annotations

from collections import Counter

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined

CODE = "class-specific"
ORDER = 85
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the modalities that own classes."""
    owners = evidence.owners()
    if not owners:
        return None
    owned = Counter(place for place in owners if place >= 0)
    enough = [p for p, num in owned.items() if num >= limits.CLASS_OWNED_PART * len(owners)]
    if len(enough) < 2:
        return None
    return tuple(evidence.case.modalities[place] for place in sorted(enough))


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say how many classes each owns."""
    owners = evidence.owners()
    places = {m: place for place, m in enumerate(evidence.case.modalities)}
    told = ", ".join(f"{m} {owners.count(places[m])}" for m in modalities)
    return (
        f"which modality decides depends on the class: of {len(owners)} classes {told} rest on "
        f"one; {joined(modalities)} are in balance over all"
    )
