"""Classify each modality with its own linear layer and add the logits.

    z = sum_m (W_m f_m + b_m)

Logits per modality keep their whole bias, so that they add up to the fused logits; OGM-GE's
released code keeps it while training and halves it while validating.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.models.linear import linear
from mmtool.types import Modality, sorted_modalities


class Options(schema.Options):
    """The sum takes no options."""


class Fusion(nn.Module):
    """One linear layer per modality; their outputs are added."""

    additive: ClassVar[bool] = True

    def __init__(self, options: Options, dims: Mapping[Modality, int], num_classes: int) -> None:
        super().__init__()
        del options
        self.modalities = sorted_modalities(dims)
        self.classifiers = nn.ModuleDict({m: linear(dims[m], num_classes) for m in self.modalities})

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        return torch.stack(list(self.split(features).values())).sum(0)

    def split(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Give logits per modality that add up to the fused ones; [batch, class] each."""
        return {m: self.classifiers[m](features[m]) for m in self.modalities}
