"""Autocast and loss scaling, without reading a value back to the host."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_FIRST_SCALE = 2.0**15
_GROWTH_AFTER_STEPS = 2000
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for bf16 and fp16; for fp16 also a loss scale that adapts on the device."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self._device = device
        self.scales_loss = name == "fp16"
        self.scale = torch.full((), _FIRST_SCALE if self.scales_loss else 1.0, device=device)
        self._good_steps = torch.zeros((), device=device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Give the context in which the forward pass runs."""
        if self.name not in _TYPES:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=_TYPES[self.name])

    def scaled(self, loss: Tensor) -> Tensor:
        """Give the loss as it is to be differentiated."""
        return loss * self.scale if self.scales_loss else loss

    def unscale_(self, gradients: list[Tensor]) -> None:
        """Undo the scale on reduced gradients."""
        if self.scales_loss and gradients:
            torch._foreach_mul_(gradients, self.scale.reciprocal())

    def update(self, is_bad: Tensor) -> None:
        """Halve the scale after a non-finite step, double it after many good ones."""
        if not self.scales_loss:
            return
        good = torch.where(is_bad > 0, 0.0, self._good_steps + 1)
        grown = torch.where(good >= _GROWTH_AFTER_STEPS, self.scale * 2, self.scale)
        self.scale = torch.where(is_bad > 0, self.scale * 0.5, grown)
        self._good_steps = torch.where(good >= _GROWTH_AFTER_STEPS, 0.0, good)

    def state_dict(self) -> dict[str, Tensor]:
        """Give the state a resumed run needs."""
        return {"scale": self.scale, "good_steps": self._good_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self.scale = state["scale"].to(self._device)
        self._good_steps = state["good_steps"].to(self._device)
