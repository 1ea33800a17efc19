"""Learning from frozen models of one modality: distances to what they say, and their options."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, logsigmoid, mse_loss

from mmtool.config import schema
from mmtool.types import Batch, Modality, TaskKind


class TeacherOptions(schema.Options):
    """Which models teach."""

    teachers: dict[str, str] = Field(default_factory=dict)
    """Teacher of each modality: "auto" trains this recipe with that modality alone first, or finds
    it trained; else a run or a file from mmtool export. A modality not named here is "auto"."""


def present(batch: Batch, modality: Modality, values: Tensor) -> Tensor:
    """Give values of the samples that have a modality and 0 for the others; [batch]."""
    return torch.where(batch.present[:, batch.modalities.index(modality)], values, 0.0)


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Give the mean squared difference over dimensions; [batch, dim] twice -> [batch]."""
    return mse_loss(student.float(), teacher.float(), reduction="none").mean(1)


def answer_distance(
    student: Tensor, teacher: Tensor, task: TaskKind, temperature: float = 1.0
) -> Tensor:
    """Give how far answers are from the teacher's; [batch, class] twice -> [batch].

    T^2 KL(teacher || student) of the probabilities at temperature T, for a multi-label task the
    mean over the labels of that of yes and no; the squared difference for a regression.
    """
    if task == "regression":
        return feature_distance(student, teacher)
    z, t = student.float() / temperature, teacher.float() / temperature
    if task == "multi_label":
        z, t = torch.stack([z, -z], -1), torch.stack([t, -t], -1)
        log_p, log_q = logsigmoid(z), logsigmoid(t)
        divergence = kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1).mean(1)
    else:
        log_p, log_q = log_softmax(z, 1), log_softmax(t, 1)
        divergence = kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)
    return divergence * temperature**2
