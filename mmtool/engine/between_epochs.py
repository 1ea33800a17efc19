"""What a method is given between epochs."""

import torch

from mmtool.engine.build import Job
from mmtool.engine.evaluate import collect
from mmtool.methods._base import EpochContext


def epoch_context(job: Job) -> EpochContext:
    """Give what a method may know between epochs."""

    def collector(statistic: str, split: str = "train") -> dict[str, torch.Tensor]:
        return collect(job, statistic, split)

    return EpochContext(
        modalities=job.dataset.modalities,
        num_classes=job.dataset.num_classes,
        epoch=job.progress.epoch,
        epochs=job.recipe.train.epochs,
        collect=collector,
        metrics=dict(job.metrics),
        device=job.device,
    )


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
