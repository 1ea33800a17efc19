"""A small transformer over the steps of a series of one length.

h = x W + position;  h <- h + attention(norm(h));  h <- h + mlp(norm(h))
f = relu(V [h_1; ...; h_T])
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.types import InputKind, InputSpec


class Options(schema.Options):
    """Width of the tokens and of the feature."""

    width: schema.Count = 32
    """Size of a token."""
    heads: schema.Count = 4
    """Heads of the attention; must divide the width."""
    dim: schema.Count = 32
    """Size of the feature."""
    last_bias: float = 0.0
    """Initial bias of the last layer; far below zero its ReLU never opens."""


class Encoder(nn.Module):
    """One transformer block."""

    accepts: ClassVar[frozenset[InputKind]] = frozenset({"series"})

    def __init__(self, options: Options, spec: InputSpec) -> None:
        super().__init__()
        steps, channels = spec.shape
        width = options.width
        self.embed = nn.Linear(channels, width)
        self.position = nn.Parameter(0.5 * torch.randn(steps, width))
        self.before_attention = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, options.heads, batch_first=True)
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.last = nn.Linear(steps * width, options.dim)
        if options.last_bias:
            nn.init.constant_(self.last.bias, options.last_bias)
        self.out_dim = options.dim

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give one feature per sample; [batch, time, channel] -> [batch, dim]."""
        del lengths
        tokens = self.embed(x) + self.position
        heard = self.before_attention(tokens)
        tokens = tokens + self.attention(heard, heard, heard, need_weights=False)[0]
        tokens = tokens + self.mix(tokens)
        return torch.relu(self.last(tokens.flatten(1)))
