"""Accuracy of the fused model and of each modality, and how much the model relies on each.

Encoders run once over the split, shared among ranks; features are then gathered, so every number
below is computed from all samples and is the same for any number of ranks.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtool.data.samplers import Visits, num_batches, rank_share
from mmtool.engine.build import Job
from mmtool.methods._task import task_loss
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import Modality, Outputs

_NUM_PERMUTATIONS = 3
_PERMUTATION_SEED = 20_230_517
_TRAIN_SAMPLE_SEED = 77


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of every sample of a split, on every rank, in store order."""

    features: dict[Modality, Tensor]  # -> [sample, dim]
    present: Tensor  # [sample, modality] bool
    label: Tensor  # [sample]
    index: Tensor  # [sample]


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch every module to evaluation without gradients, and back to what each was before."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was_training in before.items():
            module.training = was_training


def encode_rows(job: Job, rows: np.ndarray) -> Encoded:
    """Run the encoders over ascending rows, each rank on its share, and gather on every rank."""
    ranks, batch_size = job.ranks, job.recipe.train.batch_size
    visits = Visits(rows)
    steps = num_batches(len(rows), batch_size)
    shares = (
        rank_share(visits, s, batch_size=batch_size, rank=ranks.rank, world=ranks.world)
        for s in range(steps)
    )
    size, device = len(rows), job.device
    index = torch.from_numpy(rows).to(device)  # ascending
    features = {
        m: torch.zeros(size, dim, device=device) for m, dim in job.model.feature_dims.items()
    }
    present = torch.zeros(size, len(job.dataset.modalities), device=device)
    label = torch.zeros(size, dtype=torch.int64, device=device)
    with (
        evaluation_mode(job.model),
        job.shards.gathered(),
        closing(job.loader.run(shares, epoch=None)) as loaded_shares,
    ):
        for loaded in loaded_shares:
            for batch in loaded.batches:
                if batch.weight is not None:  # a padding sample
                    continue
                at = torch.searchsorted(index, batch.index)
                with job.precision.autocast():
                    encoded = job.model.encode(batch)
                for modality, value in encoded.items():
                    features[modality][at] = value.float()
                present[at] = batch.present.float()
                label[at] = batch.label
    # Every row was filled by exactly one rank, so a sum gathers.
    for modality in job.dataset.modalities:
        ranks.sum_(features[modality])
    ranks.sum_(present)
    ranks.sum_(label)
    return Encoded(features, present > 0, label, index)


def evaluate(job: Job, split: str, rows: np.ndarray) -> dict[str, Any]:
    """Give the fields of an `epoch` event for these rows (see runlog.events)."""
    encoded = encode_rows(job, rows)
    with evaluation_mode(job.model):
        return _measure(job, encoded, split)


def _measure(job: Job, encoded: Encoded, split: str) -> dict[str, Any]:
    model, label, task = job.model, encoded.label, job.dataset.task
    unimodal = model.unimodal(encoded.features)
    logits = _predict(job, encoded.features, unimodal)
    predicted = logits.argmax(1)
    accuracy = _mean(predicted == label)
    probes = model.probe(encoded.features)
    per_modality: dict[str, dict[str, Any]] = {}
    for position, modality in enumerate(model.modalities):
        has = encoded.present[:, position]
        z = unimodal[modality]
        row: dict[str, Any] = {
            "acc": _mean((z.argmax(1) == label)[has]),
            "nll": _mean(task_loss(z, label, task)[has]),
            "how": model.way,
            "alone": _mean((_alone(job, encoded.features, modality) == label)[has]),
        }
        drop, flip = _permuted(job, encoded, modality, has, predicted)
        row.update(drop=drop, flip=flip)
        if modality in probes:
            row["probe"] = _mean((probes[modality].argmax(1) == label)[has])
            row["probe_nll"] = _mean(task_loss(probes[modality], label, task)[has])
        per_modality[modality] = row
    return {
        "split": split,
        "n": len(label),
        "loss": _mean(task_loss(logits, label, task)),
        "acc": accuracy,
        "m": per_modality,
    }


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else float("nan")


def _predict(
    job: Job, features: Mapping[Modality, Tensor], unimodal: Mapping[Modality, Tensor] | None = None
) -> Tensor:
    logits = job.model.fuse(features)
    if unimodal is None:
        unimodal = job.model.unimodal(features)
    return job.method.predict(Outputs(dict(features), logits, dict(unimodal))).float()


def _alone(job: Job, features: Mapping[Modality, Tensor], modality: Modality) -> Tensor:
    """Predictions with every other modality replaced by its mean feature."""
    replaced = {
        m: f if m == modality else job.model.mean_feature(m).expand_as(f)
        for m, f in features.items()
    }
    return _predict(job, replaced).argmax(1)


def _permuted(
    job: Job, encoded: Encoded, modality: Modality, has: Tensor, predicted: Tensor
) -> tuple[float, float]:
    """Drop of accuracy and share of flipped predictions when one modality is permuted.

    Samples swap features along a random cycle through those that have the modality, so that none
    keeps its own.
    """
    members = has.nonzero().squeeze(1)
    if len(members) < 2:
        return float("nan"), float("nan")
    drops, flips = [], []
    generator = torch.Generator().manual_seed(_PERMUTATION_SEED)
    label = encoded.label[members]
    for _ in range(_NUM_PERMUTATIONS):
        cycle = members[torch.randperm(len(members), generator=generator).to(members.device)]
        swapped = encoded.features[modality].clone()
        swapped[cycle] = encoded.features[modality][cycle.roll(1)]
        changed = _predict(job, {**encoded.features, modality: swapped}).argmax(1)[members]
        drops.append(_mean(predicted[members] == label) - _mean(changed == label))
        flips.append(_mean(changed != predicted[members]))
    return float(np.mean(drops)), float(np.mean(flips))


def train_sample(job: Job) -> np.ndarray:
    """Rows of the training split on which accuracy is measured; the same ones after every epoch."""
    rows = job.dataset.rows("train")
    return _sample(job, rows, min(job.recipe.log.train_samples, len(rows)))


def _sample(job: Job, rows: np.ndarray, wanted: int) -> np.ndarray:
    """Give so many of the rows, ascending; the same ones every time."""
    key = [job.recipe.train.seed, _TRAIN_SAMPLE_SEED]
    chosen = np.random.Generator(np.random.Philox(key=key)).choice(len(rows), wanted, replace=False)
    return np.sort(rows[np.sort(chosen)])


def collect(
    job: Job, statistic: str, split: str = "train", share: float = 1.0
) -> dict[str, Tensor]:
    """Give a method's epoch statistic over a split or a share of it, equal on every rank."""
    rows = job.dataset.rows(split)
    if share < 1.0:
        rows = _sample(job, rows, max(1, round(share * len(rows))))
    encoded = encode_rows(job, rows)
    if statistic == "features":
        return {
            **encoded.features,
            "label": encoded.label,
            "index": encoded.index,
            "present": encoded.present,
        }
    if statistic == "class_means":
        return _class_means(job.model, encoded)
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
        fused = _predict(job, encoded.features, unimodal)
        return {**losses, "fused": task_loss(fused, encoded.label, task).mean()}


def _class_means(model: MultimodalModel, encoded: Encoded) -> dict[str, Tensor]:
    """Mean feature of each class over the samples that have the modality, and their counts."""
    result = {}
    for position, modality in enumerate(model.modalities):
        has = encoded.present[:, position]
        features, label = encoded.features[modality][has], encoded.label[has]
        sums = features.new_zeros(model.num_classes, features.shape[1])
        counts = features.new_zeros(model.num_classes)
        sums.index_add_(0, label, features)
        counts.index_add_(0, label, torch.ones_like(label, dtype=counts.dtype))
        result[modality] = sums / counts.clamp_min(1).unsqueeze(1)
        result[f"{modality}.count"] = counts
    return result
