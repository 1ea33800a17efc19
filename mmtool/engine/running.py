"""Running statistics of normalisation layers: the part of a model that a forward pass changes.

A step that is skipped or repeated must leave them as they were before it.
"""

import torch
from torch import Tensor, nn

from mmtool.engine.distributed import Ranks

_NAMES = ("running_mean", "running_var")


class RunningStatistics:
    """All of a model's running means and variances."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [b for name, b in sorted(model.named_buffers()) if name.endswith(_NAMES)]

    def remember(self) -> Tensor | None:
        """Give a copy, None for a model that has none."""
        return torch.cat([b.reshape(-1) for b in self._buffers]) if self._buffers else None

    @torch.no_grad()
    def restore(self, remembered: Tensor | None, where: Tensor | None = None) -> None:
        """Go back to a copy, or with `where` (0-d bool on the device) only if that is true."""
        if remembered is None:
            return
        now = remembered
        if where is not None:
            now = torch.where(where, remembered, torch.cat([b.reshape(-1) for b in self._buffers]))
        pieces = now.split([b.numel() for b in self._buffers])
        views = [piece.view_as(b) for piece, b in zip(pieces, self._buffers, strict=True)]
        torch._foreach_copy_(self._buffers, views)

    @torch.no_grad()
    def average(self, ranks: Ranks) -> None:
        """Give every rank the mean over the ranks."""
        if ranks.world == 1 or not self._buffers:
            return
        ranks.sum_many_(self._buffers, "running")
        torch._foreach_div_(self._buffers, float(ranks.world))
