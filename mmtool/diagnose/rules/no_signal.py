"""The fused model is not better than a constant answer.

Said when the lower end of the validation score's interval does not exceed chance: the majority rate
of the validation split, with several labels the more frequent answer to each of them, in a
regression the mean, whose R^2 is 0. Balancing has no meaning before this is solved: either nothing
was learnt, or the training samples were memorised, or the fusion cannot express how the modalities
interact. Where the training samples are learnt and one encoder alone would do better, the fused
model was misled instead, which is `harmful`.
"""

from __future__ import annotations

from mmtool.diagnose.metrics.names import constant_answer, in_words
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules.harmful import is_misled
from mmtool.diagnose.verdict.evidence import Evidence

CODE = "no-signal"
ORDER = 20
SEVERITY = "warn"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Say that the validation score has not risen above that of a constant answer."""
    if evidence.has_signal or (memorises(evidence) and is_misled(evidence)):
        return None
    return ()


def memorises(evidence: Evidence) -> bool:
    """Tell whether the training samples are learnt all the same."""
    case = evidence.case
    return case.train_joint is not None and case.train_joint > case.chance + limits.MEMORISED


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say how the score compares with a constant answer, and on train."""
    del modalities
    case = evidence.case
    why = (
        f"; on train it is {case.train_joint:.2f}: the samples are memorised, or the fusion cannot "
        "express how the modalities interact"
        if memorises(evidence)
        else ""
    )
    return (
        f"validation {in_words(case.metric)} {evidence.joint.value:.2f} is not above "
        f"{constant_answer(case.metric)} ({case.chance:.2f}) after {case.num_epochs} epochs{why}"
    )
