"""Which time steps of a padded batch are real, and means over those alone."""

import torch
from torch import Tensor


def real_steps(lengths: Tensor, num_steps: int) -> Tensor:
    """Give a mask of the steps before each sample's length; [batch, time] bool."""
    return torch.arange(num_steps, device=lengths.device) < lengths.unsqueeze(1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked-in steps in float32, zero where there is none; [batch, dim]."""
    kept = torch.where(mask.unsqueeze(2), values.float(), 0.0)  # [batch, time, dim]
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp_min(1).float()
