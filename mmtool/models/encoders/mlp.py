"""Flatten an input of fixed size and pass it through fully connected layers.

Each hidden layer is linear, ReLU and dropout; the last one is the feature. Small and fast: for
features that were extracted elsewhere, short series, and trying a recipe on a laptop.
"""

from itertools import pairwise
from math import prod
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.errors import RequestError
from mmtool.models.linear import linear
from mmtool.types import InputKind, InputSpec


class Options(schema.Options):
    """Width of the layers."""

    hidden: Annotated[tuple[schema.Count, ...], Field(min_length=1)] = (128, 64)
    """Sizes of the hidden layers; the last is the size of the feature."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of activations dropped after each hidden layer while training."""


class Encoder(nn.Module):
    """Fully connected layers on the flattened input."""

    accepts: ClassVar[frozenset[InputKind]] = frozenset({"wave", "spectrogram", "frames", "series"})
    folds_frames: ClassVar[bool] = False

    def __init__(self, options: Options, spec: InputSpec) -> None:
        super().__init__()
        if spec.ragged:
            raise RequestError(
                f"encoder 'mlp' needs inputs of one size, and clips of this {spec.kind} differ",
                why="its first layer has one weight per input value",
                fix='name = "series" under the encoder of this modality',
            )
        sizes = (prod(spec.shape), *options.hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for num_inputs, num_outputs in pairwise(sizes):
            layers += [linear(num_inputs, num_outputs), nn.ReLU(), nn.Dropout(options.dropout)]
        self.layers = nn.Sequential(*layers)
        self.out_dim = sizes[-1]
        self.stage_dims = sizes[1:]

    def stages(self) -> list[nn.Module]:
        """Give each hidden layer, the first with the flattening before it."""
        ends = range(4, len(self.layers) + 1, 3)
        return [self.layers[start:end] for start, end in zip((0, *ends), ends, strict=False)]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give one feature per sample; [batch, ...] -> [batch, out_dim]."""
        del lengths
        return self.layers(x)
