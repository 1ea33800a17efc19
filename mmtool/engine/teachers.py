"""Frozen unimodal models that run beside the one that is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from mmtool.engine.precision import Precision
from mmtool.methods._base import BalancingMethod
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import Batch, Modality, Outputs


class Answers(TypedDict):
    """Fields of `Outputs` that teachers fill."""

    teacher_features: dict[Modality, Tensor]
    teacher_logits: dict[Modality, Tensor]


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model of one modality in evaluation mode, and how it predicts."""

    model: MultimodalModel
    method: BalancingMethod


@dataclass(frozen=True, slots=True)
class Teachers:
    """One trained unimodal model per modality, or none at all.

    They are no part of the model that is trained: neither of its parameter groups, nor of what is
    synchronised between ranks, nor of its checkpoints.
    """

    members: Mapping[Modality, Teacher] = field(default_factory=dict)
    precision: Precision | None = None

    @torch.no_grad()
    def answers(self, batch: Batch) -> Answers:
        """Give features and logits of every teacher on a batch, without gradient."""
        found: Answers = {"teacher_features": {}, "teacher_logits": {}}
        if self.precision is None:
            return found
        for modality, teacher in self.members.items():
            own = batch.alone(modality)
            with self.precision.autocast():
                features = teacher.model.encode(own)
                logits = teacher.model.fuse(features)
                unimodal = teacher.model.unimodal(features)
            outputs = Outputs(features, logits, unimodal, present=own.present)
            found["teacher_features"][modality] = features[modality].float()
            found["teacher_logits"][modality] = teacher.method.predict(outputs).float()
        return found
