"""Let one modality gate the others, then classify.

    h_m = V_m f_m + v_m
    z = W (sigmoid(h_g) * sum_{j != g} h_j) + b          g is the gating modality

Kiela et al., "Efficient large-scale multi-modal classification", AAAI 2018, as OGM-GE uses it for
two modalities. For more than two the gate acts on the sum of all others, which leaves the formula
for two as it is; with one modality its hidden layer is classified. Not additive: logits per
modality come from heads or ablation.
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
    """Which modality gates, and how wide the hidden layers are."""

    modality: str | None = None
    """Modality whose sigmoid gates the others; unset takes the first by name."""
    dim: schema.Count = 512
    """Width of the hidden layers."""


class Fusion(nn.Module):
    """One modality gates the sum of the others."""

    additive: ClassVar[bool] = False

    def __init__(self, options: Options, dims: Mapping[Modality, int], num_classes: int) -> None:
        super().__init__()
        self.gating = choose_modality(options.modality, dims, "model.fusion.modality")
        self.modalities = sorted_modalities(dims)
        self.hidden = nn.ModuleDict({m: linear(dims[m], options.dim) for m in self.modalities})
        self.classifier = linear(options.dim, num_classes)

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        hidden = {m: self.hidden[m](features[m]) for m in self.modalities}
        gate = hidden.pop(self.gating)
        if not hidden:
            return self.classifier(gate)
        return self.classifier(torch.sigmoid(gate) * torch.stack(list(hidden.values())).sum(0))
