"""Convolutions over series that are shorter than their own strides."""

import pytest
import torch

from mmtool.models.encoders.series import Encoder, Options
from mmtool.types import InputSpec


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_bfloat16_gradients_of_very_short_series_are_those_of_float32(num_steps):
    torch.manual_seed(0)
    encoder = Encoder(Options(stride=2), InputSpec("series", (3,), ragged=True))
    x, lengths = torch.randn(2, num_steps, 3), torch.tensor([num_steps, 1])

    def gradients(*, is_half):
        encoder.zero_grad()
        # Freed memory that is not zero shows a kernel that leaves its result as it found it.
        stale = [torch.full((64 * 64 * 5,), 1e30, dtype=torch.bfloat16) for _ in range(8)]
        del stale
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            encoder(x, lengths).float().square().sum().backward()
        return [p.grad.clone() for p in encoder.parameters()]

    for half, whole in zip(gradients(is_half=True), gradients(is_half=False), strict=True):
        assert (half - whole).norm() <= 0.1 * whole.norm() + 1e-3
