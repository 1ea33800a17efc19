"""One modality memorises its training samples.

Compares the negative log-likelihood of a modality's own logits on training and validation samples.
The rule fires when the gap exceeds 0.2 log(classes), the training value is below a quarter of the
validation value, and the validation value has risen more than 3 % above its own minimum. It warns
if the decision relies on that modality, and only informs if it does not. With several labels the
unit is log(2), the loss of an undecided answer.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument
from mmtool.diagnose.tables import Row, number, rows

NEEDS = ("epoch_modalities.nll",)
NOT_FOR = {"regression": "its bound is in units of log(classes), a squared error has no such unit"}


def check(facts: Facts) -> list[Finding]:
    """Name every modality whose validation loss rises while its training loss vanishes."""
    if facts.balance is None or facts.balance.num_epochs < limits.MIN_EPOCHS:
        return []
    return [f for name in facts.run.modalities if (f := _finding(facts, name)) is not None]


def _by_epoch(facts: Facts, modality: str, split: str) -> dict[int, Row]:
    table = facts.run.tables.epoch_modalities
    found = rows(table, split=split, modality=modality)
    return {int(r["epoch"]): r for r in found if number(r, "nll") is not None}


def _finding(facts: Facts, name: str) -> Finding | None:
    train, val = _by_epoch(facts, name, "train"), _by_epoch(facts, name, "val")
    common = sorted(set(train) & set(val))
    if len(common) < limits.MIN_EPOCHS:
        return None
    last = common[-1]
    nll_train, nll_val = float(train[last]["nll"]), float(val[last]["nll"])
    best = min(common, key=lambda epoch: float(val[epoch]["nll"]))
    nll_best = float(val[best]["nll"])
    gap_bound = limits.OVERFIT_GAP_LOG_CLASSES * facts.run.log_classes
    overfits = (
        nll_val - nll_train > gap_bound
        and nll_train < limits.OVERFIT_TRAIN_RATIO * nll_val
        and nll_val > limits.OVERFIT_RISE * nll_best
    )
    if not overfits:
        return None
    share = _share(facts, name)
    matters = share is None or share >= 1 / max(len(facts.run.modalities), 1)
    return Finding(
        rule="unimodal-overfit",
        severity="warn" if matters else "info",
        modality=name,
        what=(
            f"{name} overfits: its validation loss was lowest at epoch {best} ({nll_best:.2f}) and "
            f"is {nll_val:.2f} at epoch {last}, while its training loss fell to {nll_train:.2f}"
        ),
        evidence={
            "epoch": last,
            "split": "train and val",
            "n": facts.balance.n if facts.balance else None,
            "nll_train": nll_train,
            "nll_val": nll_val,
            "nll_val_min": nll_best,
            "nll_val_min_epoch": best,
            "gap": nll_val - nll_train,
            "gap_bound": gap_bound,
            "acc_train": number(train[last], "acc"),
            "acc_val": number(val[last], "acc"),
            "share": share,
        },
        advice=(
            f"stop soon after epoch {best}, or augment {name}; the weights of the best validation "
            f"epoch are kept with select = best:\n"
            f"mmtool train {recipe_argument(facts.run)} -s train.epochs={best + 2} "
            f"-s train.select=best"
        ),
    )


def _share(facts: Facts, name: str) -> float | None:
    for m in facts.balance.modalities if facts.balance else ():
        if m.modality == name and m.share is not None:
            return m.share.value
    return None
