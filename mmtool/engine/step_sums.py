"""What a step adds up for the method and the log, over micro-batches and then over ranks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmtool.engine.job import Job
from mmtool.methods._base import StepContext
from mmtool.methods._scores import COUNT, SCORE, mean_scores, score_sums
from mmtool.types import Batch, Modality, Outputs


@dataclass(slots=True)
class StepSums:
    """Sums over the micro-batches of one sub-step, later over ranks."""

    values: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """Add to the sum of this name, in float32 or more."""
        value = value.detach().float() if value.dtype != torch.float64 else value.detach()
        self.values[name] = self.values[name] + value if name in self.values else value.clone()

    def section(self, prefix: str) -> dict[str, Tensor]:
        """Give the sums whose names begin so, under the rest of their names."""
        return {k.removeprefix(prefix): v for k, v in self.values.items() if k.startswith(prefix)}


def count(
    job: Job,
    sums: StepSums,
    outputs: Outputs,
    encoded: dict[Modality, Tensor],
    terms: Mapping[str, Tensor],
    batch: Batch,
    ctx: StepContext,
) -> None:
    """Add what the log and the method need to know over all ranks."""
    for name, term in terms.items():
        kind, value = ("term", weighted(term, batch).sum()) if term.dim() else ("penalty", term)
        sums.add(f"{kind}.{name}", value)
    statistics = job.method.statistics(outputs, batch, ctx)
    for name, value in statistics.items():
        sums.add(f"stat.{name}", value)
    if outputs.unimodal:
        is_known = SCORE in statistics and COUNT in statistics
        scores = statistics if is_known else score_sums(outputs.unimodal, batch)
        for name in (SCORE, COUNT):
            sums.add(f"log.{name}", scores[name])
    feature_sums, present = job.model.feature_sums(encoded, batch)
    for modality, value in feature_sums.items():
        sums.add(f"feature.{modality}", value)
    sums.add("present", present)
    weight = batch.weight
    count = batch.label.new_full((), batch.size, dtype=torch.float32)
    sums.add("weight", count if weight is None else weight.sum())


def weighted(term: Tensor, batch: Batch) -> Tensor:
    """Give a term of each sample times the weight of the sample; [batch]."""
    return term if batch.weight is None else term * batch.weight


def publish(sums: StepSums, ctx: StepContext, global_size: int) -> None:
    """Hand reduced statistics to the method and reduced losses to the log."""
    ctx.stats = sums.section("stat.")
    ctx.count = sums.values["weight"]
    scores = sums.section("log.")
    if scores:
        ctx.log_each("score", mean_scores(scores))
    for name, value in sums.section("term.").items():
        ctx.log("terms", value / global_size, name)
    for name, value in sums.section("penalty.").items():
        ctx.log("terms", value, name)
