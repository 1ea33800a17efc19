"""Statistics of a whole split that a method asks for between epochs, equal on every rank."""

import torch
from torch import Tensor

from mmtool.engine.evaluate import Encoded, encode_rows, evaluation_mode, fixed_sample, predict
from mmtool.engine.job import Job
from mmtool.methods._task import task_loss


def collect(
    job: Job, statistic: str, split: str = "train", share: float = 1.0
) -> dict[str, Tensor]:
    """Give a method's epoch statistic over a split or a share of it, equal on every rank."""
    rows = job.dataset.rows(split)
    if share < 1.0:
        rows = fixed_sample(job, rows, max(1, round(share * len(rows))))
    encoded = encode_rows(job, rows)
    if statistic == "features":
        return {
            **encoded.features,
            "label": encoded.label,
            "index": encoded.index,
            "present": encoded.present,
        }
    if statistic == "class_means":
        return _class_means(job, encoded)
    if statistic == "losses":
        return _mean_losses(job, encoded)
    raise ValueError(f"unknown epoch statistic {statistic!r}")


def _mean_losses(job: Job, encoded: Encoded) -> dict[str, Tensor]:
    """Mean loss of each modality over the samples that have it, and of the fused model."""
    task = job.dataset.task
    with evaluation_mode(job.model):
        unimodal = job.model.unimodal(encoded.features)
        losses = {
            m: task_loss(unimodal[m], encoded.label, task)[encoded.present[:, position]].mean()
            for position, m in enumerate(job.model.modalities)
        }
        fused = predict(job, encoded.features, encoded.present, unimodal)
        return {**losses, "fused": task_loss(fused, encoded.label, task).mean()}


def _class_means(job: Job, encoded: Encoded) -> dict[str, Tensor]:
    """Mean feature of each class over the samples that have the modality, and their counts.

    A sample of several classes counts in each of them.
    """
    model, result = job.model, {}
    for position, modality in enumerate(model.modalities):
        has = encoded.present[:, position]
        features, label = encoded.features[modality][has], encoded.label[has]
        if job.dataset.task == "multi_label":
            sums, counts = label.T @ features, label.sum(0)
        else:
            sums = features.new_zeros(model.num_classes, features.shape[1])
            counts = features.new_zeros(model.num_classes)
            sums.index_add_(0, label, features)
            counts.index_add_(0, label, torch.ones_like(label, dtype=counts.dtype))
        result[modality] = sums / counts.clamp_min(1).unsqueeze(1)
        result[f"{modality}.count"] = counts
    return result
