"""How right the answers of single samples are, in the arrays of a deep record."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmtool.engine.scoring import answers
from mmtool.methods._task import task_loss
from mmtool.types import TaskKind

LEAST_GAIN = math.log(1e-6)
NO_ANSWER = -1

Tell = Callable[[str], None]
"""Is told in a sentence what is being measured."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares logits with the labels of some samples."""

    label: Tensor  # [sample], of other tasks than single_label [sample, output]
    task: TaskKind
    variance: Tensor  # [output] of the target on train; of a regression only

    def at(self, places: Tensor) -> "Judge":
        """Give the judge of some of the samples."""
        return Judge(self.label[places], self.task, self.variance)

    def marks(self, logits: Tensor, *, names: str = "right gain answer conf") -> dict[str, Tensor]:
        """Give right, gain, answer and conf of each sample, as far as they exist for the task."""
        wanted = names.split()
        found = {"right": self._right(logits), "gain": self._gain(logits)}
        if self.task == "single_label":
            found["answer"] = logits.argmax(1).int()
        if self.task != "regression":
            found["conf"] = self._confidence(logits)
        return {name: value for name, value in found.items() if name in wanted}

    def _right(self, logits: Tensor) -> Tensor:
        said = answers(logits, self.task)
        if self.task == "regression":
            return (said - self.label.double()).square().sum(1).float()
        right = said == (self.label if self.task == "single_label" else self.label > 0.5)
        return right.float() if right.dim() == 1 else right.float().mean(1)

    def _gain(self, logits: Tensor) -> Tensor:
        if self.task == "regression":
            return -((logits.float() - self.label).square() / self.variance).mean(1)
        gain = -task_loss(logits, self.label, self.task).float()
        return gain.nan_to_num(nan=LEAST_GAIN).clamp_min(LEAST_GAIN)

    def _confidence(self, logits: Tensor) -> Tensor:
        if self.task == "single_label":
            return logits.float().softmax(1).amax(1)
        said = logits.float().sigmoid()
        return torch.maximum(said, 1 - said).mean(1)


def target_variance(label: Tensor, task: TaskKind) -> Tensor:
    """Give the variance of each output of a regression, one where the target is constant."""
    if task != "regression":
        return torch.ones(1, device=label.device)
    variance = label.double().var(0, correction=0)
    return torch.where(variance > 0, variance, 1.0).float()


def masked(values: dict[str, Tensor], known: Tensor) -> dict[str, Tensor]:
    """Mark what is not known of some samples: NaN, and an answer that is no class."""
    return {
        name: torch.where(known, value, NO_ANSWER if name == "answer" else float("nan"))
        for name, value in values.items()
    }


def host(values: Tensor) -> np.ndarray:
    """Give a tensor as an array of the host."""
    return values.detach().cpu().numpy()
