"""What an evaluation counts as right, whatever the task: one score per sample set, higher better.

    single_label   accuracy         answer: the class of the largest logit
    multi_label    label_accuracy   answer: yes or no for each class, sigmoid above 0.5; the share
                                    of right ones over samples and classes
    regression     r2               answer: the outputs; 1 - squared error / squared error of the
                                    mean of these samples, the mean of it over outputs; a constant
                                    target gives 1 where it is met exactly and 0 otherwise

How far an answer moves when an input is swapped is a rate for classes (the share of answers that
flip) and, for a regression, a distance in units of the target's deviation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmtool.types import TaskKind

METRICS: Mapping[TaskKind, str] = {
    "single_label": "accuracy",
    "multi_label": "label_accuracy",
    "regression": "r2",
}
"""Name of the score that `acc` holds in an `epoch` event."""


@dataclass(frozen=True, slots=True)
class Score:
    """A score with what each sample adds to it, so that differences keep their pairing."""

    value: float
    influence: Tensor  # [sample]; its deviation over sqrt(sample) is the standard error

    def __sub__(self, other: "Score") -> "Score":
        return Score(self.value - other.value, self.influence - other.influence)

    @property
    def error(self) -> float:
        """Standard error."""
        n = len(self.influence)
        return float(self.influence.std(correction=0)) / n**0.5 if n else float("nan")


def mean_score(scores: list[Score]) -> Score:
    """Give the mean of several scores of the same samples."""
    influence = torch.stack([score.influence for score in scores]).mean(0)
    return Score(float(np.mean([score.value for score in scores])), influence)


def answers(logits: Tensor, task: TaskKind) -> Tensor:
    """Give what the model says: a class [sample], or one answer for each output."""
    if task == "single_label":
        return logits.argmax(1)
    return logits > 0 if task == "multi_label" else logits.double()


def score(answer: Tensor, label: Tensor, task: TaskKind) -> Score:
    """Give the score of answers."""
    if len(answer) == 0:
        return Score(float("nan"), torch.zeros(0, dtype=torch.float64))
    if task == "regression":
        return _explained(answer, label.double())
    right = answer == (label if task == "single_label" else label > 0.5)
    each = right.double() if right.dim() == 1 else right.double().mean(1)
    mean = each.mean()
    return Score(float(mean), each - mean)


def moved(before: Tensor, after: Tensor, label: Tensor, task: TaskKind) -> Score:
    """Give how far answers moved, as the mean over samples."""
    if task == "regression":
        deviation = label.double().std(0, correction=0)
        unit = torch.where(deviation > 0, deviation, 1.0)
        each = ((after - before).abs() / unit).mean(1)
    else:
        each = (after != before).double()
        each = each if each.dim() == 1 else each.mean(1)
    mean = each.mean()
    return Score(float(mean), each - mean)


def _explained(answer: Tensor, target: Tensor) -> Score:
    """R^2, and how each sample pulls at it: the influence function of a ratio of two means."""
    wrong = (answer - target).square()  # [sample, output]
    spread = (target - target.mean(0)).square()
    a, b = wrong.mean(0), spread.mean(0)
    has_spread = b > 0
    safe = torch.where(has_spread, b, 1.0)
    value = torch.where(has_spread, 1 - a / safe, (a == 0).double())
    pull = (-(wrong - a) + a / safe * (spread - b)) / safe
    return Score(float(value.mean()), torch.where(has_spread, pull, 0.0).mean(1))


def extra_scores(logits: Tensor, label: Tensor, task: TaskKind) -> dict[str, float]:
    """Give further scores of the fused model that a task is usually reported with."""
    if task == "single_label" or len(logits) == 0:
        return {}
    if task == "multi_label":
        wanted = label > 0.5
        precision = average_precision(logits.cpu().numpy(), wanted.cpu().numpy())
        return {"f1_macro": _macro_f1(logits > 0, wanted), "map": precision}
    error = logits.double() - label.double()
    return {
        "mae": float(error.abs().mean()),
        "pearson": _pearson(logits.double(), label.double()),
    }


def _macro_f1(said: Tensor, wanted: Tensor) -> float:
    """Mean F1 over the classes that are said or wanted at least once."""
    both = (said & wanted).sum(0).double()
    either = said.sum(0).double() + wanted.sum(0).double()
    known = either > 0
    return float((2 * both / either.clamp_min(1))[known].mean()) if bool(known.any()) else 1.0


def average_precision(scores: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over classes of the area under precision over recall; classes nobody has are left out.

    Samples of equal score count as found together.
    """
    found = []
    for column in np.flatnonzero(wanted.any(0)):
        order = np.argsort(-scores[:, column], kind="stable")
        ranked, hits = scores[order, column], np.cumsum(wanted[order, column])
        last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
        hits, places = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
        found.append(float(np.sum(np.diff(hits, prepend=0) * hits / places) / hits[-1]))
    return float(np.mean(found)) if found else float("nan")


def _pearson(one: Tensor, other: Tensor) -> float:
    """Mean correlation over outputs; 0 where one side is constant."""
    one, other = one - one.mean(0), other - other.mean(0)
    length = one.norm(dim=0) * other.norm(dim=0)
    ratio = (one * other).sum(0) / torch.where(length > 0, length, 1.0)
    return float(torch.where(length > 0, ratio, 0.0).mean())
