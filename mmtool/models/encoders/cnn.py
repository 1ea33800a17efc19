"""Small convolutional encoder for spectrograms and frames, for quick experiments on a CPU.

Three blocks of 3x3 convolution, normalisation and ReLU with widths w, 2w and 4w, 2x2 maximum
pooling between them and a global average at the end; the feature has 4w numbers. Group
normalisation is the default because it treats every sample alone: any number of ranks gives the
same result. Batch normalisation learns in far fewer epochs, from the statistics of each rank's
micro-batch.

Spectrogram [batch, 1, mel, time]; frames [batch, channel, height, width] or [batch, frame, channel,
height, width], whose features are averaged over the frames.
"""

from typing import ClassVar, Literal

from pydantic import model_validator
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.errors import RequestError
from mmtool.types import InputKind, InputSpec


class Options(schema.Options):
    """Size of the network."""

    width: schema.Count = 16
    """Channels of the first block; the second has twice, the third four times as many."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation after each convolution."""
    groups: schema.Count = 4
    """Groups of the group normalisation; must divide the width."""
    first_stride: schema.Count = 1
    """Stride of the first convolution; 2 quarters the cost of large inputs."""

    @model_validator(mode="after")
    def _groups_divide_the_width(self) -> "Options":
        if self.norm == "group" and self.width % min(self.groups, self.width):
            raise ValueError(f"groups = {self.groups} does not divide width = {self.width}")
        return self


class Encoder(nn.Module):
    """Three convolutional blocks and a global average."""

    accepts: ClassVar[frozenset[InputKind]] = frozenset({"spectrogram", "frames"})
    folds_frames: ClassVar[bool] = True

    def __init__(self, options: Options, spec: InputSpec) -> None:
        super().__init__()
        _refuse_small(spec, 3 * options.first_stride + 1)
        width = options.width
        channels = (spec.shape[-3], width, 2 * width, 4 * width)
        blocks: list[nn.Module] = []
        for number in range(3):
            stride = options.first_stride if number == 0 else 1
            blocks += _block(channels[number], channels[number + 1], stride, options)
            if number < 2:
                blocks.append(nn.MaxPool2d(2))
        self.stage_dims = channels[1:]
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.out_dim = channels[-1]

    def stages(self) -> list[nn.Module]:
        """Give the three blocks, each with the pooling before it."""
        ends = [number for number, layer in enumerate(self.blocks) if isinstance(layer, nn.ReLU)]
        starts = [0, *(end + 1 for end in ends)]
        return [self.blocks[start : end + 1] for start, end in zip(starts, ends, strict=False)]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give one feature per sample; [batch, 4 * width]."""
        del lengths  # spectrograms and frames have a fixed size
        folded = x.flatten(0, 1) if x.dim() == 5 else x
        features: Tensor = self.pool(self.blocks(folded)).flatten(1)
        return features.unflatten(0, x.shape[:2]).mean(1) if x.dim() == 5 else features


def _refuse_small(spec: InputSpec, smallest: int) -> None:
    height, width = spec.shape[-2:]
    if min(height, width) < smallest:
        raise RequestError(
            f"inputs of {height} x {width} are too small for the encoder cnn",
            why=f"its stride and two poolings need {smallest} values along each side",
            fix="use the encoder mlp, or a smaller first_stride",
        )


def _block(inputs: int, outputs: int, stride: int, options: Options) -> list[nn.Module]:
    norm: nn.Module = (
        nn.GroupNorm(min(options.groups, outputs), outputs)
        if options.norm == "group"
        else nn.BatchNorm2d(outputs)
    )
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, norm, nn.ReLU(inplace=True)]
