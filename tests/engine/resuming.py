"""Methods whose state decides what a resumed run does next."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mmtool.config.schema import Options as BaseOptions
from mmtool.methods._base import BalancingMethod, DataPlan, EpochContext, StepContext
from mmtool.types import Batch, Modality, Needs, Outputs


class Options(BaseOptions):
    what: Literal["freeze", "restart", "resample"]


class Method(BalancingMethod):
    """Freezes, re-initialises or resamples, all by counters of its own."""

    needs = Needs(snapshots=("initial",))

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._what = options.what
        self._num_steps = torch.zeros(())
        self._seen = torch.zeros(3)

    def edit_features(
        self, features: dict[Modality, Tensor], batch: Batch, ctx: StepContext
    ) -> dict[Modality, Tensor]:
        # Frozen and thawed again by steps, around the stops that the tests make.
        if self._what == "freeze" and int(self._num_steps) % 8 in (3, 4, 5, 6):
            features["audio"] = features["audio"].detach()
        return features

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        return {"seen": torch.nn.functional.one_hot(batch.label, 3).sum(0).float()}

    def end_step(self, ctx: StepContext) -> None:
        self._num_steps = self._num_steps + 1
        self._seen = 0.9 * self._seen + ctx.stats["seen"]

    def plan_epoch(self, ctx: EpochContext) -> DataPlan | None:
        if self._what != "resample" or ctx.epoch == 0:
            return None
        index = torch.arange(53)
        index[: int(self._seen.argmax()) + 5] = 52  # some samples again, others not at all
        keep = torch.ones(53, len(ctx.modalities), dtype=torch.bool)
        keep[::4, 0] = False
        return DataPlan(index, keep, 0.5 + index.float() / 53)

    def edit_parameters(
        self, parameters: Mapping[str, Sequence[Tensor]], ctx: EpochContext
    ) -> None:
        if self._what == "restart" and ctx.epoch == 1:
            pairs = zip(parameters["image"], parameters["image@initial"], strict=True)
            for value, initial in pairs:
                value.copy_(0.5 * value + 0.5 * initial)

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self._num_steps, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._num_steps, self._seen = state["num_steps"], state["seen"]
