"""A method that tries branches and either forgets what they gave or trains on with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtool.config.schema import Options as BaseOptions
from mmtool.methods._base import BalancingMethod, Branch, BranchResult, EpochContext, StepContext
from mmtool.methods._task import sample_loss
from mmtool.types import Batch, Needs, Outputs

SEEN: list[tuple[str | None, int, int, float, list[int]]] = []
"""Branch, epoch, step, first weight and rows of every step of this process."""


class Options(BaseOptions):
    branches: bool = True
    uses_results: bool = False
    spoils: bool = False


class Method(BalancingMethod):
    needs = Needs(branches=True)
    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._num_steps = torch.zeros(())
        self._factor = torch.ones(())
        self._layer: torch.nn.Module

    def setup(self, facts: Any) -> Mapping[str, torch.nn.Module]:
        self._layer = torch.nn.Linear(facts.feature_dims["audio"], facts.num_classes)
        return {"audio": self._layer}

    def plan_branches(self, ctx: EpochContext) -> Sequence[Branch]:
        return [Branch("left", 1), Branch("right", 2)] if self.options.branches else []

    def end_branches(self, results: Mapping[str, BranchResult], ctx: EpochContext) -> None:
        assert results["left"].before == results["right"].before
        assert results["left"].after != results["right"].after
        if self.options.uses_results:
            gain = {n: r.before["val.fused"] - r.after["val.fused"] for n, r in results.items()}
            self._factor = torch.tensor(1.0 + gain["left"] - gain["right"])

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        first = float(next(self._layer.parameters()).detach().reshape(-1)[0])
        SEEN.append((ctx.branch, ctx.epoch, ctx.step, first, batch.index.tolist()))
        loss = sample_loss(outputs.logits, batch)
        loss = loss + sample_loss(self._layer(outputs.features["audio"].float()), batch)
        if ctx.branch == "left":
            return {"fused": loss * (float("nan") if self.options.spoils else 3.0)}
        return {"fused": loss * self._factor * (1 + 0.1 * torch.sin(self._num_steps))}

    def end_step(self, ctx: StepContext) -> None:
        self._num_steps = self._num_steps + 1

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self._num_steps, "factor": self._factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._num_steps, self._factor = state["num_steps"], state["factor"]
