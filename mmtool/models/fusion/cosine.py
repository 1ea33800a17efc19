"""Add up, over modalities, the cosines between a feature and the weights of each class.

    z_c = s * sum_m cos(f_m, W_m[c])        cos(f, w) = f . w / (|f| |w|)

There is no bias, and every modality's part lies in [-s, s], so that none can outweigh the others by
large features or weights. A feature of length zero has no direction and adds zero. Computed in
float32 also under half precision.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.models.linear import linear
from mmtool.types import Modality, sorted_modalities

# Below this length the gradient of a direction, which grows with 1 / length, is cut off.
_SHORTEST = 1e-6


class Options(schema.Options):
    """How far apart logits may be."""

    scale: schema.Positive = 10.0
    """Largest logit of one modality, s."""


class Fusion(nn.Module):
    """A scaled sum of cosines."""

    additive: ClassVar[bool] = True

    def __init__(self, options: Options, dims: Mapping[Modality, int], num_classes: int) -> None:
        super().__init__()
        self.scale = options.scale
        self.modalities = sorted_modalities(dims)
        self.weights = nn.ParameterDict(
            {m: linear(dims[m], num_classes).weight for m in self.modalities}
        )

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        return torch.stack(list(self.split(features).values())).sum(0)

    def split(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Give logits per modality that add up to the fused ones; [batch, class] each."""
        return {m: self.scale * cosines(features[m], self.weights[m]) for m in self.modalities}


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    """Give the cosine of each feature [batch, dim] and row of `weight` [class, dim]."""
    with torch.autocast(features.device.type, enabled=False):
        return directions(features) @ directions(weight).T


def directions(vectors: Tensor) -> Tensor:
    """Give vectors of length one; one of length zero stays zero."""
    exact = vectors if vectors.dtype == torch.float64 else vectors.float()
    squared = exact.square().sum(1, keepdim=True)
    is_zero = squared < _SHORTEST**2
    return torch.where(is_zero, 0.0, exact) / torch.where(is_zero, 1.0, squared).sqrt()
