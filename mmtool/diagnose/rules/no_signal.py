"""The fused model is not better than naming the most frequent class.

Fires when the lower end of the validation accuracy's interval does not exceed chance, the majority
rate of the validation split. With several labels chance is the more frequent answer to each of
them; in a regression it is the mean of the validation split, whose R^2 is 0. Balancing has no
meaning before this is solved: either the model memorises, or the fusion cannot express how the
modalities interact, or inputs and labels are not aligned.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.names import (
    constant_answer,
    constant_answer_key,
    in_words,
    score_key,
)
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument
from mmtool.diagnose.tables import number, rows

NEEDS = ("epochs.acc",)
ORDER = 10
MEMORISED = 0.3


def check(facts: Facts) -> Finding | None:
    """Say that the validation score has not risen above that of a constant answer."""
    balance = facts.balance
    if balance is None or balance.fused is None or balance.chance is None:
        return None
    if balance.n < limits.MIN_VAL_SAMPLES or balance.num_epochs < limits.MIN_EPOCHS:
        return None
    if balance.fused.low > balance.chance:
        return None
    train = next(iter(rows(facts.run.tables.epochs, split="train", epoch=balance.epoch)), {})
    acc_train = number(train, "acc")
    memorises = acc_train is not None and acc_train > balance.chance + MEMORISED
    recipe, score = recipe_argument(facts.run), score_key(balance.metric)
    advice = (
        "the training samples are learnt: the model memorises, or the fusion cannot express how "
        f"the modalities interact. See mmtool list fusion, then:\nmmtool train {recipe} "
        "-s model.fusion=NAME"
        if memorises
        else f"check labels and learning rate first:\nmmtool train {recipe} -s train.lr=1e-3"
    )
    return Finding(
        rule="no-signal",
        severity="warn",
        what=(
            f"validation {in_words(balance.metric)} {balance.fused.value:.2f} is not above "
            f"{constant_answer(balance.metric)} ({balance.chance:.2f}) "
            f"after {balance.num_epochs} epochs"
        ),
        evidence={
            "epoch": balance.epoch,
            "split": balance.split,
            "n": balance.n,
            score: balance.fused.value,
            f"{score}_ci95": [balance.fused.low, balance.fused.high],
            constant_answer_key(balance.metric): balance.chance,
            f"{score}_train": acc_train,
        },
        advice=advice,
    )
