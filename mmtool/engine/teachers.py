"""Frozen unimodal models that run beside the one that is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from mmtool.models.multimodal import MultimodalModel
from mmtool.types import Batch, Modality


class Answers(TypedDict):
    """Fields of `Outputs` that teachers fill."""

    teacher_features: dict[Modality, Tensor]
    teacher_logits: dict[Modality, Tensor]


@dataclass(frozen=True, slots=True)
class Teachers:
    """One trained unimodal model per modality, or none at all."""

    models: Mapping[Modality, MultimodalModel] = field(default_factory=dict)

    @torch.no_grad()
    def answers(self, batch: Batch) -> Answers:
        """Give features and logits of every teacher on a batch, without gradient."""
        found: Answers = {"teacher_features": {}, "teacher_logits": {}}
        for modality, model in self.models.items():
            features = model.encode(batch.alone(modality))
            found["teacher_features"][modality] = features[modality].float()
            found["teacher_logits"][modality] = model.fuse(features).float()
        return found
