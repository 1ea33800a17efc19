"""An encoder does not respond to its input, or is not trained.

Its centred features have an entropy-based rank below 1.5 on the validation samples while a probe
reads next to nothing from them, or its weights have not moved since the first step although they
are trained. Look at the activation, the learning rate of its group, what is frozen and the wiring.
"""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined

CODE = "dead-encoder"
ORDER = 10
SEVERITY = "warn"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name every encoder that is dead."""
    return tuple(m for m in evidence.case.modalities if _is_dead(evidence, m)) or None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say which encoder gives the same answer to everything."""
    reasons = []
    for m in modalities:
        rank = evidence.case.effective_rank.get(m)
        if rank is not None and rank < limits.DEAD_RANK:
            reasons.append(f"effective rank {rank:.1f}")
        else:
            reasons.append("its weights have not moved")
    return f"the encoder of {joined(modalities)} is dead ({', '.join(dict.fromkeys(reasons))})"


def _is_dead(evidence: Evidence, m: str) -> bool:
    case, probe = evidence.case, evidence.get("probe", m)
    rank, update = case.effective_rank.get(m), case.update_norm.get(m)
    reads_nothing = probe is None or probe.low <= case.chance + limits.DEAD_PROBE
    if rank is not None and rank < limits.DEAD_RANK and reads_nothing:
        return True
    return update is not None and update < limits.DEAD_UPDATE and m not in case.frozen
