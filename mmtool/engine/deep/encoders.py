"""What can be told of an encoder without any label: is it alive, has it moved, could it move."""

from math import isfinite, isnan

from torch import nn

from mmtool.engine.effective_rank import effective_rank
from mmtool.engine.evaluate import Encoded
from mmtool.engine.job import Job
from mmtool.types import Modality

_MOST_ROWS = 2000


def effective_ranks(job: Job, encoded: Encoded) -> dict[Modality, float | None]:
    """Give the effective rank of each modality's features; None where it has none."""
    found = {
        m: effective_rank(encoded.own[m][encoded.present[:, at]][:_MOST_ROWS])
        for at, m in enumerate(job.model.modalities)
    }
    return {m: None if isnan(rank) else rank for m, rank in found.items()}


def update_norms(now: nn.Module, before: nn.Module | None) -> dict[Modality, float | None]:
    """Give how far the weights of each encoder moved, in units of their norm before."""
    encoders = dict(now.get_submodule("encoders").named_children())
    if before is None:
        return dict.fromkeys(encoders)
    return {
        m: _moved(encoder, before.get_submodule(f"encoders.{m}")) for m, encoder in encoders.items()
    }


def _moved(now: nn.Module, before: nn.Module) -> float | None:
    ours = [p.detach().double() for p in now.parameters()]
    theirs = [p.detach().double() for p in before.parameters()]
    norm = sum(float(p.square().sum()) for p in theirs)
    moved = sum(float((p - q).square().sum()) for p, q in zip(ours, theirs, strict=True))
    return (moved / norm) ** 0.5 if norm > 0 and isfinite(moved) else None


def trainable(job: Job) -> dict[Modality, bool]:
    """Say of which encoders any weight may change in the run."""
    # The yardstick of one modality leaves the other encoders as they began, which is no fault.
    is_yardstick = job.recipe.method.name == "unimodal"
    only = getattr(job.method.options, "modality", None) if is_yardstick else None
    return {
        m: only in (None, m) and any(p.requires_grad for p in job.model.encoders[m].parameters())
        for m in job.model.modalities
    }
