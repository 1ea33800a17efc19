"""Scale and shift one modality's feature by the others (FiLM), then classify.

    gamma, beta = U [f_j : j != c] + u          c is the conditioned modality
    z = W (gamma * f_c + beta) + b

Perez et al., "FiLM: visual reasoning with a general conditioning layer", AAAI 2018. For more than
two modalities the condition is the concatenation of all others; for two this is the paper's layer,
and with one modality the feature is classified as it is. Not additive: logits per modality come
from heads or ablation. OGM-GE's released code slices the output layer instead, which cannot work.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.models.fusion._choice import choose_modality
from mmtool.models.linear import linear
from mmtool.types import Modality, sorted_modalities


class Options(schema.Options):
    """Which modality is conditioned."""

    modality: str | None = None
    """Modality that is scaled and shifted by the others; unset takes the first by name."""


class Fusion(nn.Module):
    """Feature-wise linear modulation of one modality by the others."""

    additive: ClassVar[bool] = False

    def __init__(self, options: Options, dims: Mapping[Modality, int], num_classes: int) -> None:
        super().__init__()
        self.conditioned = choose_modality(options.modality, dims, "model.fusion.modality")
        self.others = tuple(m for m in sorted_modalities(dims) if m != self.conditioned)
        dim = dims[self.conditioned]
        self.condition = linear(sum(dims[m] for m in self.others), 2 * dim) if self.others else None
        self.classifier = linear(dim, num_classes)

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        feature = features[self.conditioned]
        if self.condition is not None:
            condition = self.condition(torch.cat([features[m] for m in self.others], dim=1))
            gamma, beta = condition.chunk(2, dim=1)
            feature = gamma * feature + beta
        return self.classifier(feature)
