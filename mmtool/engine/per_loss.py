"""Gradients of each named loss on its own, for methods that combine them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmtool.engine.job import Job
from mmtool.methods._base import StepContext


def collect_per_term(
    job: Job,
    share: Mapping[str, Tensor],
    wanted: tuple[str, ...],
    collected: dict[str, list[Tensor | None]],
) -> None:
    """Differentiate each named loss on its own and add up its gradients over micro-batches."""
    parameters = [p for name in job.gradients.names() for _, p in job.groups[name]]
    for name in wanted:
        scaled = job.precision.scaled(share[name])
        grads = torch.autograd.grad(scaled, parameters, retain_graph=True, allow_unused=True)
        before = collected.get(name, [None] * len(parameters))
        collected[name] = [
            b if g is None else g if b is None else b + g
            for b, g in zip(before, grads, strict=True)
        ]


def restore_combined(job: Job, collected: dict[str, list[Tensor | None]], ctx: StepContext) -> None:
    """Reduce per-loss gradients over ranks and let the method combine them, group by group."""
    if not collected:
        return
    offset = 0
    for group in job.gradients.names():
        parameters = [p for _, p in job.groups[group]]
        here = slice(offset, offset + len(parameters))
        by_term = {
            name: [_in_layout_of(p, g) for p, g in zip(parameters, grads[here], strict=True)]
            for name, grads in sorted(collected.items())
        }
        for grads in by_term.values():
            job.ranks.sum_many_(grads)
        combined = job.method.combine(group, by_term, ctx)
        for parameter, gradient in zip(parameters, combined, strict=True):
            # The sum over ranks that follows must leave the combined gradient as it is.
            parameter.grad = _in_layout_of(parameter, gradient / job.ranks.world)
        offset += len(parameters)


def _in_layout_of(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    """Give a gradient in its parameter's memory layout, as `backward` would.

    `autograd.grad` returns whatever layout a kernel chose for this batch; ranks would then add up
    norms and means in different orders and drift apart in the last bit, and a fused optimiser walks
    memory, so that it would take it for another gradient.
    """
    if gradient is None:
        return torch.zeros_like(parameter)
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def parameters_of(terms_by_name: Mapping[str, list[Tensor | None]], job: Job) -> frozenset[int]:
    """Give ids of the parameters whose gradients `restore_combined` will set."""
    if not terms_by_name:
        return frozenset()
    return frozenset(id(p) for name in job.gradients.names() for _, p in job.groups[name])
