"""Classify every modality with one linear layer for all and average the logits.

    h(f) = W f + b
    z    = mean over m of h(f_m) = sum_m h(f_m) / M

The head of methods that train modalities in turn (mla): all encoders end in one feature space,
whose axes mean the same for each. Logits per modality are h(f_m) / M, so that they add up to the
fused ones and rank the classes as h(f_m) does. The features must be equally wide.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.errors import RequestError
from mmtool.models.linear import linear
from mmtool.types import Modality, sorted_modalities


class Options(schema.Options):
    """The shared head takes no options."""


class Fusion(nn.Module):
    """One linear layer that reads each modality; its outputs are averaged."""

    additive: ClassVar[bool] = True

    def __init__(self, options: Options, dims: Mapping[Modality, int], num_classes: int) -> None:
        super().__init__()
        del options
        self.modalities = sorted_modalities(dims)
        self.classifier = linear(_common_width(dims), num_classes)

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        return torch.stack(list(self.split(features).values())).sum(0)

    def split(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Give logits per modality that add up to the fused ones; [batch, class] each."""
        return {m: self.classifier(features[m]) / len(self.modalities) for m in self.modalities}


def _common_width(dims: Mapping[Modality, int]) -> int:
    """Give the width of all features, or refuse features that differ."""
    widths = set(dims.values())
    if len(widths) > 1:
        found = ", ".join(f"{m}: {dims[m]}" for m in sorted_modalities(dims))
        raise RequestError(
            'fusion "shared" reads every modality with one layer, and their features differ',
            where="model.encoders",
            why=f"features per modality: {found}",
            fix="give the encoders equal widths, or -s model.fusion=sum",
        )
    return widths.pop()
