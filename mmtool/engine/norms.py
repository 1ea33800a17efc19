"""How large each encoder's parameters are and how far a step moved them, on sampled steps.

    pnorm   Euclidean norm of the encoder's parameters after the step
    unorm   Euclidean norm of what the step added to them, weight decay included; 0 of a skipped one

Both are of the encoder alone, without its auxiliary head and what a method added. They stay on the
device until the step metrics leave it. Of a batch in several sub-steps, the last that trains an
encoder counts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

from mmtool.engine.grads import total_norm
from mmtool.engine.job import Job
from mmtool.methods._base import StepContext
from mmtool.types import GroupName, Modality


def is_due(job: Job, step: int) -> bool:
    """Tell whether norms are taken in this step; a function of the step, alike on every rank."""
    every = job.recipe.log.norms_every_steps * job.progress.norms_factor
    return step % every == 0


@contextmanager
def update_norms(job: Job, groups: Sequence[GroupName], ctx: StepContext) -> Iterator[None]:
    """Log norms of the encoders that the update inside may change, where this step is due."""
    members = encoder_parameters(job, groups) if is_due(job, ctx.step) else {}
    if not members:
        yield
        return
    with job.overhead.part("norms"):
        # The optimiser comes after the activations are gone: a copy of the encoders fits there.
        before = {m: [p.detach().clone() for p in members[m]] for m in members}
    yield
    with job.overhead.part("norms"):
        for m in members:
            torch._foreach_sub_(before[m], [p.detach() for p in members[m]])
        lists = [(members[m], [p.detach() for p in members[m]]) for m in members]
        lists += [(members[m], before[m]) for m in members]
        norms = _norms(job, lists)
        for place, modality in enumerate(members):
            ctx.log("pnorm", norms[place], modality)
            ctx.log("unorm", norms[len(members) + place], modality)


def encoder_parameters(job: Job, groups: Sequence[GroupName]) -> dict[Modality, list[Parameter]]:
    """Give the parameters of the encoders among these groups, this rank's parts where sharded."""
    found = {
        m: [p for name, p in job.groups[m] if name.startswith(f"encoders.{m}.")]
        for m in job.model.modalities
        if m in groups
    }
    return {m: parameters for m, parameters in found.items() if parameters}


def _norms(job: Job, lists: Sequence[tuple[list[Parameter], list[Tensor]]]) -> list[Tensor]:
    """Give the norm over each list of values that belong to parameters; equal on all ranks."""
    parts = job.gradients.parts
    whole = [[v for p, v in zip(*pair, strict=True) if id(p) not in parts] for pair in lists]
    norms = torch.stack([total_norm(values, job.device) for values in whole])
    if parts:
        split = [[v for p, v in zip(*pair, strict=True) if id(p) in parts] for pair in lists]
        squares = torch.stack([total_norm(values, job.device).square() for values in split])
        norms = (norms.square() + job.ranks.sum_(squares, "norms")).sqrt()
    return list(norms.unbind())
