"""What an imbalance costs, on two axes.

accuracy      what answers without the joint training reach together, minus the fused score:
              the summed log probabilities of the readouts of solo runs (or of the encoders
              trained on alone, or of the probes), or else the best single one of them
robustness    what a modality reaches alone, minus what the fused model makes of it when all
              others are replaced by their mean feature
"""

from __future__ import annotations

from typing import Any

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.estimates import Quantity, larger, minus, quantity
from mmtool.diagnose.verdict.evidence import Case
from mmtool.diagnose.verdict.from_deep import DeepEvidence

LATE = {
    "solo_joint": "solo runs, log probabilities summed",
    "headroom_joint": "encoders trained on alone, log probabilities summed",
    "probe_joint": "probes, log probabilities summed",
}
BEST = {"solo": "best solo run", "headroom": "best encoder trained on alone", "probe": "best probe"}


def accuracy_stake(case: Case, deep: DeepEvidence | None) -> Quantity | None:
    """Give how much better the modalities answer without having been trained together."""
    joint = case.quantity("joint")
    together = None if deep is None else _late(deep)
    return minus(together, joint, together.source) if together else _best(case, joint)


def _late(deep: DeepEvidence) -> Quantity | None:
    for name, source in LATE.items():
        scores = deep.val.score(name)
        if scores is not None:
            means = deep.drawn.means(scores[:, None])[:, 0]
            return quantity(means, deep.drawn.n, source=source)
    return None


def _best(case: Case, joint: Quantity | None) -> Quantity | None:
    for name, source in BEST.items():
        best: Quantity | None = None
        for m in case.modalities:
            best = larger(best, case.quantity(name, m))
        if best is not None:
            return minus(best, joint, source)
    return None


def robustness_stakes(case: Case) -> dict[str, Quantity]:
    """Give by modality how much of what it can say is lost when it is the only one left."""
    found = {}
    for m in case.modalities:
        potential = case.quantity("potential", m)
        lost = minus(potential, case.quantity("alone", m), potential.source if potential else "")
        if lost is not None:
            found[m] = lost
    return found


def is_calm(accuracy: Quantity | None, robustness: dict[str, Quantity]) -> bool:
    """Tell whether hardly anything is at stake, as far as that was measured."""
    known = [q.value for q in (accuracy, *robustness.values()) if q is not None]
    return bool(known) and max(known) < limits.STAKE


def stake_table(accuracy: Quantity | None, robustness: dict[str, Quantity]) -> dict[str, Any]:
    """Give both axes as plain data."""
    return {
        "accuracy": accuracy and accuracy.as_dict(),
        "robustness": {m: q.as_dict() for m, q in robustness.items()},
    }
