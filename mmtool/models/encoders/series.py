"""Convolve a time series of any length and average over its real steps.

Each layer is a strided 1-d convolution, layer normalisation over channels and ReLU; the feature is
the mean over time. Padding is masked out before every layer and the normalisation looks at one step
at a time, so a clip's feature depends neither on how far it was padded nor on the clips beside it.
A waveform is read as a series of one channel.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.models.encoders._masking import masked_mean, real_steps
from mmtool.types import InputKind, InputSpec


class Options(schema.Options):
    """Widths and steps of the convolutions."""

    width: schema.Count = 64
    """Channels of each layer, and size of the feature."""
    layers: schema.Count = 3
    """Number of convolutions."""
    kernel: schema.Count = 5
    """Time steps seen by each convolution."""
    stride: schema.Count = 2
    """Time steps between two outputs of each convolution."""


class Encoder(nn.Module):
    """A stack of 1-d convolutions with masked mean pooling."""

    accepts: ClassVar[frozenset[InputKind]] = frozenset({"series", "wave"})

    def __init__(self, options: Options, spec: InputSpec) -> None:
        super().__init__()
        is_single = spec.kind == "wave" or (not spec.ragged and len(spec.shape) == 1)
        num_channels = 1 if is_single else spec.shape[-1]
        self.kernel, self.stride = options.kernel, options.stride
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        width = options.width
        for _ in range(options.layers):
            convolution = nn.Conv1d(
                num_channels, width, options.kernel, options.stride, padding=options.kernel // 2
            )
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            self.convolutions.append(convolution)
            self.norms.append(nn.LayerNorm(width))
            num_channels = width
        self.out_dim = width

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give one feature per sample; [batch, time(, channel)] -> [batch, out_dim]."""
        if x.dim() == 2:
            x = x.unsqueeze(2)
        if lengths is None:
            lengths = torch.full((x.shape[0],), x.shape[1], device=x.device)
        mask = real_steps(lengths, x.shape[1])
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self._long_enough(torch.where(mask.unsqueeze(2), x, 0.0))
            x = torch.relu(norm(convolution(x.transpose(1, 2)).transpose(1, 2)))
            # Of a convolution padded by half its kernel on both sides.
            steps = (lengths - self.kernel % 2) // self.stride + 1
            lengths = torch.where(lengths > 0, steps, 0)
            mask = real_steps(lengths, x.shape[1])
        return masked_mean(x, mask)

    def _long_enough(self, x: Tensor) -> Tensor:
        """Append zeros up to one stride: oneDNN's bfloat16 weight gradient is garbage below it.

        The convolution pads with the same zeros, and further steps are masked.
        """
        return torch.nn.functional.pad(x, (0, 0, 0, max(0, self.stride - x.shape[1])))
