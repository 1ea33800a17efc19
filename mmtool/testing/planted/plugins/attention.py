"""Let a learned query attend to one token per modality, then classify with a hidden layer.

t_m = P_m f_m + e_m;   h = q + attention(q, [t_1 .. t_M]);   z = W2 relu(W1 h + b1) + b2
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.types import Modality, sorted_modalities


class Options(schema.Options):
    """Width of the tokens."""

    dim: schema.Count = 32
    """Size of a token and of the hidden layer."""
    heads: schema.Count = 4
    """Heads of the attention; must divide the size."""


class Fusion(nn.Module):
    """Attention of one query over the modalities."""

    additive: ClassVar[bool] = False

    def __init__(self, options: Options, dims: Mapping[Modality, int], num_classes: int) -> None:
        super().__init__()
        self.modalities = sorted_modalities(dims)
        dim = options.dim
        self.project = nn.ModuleDict({m: nn.Linear(dims[m], dim) for m in self.modalities})
        self.modality = nn.Parameter(torch.randn(len(self.modalities), dim))
        self.query = nn.Parameter(torch.randn(1, 1, dim))
        self.attention = nn.MultiheadAttention(dim, options.heads, batch_first=True)
        self.hidden = nn.Linear(dim, 2 * dim)
        self.classifier = nn.Linear(2 * dim, num_classes)

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        tokens = torch.stack([self.project[m](features[m]) for m in self.modalities], dim=1)
        tokens = tokens + self.modality
        query = self.query.expand(len(tokens), -1, -1)
        heard, _ = self.attention(query, tokens, tokens, need_weights=False)
        return self.classifier(torch.relu(self.hidden((query + heard).squeeze(1))))
