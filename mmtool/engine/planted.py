"""Faults inside of a step, an aid for tests (see `fault`): nothing acts unless one is planted."""

from dataclasses import replace

import torch

from mmtool.data.loader import LoadedShare
from mmtool.engine import fault
from mmtool.engine.job import Job
from mmtool.types import Batch

_SKEW = 1e-3


def before_step(job: Job, loaded: LoadedShare) -> LoadedShare:
    """Spoil this step's data or this rank's weights where that is planted."""
    if not fault.is_planted():
        return loaded
    rank, step = job.ranks.rank, job.progress.step
    if fault.is_due("skew", rank, step):
        _, parameter = job.groups[job.gradients.names()[0]][0]
        parameter.data.add_(_SKEW)
    if fault.is_due("order", rank, step):
        job.ranks.trace.add("sum", "planted", torch.zeros(1))
    for kind, value in (("nan", float("nan")), ("inf", float("inf"))):
        if fault.is_due(kind, rank, step):
            first, *rest = loaded.batches
            loaded = replace(loaded, batches=(_spoiled(first, value), *rest))
    return loaded


def _spoiled(batch: Batch, value: float) -> Batch:
    """Give the batch with one modality of its first sample not finite."""
    modality = next(m for m in batch.modalities if batch.inputs[m].is_floating_point())
    broken = batch.inputs[modality].clone()
    broken[0] = value
    return replace(batch, inputs={**batch.inputs, modality: broken})


def in_backward(job: Job, step: int) -> None:
    """Run out of memory where that is planted, as long as the batch is not cut."""
    if job.progress.num_parts == 1 and fault.is_due("oom", job.ranks.rank, step):
        raise torch.OutOfMemoryError("planted: out of memory")
