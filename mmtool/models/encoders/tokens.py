"""Embed token ids, average over the tokens of a sample and apply a linear layer.

    f = W mean_t E[x_t] + b

The mean leaves out padding: steps past the sample's length, or id 0 where lengths are not given. A
bag of words, blind to order; a baseline for text, not a language model.
"""

from typing import ClassVar

from torch import Tensor, nn

from mmtool.config import schema
from mmtool.models.encoders._masking import masked_mean, real_steps
from mmtool.models.linear import linear
from mmtool.types import InputKind, InputSpec

_PADDING = 0


class Options(schema.Options):
    """Vocabulary and widths."""

    num_tokens: schema.Count = 32768
    """Size of the vocabulary, padding included; ids at or above it share the last entry."""
    embedding_dim: schema.Count = 128
    """Size of a token's embedding."""
    dim: schema.Count = 128
    """Size of the feature."""


class Encoder(nn.Module):
    """Mean of token embeddings."""

    accepts: ClassVar[frozenset[InputKind]] = frozenset({"tokens"})

    def __init__(self, options: Options, spec: InputSpec) -> None:
        super().__init__()
        del spec
        self.embedding = nn.Embedding(
            options.num_tokens, options.embedding_dim, padding_idx=_PADDING
        )
        self.projection = linear(options.embedding_dim, options.dim)
        self.out_dim = options.dim

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give one feature per sample; [batch, time] ids -> [batch, out_dim]."""
        mask = x != _PADDING if lengths is None else real_steps(lengths, x.shape[1])
        ids = x.long().clamp(0, self.embedding.num_embeddings - 1)
        return self.projection(masked_mean(self.embedding(ids), mask))
