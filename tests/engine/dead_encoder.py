"""An encoder whose last ReLU never opens, as a recipe names it by its path."""

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.types import InputKind, InputSpec

BIAS = -50.0


class Options(schema.Options):
    """None."""


class Encoder(nn.Module):
    """One layer with a bias far below zero."""

    accepts: ClassVar[frozenset[InputKind]] = frozenset({"spectrogram", "frames"})
    folds_frames: ClassVar[bool] = False

    def __init__(self, options: Options, spec: InputSpec) -> None:
        super().__init__()
        del options
        self.layer = nn.Linear(prod(spec.shape), 8)
        torch.nn.init.constant_(self.layer.bias, BIAS)
        self.out_dim = 8

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give zeros; [batch, ...] -> [batch, 8]."""
        del lengths
        return torch.relu(self.layer(x.flatten(1)))
