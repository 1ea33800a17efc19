"""What a model is asked for: loss and score of each sample, whatever the task.

    single_label   loss: cross entropy                       score: softmax at the true class
    multi_label    loss: mean binary cross entropy           score: mean sigmoid at the true answers
    regression     loss: mean squared error over outputs     score: 1 / (1 + loss)

A score lies in [0, 1] and grows with how well a modality does, so that formulas made for true-class
probabilities carry over. Everything is computed at least in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from mmtool.types import Batch, Modality, Outputs, TaskKind


def sample_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Give the loss of each sample of a batch; [batch]."""
    return task_loss(logits, batch.label, batch.task)


def own_losses(
    outputs: Outputs, batch: Batch, modalities: Sequence[Modality] | None = None
) -> dict[Modality, Tensor]:
    """Give the loss of each modality's logits, zero for samples that lack it; [batch]."""
    chosen = batch.modalities if modalities is None else modalities
    return {
        m: torch.where(
            batch.present[:, batch.modalities.index(m)],
            sample_loss(outputs.unimodal[m], batch),
            0.0,
        )
        for m in chosen
    }


def sample_score(logits: Tensor, batch: Batch) -> Tensor:
    """Give how well each sample of a batch is answered, from 0 to 1; [batch]."""
    return task_score(logits, batch.label, batch.task)


def task_loss(logits: Tensor, label: Tensor, task: TaskKind) -> Tensor:
    """Give the loss of each sample; [batch]."""
    exact = _exact(logits)
    if task == "single_label":
        return torch.nn.functional.cross_entropy(exact, label, reduction="none")
    if task == "multi_label":
        target = label.to(exact.dtype)
        return binary_cross_entropy_with_logits(exact, target, reduction="none").mean(1)
    return (exact - label).square().mean(1)


def task_score(logits: Tensor, label: Tensor, task: TaskKind) -> Tensor:
    """Give how well each sample is answered, from 0 to 1; [batch]."""
    exact = _exact(logits)
    if task == "single_label":
        return exact.softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)
    if task == "multi_label":
        right = exact.sigmoid()
        return torch.where(label > 0.5, right, 1 - right).mean(1)
    return 1 / (1 + task_loss(logits, label, task))


def _exact(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
