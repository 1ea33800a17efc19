"""Score of the fused model and of each modality, and how much the model relies on each.

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
from mmtool.engine.job import Job
from mmtool.engine.scoring import METRICS, Score, answers, extra_scores, mean_score, moved, score
from mmtool.methods._task import task_loss
from mmtool.types import Modality, Outputs, TaskKind

_NUM_PERMUTATIONS = 3
_PERMUTATION_SEED = 20_230_517
_TRAIN_SAMPLE_SEED = 77


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of every sample of a split, on every rank, in store order."""

    features: dict[Modality, Tensor]  # -> [sample, dim]
    present: Tensor  # [sample, modality] bool
    label: Tensor  # [sample], of other tasks than single_label [sample, output]
    index: Tensor  # [sample]
    isolated: dict[Modality, Tensor] | None = None
    """Features of encoders that hear nothing of the others, where they otherwise would."""

    @property
    def own(self) -> dict[Modality, Tensor]:
        """Features that know of one modality alone."""
        return self.features if self.isolated is None else self.isolated


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


def encode_rows(job: Job, rows: np.ndarray, *, isolated: bool = False) -> Encoded:
    """Run the encoders over ascending rows, each rank on its share, and gather on every rank.

    With `isolated` encoders that exchange run once more without hearing each other.
    """
    ranks, batch_size = job.ranks, job.recipe.train.batch_size
    visits = Visits(rows)
    steps = num_batches(len(rows), batch_size)
    shares = (
        rank_share(visits, s, batch_size=batch_size, rank=ranks.rank, world=ranks.world)
        for s in range(steps)
    )
    size, device = len(rows), job.device
    index = torch.from_numpy(rows).to(device)  # ascending
    hearing: list[Tensor | None] = [None]
    if isolated and job.model.is_exchanging:
        hearing.append(torch.zeros(len(job.model.modalities), dtype=torch.bool, device=device))
    dims = job.model.feature_dims
    found = [{m: torch.zeros(size, d, device=device) for m, d in dims.items()} for _ in hearing]
    present = torch.zeros(size, len(job.dataset.modalities), device=device)
    label = torch.from_numpy(np.zeros_like(job.dataset.labels(rows))).to(device)
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
                for features, hears in zip(found, hearing, strict=True):
                    with job.precision.autocast():
                        encoded = job.model.encode(batch, hears)
                    for modality, value in encoded.items():
                        features[modality][at] = value.float()
                present[at] = batch.present.float()
                label[at] = batch.label
    # Every row was filled by exactly one rank, so a sum gathers.
    for features in found:
        for modality in job.dataset.modalities:
            ranks.sum_(features[modality])
    ranks.sum_(present)
    ranks.sum_(label)
    return Encoded(found[0], present > 0, label, index, found[1] if len(found) > 1 else None)


def evaluate(job: Job, split: str, rows: np.ndarray) -> dict[str, Any]:
    """Give the fields of an `epoch` event for these rows (see runlog.events)."""
    return measure(job, encode_rows(job, rows, isolated=True), split)


def measure(job: Job, encoded: Encoded, split: str) -> dict[str, Any]:
    """Give the fields of an `epoch` event for samples whose encoders were run in isolation too."""
    with evaluation_mode(job.model):
        return _measure(job, encoded, split)


def logits_of(job: Job, encoded: Encoded) -> tuple[Tensor, dict[Modality, Tensor]]:
    """Give the logits of the prediction, and of each modality by itself."""
    unimodal = job.model.unimodal(encoded.own)
    of_all = unimodal if encoded.isolated is None else None
    return _predict(job, encoded.features, encoded.present, of_all), unimodal


def _measure(job: Job, encoded: Encoded, split: str) -> dict[str, Any]:
    model, label, task = job.model, encoded.label, job.dataset.task
    logits, unimodal = logits_of(job, encoded)
    predicted = own = answers(logits, task)
    if encoded.isolated is not None:
        # Where encoders hear each other, the others would still tell of what is permuted.
        own = answers(_predict(job, encoded.own, encoded.present, unimodal), task)
    probes = model.probe(encoded.own)
    per_modality: dict[str, dict[str, Any]] = {}
    for position, modality in enumerate(model.modalities):
        has = encoded.present[:, position]
        z = unimodal[modality]
        alone = _alone(job, encoded, modality)
        row: dict[str, Any] = {
            **_named("acc", score(answers(z[has], task), label[has], task), task),
            "nll": _mean(task_loss(z, label, task)[has]),
            "how": model.way,
            **_named("alone", score(alone[has], label[has], task), task),
        }
        row |= _permuted(job, encoded, modality, has, own)
        if modality in probes:
            said = answers(probes[modality][has], task)
            row |= _named("probe", score(said, label[has], task), task)
            row["probe_nll"] = _mean(task_loss(probes[modality], label, task)[has])
        per_modality[modality] = row
    return {
        "split": split,
        "n": len(label),
        "loss": _mean(task_loss(logits, label, task)),
        "metric": METRICS[task],
        **_named("acc", score(predicted, label, task), task),
        **extra_scores(logits, label, task),
        "m": per_modality,
    }


def _named(name: str, found: Score, task: TaskKind) -> dict[str, float]:
    """Give a score, with its standard error where it is not a rate, whose error counts tell."""
    if task != "regression":
        return {name: found.value}
    return {name: found.value, f"{name}_se": found.error}


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else float("nan")


def _predict(
    job: Job,
    features: Mapping[Modality, Tensor],
    present: Tensor,
    unimodal: Mapping[Modality, Tensor] | None = None,
) -> Tensor:
    logits = job.model.fuse(features)
    if unimodal is None:
        unimodal = job.model.unimodal(features)
    outputs = Outputs(dict(features), logits, dict(unimodal), present=present)
    return job.method.predict(outputs).float()


def _alone(job: Job, encoded: Encoded, modality: Modality) -> Tensor:
    """Answers with every other modality absent: its mean feature stands for it."""
    position = job.model.modalities.index(modality)
    replaced = {
        m: f if m == modality else job.model.mean_feature(m).expand_as(f)
        for m, f in encoded.own.items()
    }
    present = torch.zeros_like(encoded.present)
    present[:, position] = encoded.present[:, position]
    return answers(_predict(job, replaced, present), job.dataset.task)


def _permuted(
    job: Job, encoded: Encoded, modality: Modality, has: Tensor, predicted: Tensor
) -> dict[str, float]:
    """Drop of the score when one modality is permuted, and how far the answers move.

    They flip, or of a regression shift: only the latter has no upper end.

    Samples swap features along a random cycle through those that have the modality, so that none
    keeps its own.
    """
    task = job.dataset.task
    how_far = "shift" if task == "regression" else "flip"
    members = has.nonzero().squeeze(1)
    if len(members) < 2:
        return dict.fromkeys(("drop", how_far), float("nan"))
    drops, moves = [], []
    generator = torch.Generator().manual_seed(_PERMUTATION_SEED)
    label, before = encoded.label[members], predicted[members]
    whole = score(before, label, task)
    for _ in range(_NUM_PERMUTATIONS):
        cycle = members[torch.randperm(len(members), generator=generator).to(members.device)]
        swapped = encoded.own[modality].clone()
        swapped[cycle] = encoded.own[modality][cycle.roll(1)]
        changed = _predict(job, {**encoded.own, modality: swapped}, encoded.present)
        after = answers(changed, task)[members]
        drops.append(whole - score(after, label, task))
        moves.append(moved(before, after, label, task))
    return _named("drop", mean_score(drops), task) | _named(how_far, mean_score(moves), task)


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
        fused = _predict(job, encoded.features, encoded.present, unimodal)
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
