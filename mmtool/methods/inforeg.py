"""Hold back modalities that are ahead, while encoders take up information fastest (InfoReg).

Huang, Wei, Yang, Hu, "Adaptive unimodal regulation for balanced multimodal information
acquisition", CVPR 2025.

    L      = CE(z) + sum_m CE(z_m)
    tr_m   = sum over the steps of an epoch of |g_m|^2        trace of the Fisher information
    A_m(t) = (tr_m(t-1) + ... + tr_m(t-10)) / 10              epochs before the first count as 0
    k_m    = (A_m(t) - A_m(t-1)) / A_m(t),  1 in the first epoch
    b_m    = beta_m exp(tanh(s_m - mean of the others' s))    if m is ahead and k_m > 0.05, else 0
    g_m   <- g_m + b_m (theta_m - theta_m at the start of the epoch)

The window in which a modality is held back is open for about 1 / 0.05 epochs at least, since k is
large while epochs are few. The pull is added to gradients of the global mean loss.

    point            paper                released code                 here
    who is ahead     audio or visual      audio only: both branches     any; s above the mean of the
                                          test for it                   others'
    s                mean                 batch sum, so that tanh is    mean, or scores = "sum"
                                          1 nearly always
    whose trace      each modality's      audio's                       each modality's
    trace            squared gradients    mean per layer, pull          sum over weight tensors,
                                          included                      before the pull
    threshold        -                    .05, later .04                threshold = 0.05
    beta             by modality          .95 audio, .1 visual          0.95; betas = {image = 0.1}
    backward passes  1                    6, some for the log only      1
    pulled           encoder              encoder                       encoder and its head
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, EpochContext, ModelFacts, StepContext
from mmtool.methods._per_modality import values_of
from mmtool.methods._scores import COUNT, mean_scores, score_sums
from mmtool.methods._task import own_losses, sample_loss
from mmtool.types import Batch, GradGroups, GroupName, Needs, Outputs

STAGE = "objective, gradient"
COST = "a loss per modality, a copy of the encoders"


class Options(schema.Options):
    """Strength of the pull, and when it acts."""

    beta: schema.Positive = 0.95
    """Pull towards the epoch's start of a modality that is barely ahead."""
    betas: dict[str, schema.Positive] = Field(default={})
    """Pull by modality, where it differs: {image = 0.1}."""
    threshold: float = 0.05
    """Smallest relative growth of the trace's running mean for which the pull acts."""
    window: schema.Count = 10
    """Epochs in the trace's running mean."""
    scores: Literal["mean", "sum"] = "mean"
    """Compare mean scores, or sums over the batch as the released code does."""


class Method(BalancingMethod):
    """Adaptive unimodal regulation."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any",
        trains_heads=True,
        snapshots=frozenset({"epoch_start"}),
        min_modalities=2,
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start with every modality's window open."""
        options, names = self.options, facts.modalities
        betas = values_of(options.beta, options.betas, names, where="method.betas")
        self._betas = torch.tensor(betas, device=facts.device)
        self._trace = torch.zeros(len(names), device=facts.device)
        self._step_trace = torch.zeros_like(self._trace)
        self._traces: list[list[float]] = []
        self._growth = torch.ones_like(self._trace)
        return {}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss and one per modality, zero for samples that lack it."""
        del ctx
        return {"fused": sample_loss(outputs.logits, batch), **own_losses(outputs, batch)}

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give true-class probabilities per modality."""
        del ctx
        return score_sums(outputs.unimodal, batch)

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Measure the trace, and pull modalities that are ahead back to the epoch's start."""
        scores = mean_scores(ctx.stats)
        gap = lead(scores)
        if self.options.scores == "sum":
            gap = gap * ctx.stats[COUNT]
        is_open = self._growth > self.options.threshold
        strength = pull(gap, self._betas, is_open)
        ctx.log_each("score", scores)
        ctx.log_each("coef", strength)
        traces = []
        for position, modality in enumerate(ctx.modalities):
            squares = [g.float().square().sum() for g in grads.tensors(modality, "matrix")]
            traces.append(torch.stack(squares).sum() if squares else self._trace.new_zeros(()))
            held = zip(
                grads.tensors(modality),
                grads.values(modality),
                grads.snapshot(modality, "epoch_start"),
                strict=True,
            )
            b = strength[position]
            grads.replace(modality, [g + b.to(g.dtype) * (now - start) for g, now, start in held])
        self._step_trace = torch.stack(traces)

    def end_step(self, ctx: StepContext) -> None:
        """Add this step's squared gradients to the epoch's trace."""
        total = self._trace + self._step_trace
        is_skipped = ctx.is_skipped
        self._trace = total if is_skipped is None else torch.where(is_skipped, self._trace, total)

    def end_epoch(self, ctx: EpochContext) -> None:
        """See whether the trace of each modality still grows."""
        del ctx
        self._see([*self._traces, [float(value) for value in self._trace.cpu()]])
        self._trace = torch.zeros_like(self._trace)

    def _see(self, traces: list[list[float]]) -> None:
        self._traces = traces[-self.options.window - 1 :]
        if self._traces:
            found = growth(torch.tensor(self._traces, dtype=torch.float64), self.options.window)
            self._growth = found.to(self._growth)

    def state_dict(self) -> dict[str, Any]:
        """Give the traces of the last epochs and of this one so far."""
        return {"trace": self._trace, "traces": [list(row) for row in self._traces]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the traces of the last epochs and of this one so far."""
        self._trace = state["trace"].to(self._trace)
        self._see([list(row) for row in state["traces"]])


def lead(scores: Tensor) -> Tensor:
    """Give s_m - mean of the others' s, 0 for a modality that is absent or alone; [modality]."""
    known = ~scores.isnan()
    value = torch.where(known, scores, 0.0)
    others = (~torch.eye(len(scores), dtype=torch.bool, device=scores.device)) & known
    num = others.sum(1)
    mean = torch.where(others, value.unsqueeze(0), 0.0).sum(1) / num.clamp_min(1)
    return torch.where(known & (num > 0), value - mean, 0.0)


def pull(gap: Tensor, betas: Tensor, is_open: Tensor) -> Tensor:
    """Give b of each modality; [modality]."""
    return torch.where((gap > 0) & is_open, betas * torch.exp(torch.tanh(gap)), 0.0)


def growth(traces: Tensor, window: int) -> Tensor:
    """Give the relative growth k of the running mean of traces; [epoch, modality] -> [modality].

    0 where all traces are.
    """
    now, before = traces[-window:].sum(0), traces[-window - 1 : -1].sum(0)
    return torch.where(now > 0, (now - before) / torch.where(now > 0, now, 1.0), 0.0)
