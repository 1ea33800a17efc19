"""An mlp whose last ReLU never opens: its bias starts far below zero and gets no gradient."""

from typing import ClassVar

from torch import Tensor, nn

from mmtool.models.encoders import mlp
from mmtool.types import InputKind, InputSpec

_NEVER_OPENS = -50.0


class Options(mlp.Options):
    """Width of the layers."""


class Encoder(nn.Module):
    """Fully connected layers of which the last is dead."""

    accepts: ClassVar[frozenset[InputKind]] = mlp.Encoder.accepts

    def __init__(self, options: Options, spec: InputSpec) -> None:
        super().__init__()
        self.inner = mlp.Encoder(options, spec)
        self.out_dim = self.inner.out_dim
        last = [layer for layer in self.inner.layers if isinstance(layer, nn.Linear)][-1]
        nn.init.constant_(last.bias, _NEVER_OPENS)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give zeros, one feature per sample; [batch, ...] -> [batch, out_dim]."""
        return self.inner(x, lengths)
