"""What else is true of the run, in sentences below the verdict."""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules import overfit
from mmtool.diagnose.verdict.estimates import Quantity
from mmtool.diagnose.verdict.evidence import Case
from mmtool.diagnose.verdict.judge import Judgement
from mmtool.diagnose.verdict.wording import joined

BALANCE_CODES = ("balanced", "balanced-redundant", "balanced-complementary")


def notes(case: Case, found: Judgement, accuracy: Quantity | None, *, is_calm: bool) -> list[str]:
    """Give everything that a reader of the verdict should know beside it."""
    told = [
        f"{joined(names)}: {code} ({page[:1].lower()}{page[1:].rstrip('.')})."
        for (code, names), page in found.also
    ]
    told += _of_memory(case, found)
    told += _of_basis(case, found)
    told += _of_resampling(case)
    if case.task == "regression" and case.losses:
        told.append(
            "Overfitting is not judged for a regression: its bound is in units of log(classes), "
            "which a squared error has not."
        )
    told += _of_leader(case, found)
    told += _of_rest(case, found)
    told += _of_interaction(case, found)
    if is_calm and found.severity == "warn":
        told.append(
            f"Less than {limits.STAKE:.2f} is at stake, of the score and when a modality is "
            "missing, so this is no alarm."
        )
    if accuracy is not None and accuracy.estimate.low > limits.STAKE:
        told.append(
            f"Answers without joint training ({accuracy.source}) score "
            f"{accuracy.value:.2f} above the fused model."
        )
    return told


def _of_memory(case: Case, found: Judgement) -> list[str]:
    """Say which other modality is learnt by heart."""
    if found.code == "inconclusive":
        return []
    whole = case.whole()
    learnt = [m for m in case.losses if overfit.overfits(whole, m)]
    return [
        f"{m} overfits (validation loss lowest at epoch {case.losses[m].lowest_epoch}), though the "
        "decision does not rest on it."
        for m in learnt
        if not overfit.matters(whole, m) and case.task != "regression"
    ]


def _of_basis(case: Case, found: Judgement) -> list[str]:
    told = []
    if found.code == "inconclusive" and found.runner_up:
        code, names = found.runner_up[0]
        about = f" of {joined(names)}" if names else ""
        told.append(
            f"If the probes were all that the modalities can reach, and the numbers certain, this "
            f"would be {code}{about}."
        )
    if case.basis != "log" or found.code == "one-modality":
        return told
    if found.code in BALANCE_CODES:
        told.append(
            "From the log alone: whether single classes belong to one modality, and what an "
            "encoder could still learn, needs --deep."
        )
    if found.code == "neglected" and not any(case.quantity("gap", m) for m in found.modalities):
        told.append(
            "From the log alone: whether the encoder could also learn more needs a solo run or "
            "--deep."
        )
    if found.code == "harmful":
        told.append(
            "From the log alone: the modality named is the one whose permutation flips most "
            "validation predictions; on which one the answers to train rest needs --deep."
        )
    return told


def _of_resampling(case: Case) -> list[str]:
    kind, num = case.clusters
    if kind == "group":
        return [f"Intervals and confidence from resampling {num} groups of samples."]
    return []


def _of_leader(case: Case, found: Judgement) -> list[str]:
    """Say that one modality leads where the verdict is that this is no imbalance."""
    if found.code not in (*BALANCE_CODES, "class-specific"):
        return []
    bound = limits.dominant_share(len(case.modalities))
    leads = [m for m in case.modalities if (e := case.estimate("share", m)) and e.low > bound]
    return [f"Most of the decision rests on {joined(leads)}."] if leads else []


def _of_rest(case: Case, found: Judgement) -> list[str]:
    """Say which encoders could learn more though no modality dominates the others."""
    if found.code not in (*BALANCE_CODES, "class-specific"):
        return []
    short = {m: gap for m in case.modalities if (gap := case.estimate("gap", m))}
    return [
        f"The encoder of {m} falls {gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}] short of what "
        "it reaches when it is trained alone, though no modality dominates."
        for m, gap in short.items()
        if gap.low > limits.REFERENCE_GAP
    ]


def _of_interaction(case: Case, found: Judgement) -> list[str]:
    gap = case.estimate("synergy")
    if gap is None or found.code == "synergy" or gap.low <= limits.SYNERGY_GAP:
        return []
    return [
        f"{gap.value:.2f} of the fused score is in interactions of the modalities, which methods "
        "with logits per modality do not see."
    ]
