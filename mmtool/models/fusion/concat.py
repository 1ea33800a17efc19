"""Concatenate the features of all modalities and classify with one linear layer.

    z = W [f_1; ...; f_M] + b = sum_m (W_m f_m + b / M)

The last form is how logits per modality are obtained (`decompose`): the columns W_m that read f_m,
with an equal share of the bias, so that they add up to the fused logits for any M.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as apply_linear

from mmtool.config import schema
from mmtool.models.linear import linear
from mmtool.types import Modality, sorted_modalities


class Options(schema.Options):
    """Concatenation takes no options."""


class Fusion(nn.Module):
    """One linear layer over the concatenated features."""

    additive: ClassVar[bool] = True

    def __init__(self, options: Options, dims: Mapping[Modality, int], num_classes: int) -> None:
        super().__init__()
        del options
        self.modalities = sorted_modalities(dims)
        self.dims = [dims[m] for m in self.modalities]
        self.classifier = linear(sum(self.dims), num_classes)

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        return self.classifier(torch.cat([features[m] for m in self.modalities], dim=1))

    def split(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Give logits per modality that add up to the fused ones; [batch, class] each."""
        columns = self.classifier.weight.split(self.dims, dim=1)
        bias = self.classifier.bias / len(self.modalities)
        return {
            m: apply_linear(features[m], weight, bias)
            for m, weight in zip(self.modalities, columns, strict=True)
        }
