"""Parameters and floating-point operations per modality, counted on the meta device.

Meta tensors cost no memory, and torch's counter misses fused kernels on CPU tensors that it sees on
meta ones. Two operations per multiply-add.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmtool.engine.job import Job
from mmtool.types import FUSION_GROUP, PROBE_GROUP, InputSpec

_RAGGED_STEPS = 1000


@dataclass(frozen=True, slots=True)
class PartCost:
    """Static cost of one encoder or of the fusion, per sample."""

    num_parameters: int
    forward_flops: int
    step_flops: int
    """Forward and backward."""


def count_costs(job: Job) -> dict[str, PartCost]:
    """Give the cost of every encoder and of the fusion."""
    model = copy.deepcopy(job.model).to("meta")
    model.train()
    costs = {}
    for modality, spec in job.dataset.input_specs().items():
        encoder = model.encoders[modality]
        steps = _typical_steps(job, modality) if spec.ragged else 0
        sample, lengths = _meta_input(spec, steps)
        costs[modality] = _count(_encoding(encoder, sample, lengths), encoder)
    features = {
        m: torch.empty(2, dim, device="meta", requires_grad=True)
        for m, dim in model.feature_dims.items()
    }
    costs[FUSION_GROUP] = _count(lambda: model.fuse(features), model.fusion)
    named = {n: sum(p.numel() for _, p in g) for n, g in job.groups.items() if n != PROBE_GROUP}
    return {
        name: PartCost(named[name], cost.forward_flops, cost.step_flops)
        for name, cost in costs.items()
    }


def _typical_steps(job: Job, modality: str) -> int:
    lengths = job.dataset.store.lengths(job.dataset.columns[modality])
    return int(lengths.mean()) if len(lengths) else _RAGGED_STEPS


def _meta_input(spec: InputSpec, steps: int) -> tuple[Tensor, Tensor | None]:
    # Two samples: batch normalisation refuses one.
    shape = (2, steps, *spec.shape) if spec.ragged else (2, *spec.shape)
    dtype = torch.int64 if spec.kind == "tokens" else torch.float32
    lengths = torch.empty(2, dtype=torch.int64, device="meta") if spec.ragged else None
    return torch.empty(shape, dtype=dtype, device="meta"), lengths


def _encoding(encoder: nn.Module, sample: Tensor, lengths: Tensor | None) -> Callable[[], Tensor]:
    if lengths is None:
        return lambda: encoder(sample)
    return lambda: encoder(sample, lengths)


def _count(run: Callable[[], Tensor], module: nn.Module) -> PartCost:
    forward, whole = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with forward:
        run()
    with whole:
        run().sum().backward()
    parameters = sum(p.numel() for p in module.parameters())
    return PartCost(parameters, forward.get_total_flops() // 2, whole.get_total_flops() // 2)
