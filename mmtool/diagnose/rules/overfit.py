"""One modality memorises its training samples, and the decision rests on it.

The loss of its own logits, or of the probe on its features: validation minus training exceeds
0.2 log(classes), training is below a quarter of validation, and validation has risen more than 3 %
above its own lowest value. With several labels the unit is log(2). The decision rests on it when
its reliance share is dominant, or when it is on the training samples and its Shapley value there is
more than 0.15 larger than on the validation samples. Not judged for a regression, whose loss has no
such unit.
"""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.evidence import Evidence
from mmtool.diagnose.verdict.wording import joined

CODE = "overfit"
ORDER = 60
SEVERITY = "warn"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Name the modality that is learnt by heart."""
    if evidence.case.task == "regression":
        return None
    found = [m for m in evidence.case.losses if overfits(evidence, m) and matters(evidence, m)]
    return tuple(m for m in evidence.case.modalities if m in found) or None


def overfits(evidence: Evidence, m: str) -> bool:
    """Tell whether the loss rises on validation while it vanishes on train."""
    losses = evidence.case.losses.get(m)
    if losses is None:
        return False
    drawn = evidence.get("nll", m)
    val = losses.val if drawn is None else drawn.value
    return (
        val - losses.train > limits.OVERFIT_GAP_LOG_CLASSES * evidence.case.log_classes
        and losses.train < limits.OVERFIT_TRAIN_RATIO * val
        # Both are from the same samples, so that their ratio is the same on all resamples.
        and losses.val > limits.OVERFIT_RISE * losses.lowest_val
    )


def matters(evidence: Evidence, m: str) -> bool:
    """Tell whether the decision rests on the modality, on validation or on train."""
    if evidence.owns(m):
        return True
    share, memorised = evidence.get("train_share", m), evidence.get("memorised", m)
    if share is None or memorised is None:
        return False
    bound = limits.dominant_share(len(evidence.case.modalities))
    return share.value > bound and memorised.value > limits.MEMORISED_SHARE


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Say when the loss was lowest and what it is now."""
    told = []
    for m in modalities:
        known = evidence.case.losses[m]
        told.append(
            f"its validation loss was lowest at epoch {known.lowest_epoch} "
            f"({known.lowest_val:.2f}) and is {known.val:.2f} at epoch {known.epoch}, while its "
            f"training loss fell to {known.train:.2f}"
        )
    verb = "overfits" if len(modalities) == 1 else "overfit"
    return f"{joined(modalities)} {verb}: {'; '.join(told)}"
