"""What a method is given between epochs."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from mmtool.engine.epoch_statistics import collect
from mmtool.engine.evaluate import evaluation_mode
from mmtool.engine.job import Job
from mmtool.engine.optim import reset_state
from mmtool.engine.term_products import gradient_products
from mmtool.methods._base import EpochContext
from mmtool.types import GroupName, Modality


def epoch_context(job: Job) -> EpochContext:
    """Give what a method may know between epochs."""

    def collector(
        statistic: str, split: str = "train", share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        return collect(job, statistic, split, share)

    def fuse(features: Mapping[Modality, Tensor]) -> Tensor:
        with evaluation_mode(job.model):
            return job.model.fuse(features).float()

    def unimodal(features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        with evaluation_mode(job.model):
            return job.model.unimodal(features)

    def forget_momentum(names: Sequence[GroupName]) -> None:
        reset_state(job.optimizer, [p for name in names for _, p in job.groups[name]])

    return EpochContext(
        modalities=job.dataset.modalities,
        num_classes=job.dataset.num_classes,
        epoch=job.progress.epoch,
        epochs=job.recipe.train.epochs,
        collect=collector,
        metrics=dict(job.metrics),
        device=job.device,
        fuse=fuse,
        unimodal=unimodal,
        absent={m: job.model.mean_feature(m) for m in job.dataset.modalities},
        forget_momentum=forget_momentum,
        train_size=len(job.dataset.rows("train")),
        seed=job.recipe.train.seed,
        gradient_products=partial(gradient_products, job),
    )


def begin_epoch(job: Job) -> None:
    """Let the method begin an epoch and choose what it visits."""
    take_snapshot(job, "epoch_start")
    ctx = epoch_context(job)
    job.method.begin_epoch(ctx)
    job.plan = job.method.plan_epoch(ctx)


def take_snapshot(job: Job, moment: str) -> None:
    """Keep the parameters of this moment, if the method needs them."""
    if moment in job.method.needs.snapshots:
        for name in job.gradients.names():
            values = [p.detach().clone() for _, p in job.groups[name]]
            job.snapshots[f"{name}@{moment}"] = values


def parameters_and_snapshots(job: Job) -> dict[str, list[torch.Tensor]]:
    """Give the parameters by group, and their snapshots as `group@moment`."""
    current = {n: [p.detach() for _, p in job.groups[n]] for n in job.gradients.names()}
    return {**current, **job.snapshots}
