"""Score of the fused model and of each modality, and how much the model relies on each.

Encoders run once over the split, shared among ranks; features are then gathered, so every number
below is computed from all samples and is the same for any number of ranks.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtool.data.samplers import Visits, num_batches, rank_share
from mmtool.engine.effective_rank import effective_rank
from mmtool.engine.job import Job
from mmtool.engine.scoring import METRICS, Score, answers, extra_scores, mean_score, moved, score
from mmtool.methods._task import task_loss
from mmtool.types import Modality, Outputs, TaskKind

_NUM_PERMUTATIONS = 3
_PERMUTATION_SEED = 20_230_517
_TRAIN_SAMPLE_SEED = 77
_MOST_LOSS = -math.log(1e-6)


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

    def at(self, places: Tensor) -> "Encoded":
        """Give the samples at these places, in their order."""
        isolated = self.isolated
        return Encoded(
            {m: f[places] for m, f in self.features.items()},
            self.present[places],
            self.label[places],
            self.index[places],
            None if isolated is None else {m: f[places] for m, f in isolated.items()},
        )


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
                    part = nullcontext() if hears is None else job.overhead.part("modalities")
                    with part, job.precision.autocast():
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
    return predict(job, encoded.features, encoded.present, of_all), unimodal


def _measure(job: Job, encoded: Encoded, split: str) -> dict[str, Any]:
    label, task = encoded.label, job.dataset.task
    logits, unimodal = logits_of(job, encoded)
    fused = {
        "split": split,
        "n": len(label),
        "loss": _mean(task_loss(logits, label, task)),
        "metric": METRICS[task],
        **_named("acc", score(answers(logits, task), label, task), task),
        **extra_scores(logits, label, task),
    }
    with job.overhead.whole("modalities"):
        of_each = _of_each(job, encoded, unimodal, is_thorough=split == "test")
    return {**fused, "m": of_each}


def _of_each(
    job: Job, encoded: Encoded, unimodal: Mapping[Modality, Tensor], *, is_thorough: bool
) -> dict[str, dict[str, Any]]:
    """Give what is measured of every modality: what it reaches alone and what rests on it.

    Swapped and ranked are some of the samples, unless it is to be thorough.
    """
    model, label, task = job.model, encoded.label, job.dataset.task
    some = encoded if is_thorough else _some(encoded, job.recipe.log.flip_samples)
    # Where encoders hear each other, the others would still tell of what is permuted.
    before = predict(job, some.own, some.present)
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
        row |= _permuted(job, some, modality, before)
        row["erank"] = effective_rank(some.own[modality][some.present[:, position]])
        if modality in probes:
            said = answers(probes[modality][has], task)
            row |= _named("probe", score(said, label[has], task), task)
            row["probe_nll"] = _mean(task_loss(probes[modality], label, task)[has])
        per_modality[modality] = row
    return per_modality


def _some(encoded: Encoded, wanted: int) -> Encoded:
    """Give so many of the samples, chosen by their number alone: the same after every epoch.

    Runs of any seed choose alike, so that what they are told of is the same samples.
    """
    if len(encoded.label) <= wanted:
        return encoded
    chosen = np.random.Generator(np.random.Philox(key=[_PERMUTATION_SEED, 0]))
    places = np.sort(chosen.choice(len(encoded.label), wanted, replace=False))
    at = torch.from_numpy(places).to(encoded.label.device)
    return encoded.at(at)


def _named(name: str, found: Score, task: TaskKind) -> dict[str, float]:
    """Give a score, with its standard error where it is not a rate, whose error counts tell."""
    if task != "regression":
        return {name: found.value}
    return {name: found.value, f"{name}_se": found.error}


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else float("nan")


def predict(
    job: Job,
    features: Mapping[Modality, Tensor],
    present: Tensor,
    unimodal: Mapping[Modality, Tensor] | None = None,
) -> Tensor:
    """Give the logits of the prediction made from these features."""
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
    return answers(predict(job, replaced, present), job.dataset.task)


def _permuted(job: Job, encoded: Encoded, modality: Modality, logits: Tensor) -> dict[str, float]:
    """Drop of the score when one modality is permuted, and how far the answers move.

    They flip, or of a regression shift: only the latter has no upper end. `drop_nll` is what is
    lost of the log score, `flip_n` the number of samples that swapped.

    Samples swap features along a random cycle through those that have the modality, so that none
    keeps its own.
    """
    task = job.dataset.task
    how_far = "shift" if task == "regression" else "flip"
    has = encoded.present[:, job.model.modalities.index(modality)]
    members = has.nonzero().squeeze(1)
    if len(members) < 2:
        nothing = dict.fromkeys(("drop", how_far, "drop_nll"), float("nan"))
        return {**nothing, "flip_n": len(members)}
    drops, moves, losses = [], [], []
    generator = torch.Generator().manual_seed(_PERMUTATION_SEED)
    label, before = encoded.label[members], answers(logits, task)[members]
    whole, loss = score(before, label, task), _log_loss(logits[members], label, task)
    for _ in range(_NUM_PERMUTATIONS):
        cycle = members[torch.randperm(len(members), generator=generator).to(members.device)]
        swapped = encoded.own[modality].clone()
        swapped[cycle] = encoded.own[modality][cycle.roll(1)]
        changed = predict(job, {**encoded.own, modality: swapped}, encoded.present)
        after = answers(changed, task)[members]
        drops.append(whole - score(after, label, task))
        moves.append(moved(before, after, label, task))
        losses.append(_log_loss(changed[members], label, task) - loss)
    return {
        **_named("drop", mean_score(drops), task),
        **_named(how_far, mean_score(moves), task),
        "drop_nll": float(np.mean(losses)),
        "flip_n": len(members),
    }


def _log_loss(logits: Tensor, label: Tensor, task: TaskKind) -> float:
    """Mean loss; of classes cut off, since one sure and wrong answer may outweigh all others."""
    losses = task_loss(logits, label, task)
    return _mean(losses if task == "regression" else losses.clamp_max(_MOST_LOSS))


def fixed_sample(job: Job, rows: np.ndarray, wanted: int) -> np.ndarray:
    """Give so many of the rows, ascending; the same ones every time."""
    key = [job.recipe.train.seed, _TRAIN_SAMPLE_SEED]
    chosen = np.random.Generator(np.random.Philox(key=key)).choice(len(rows), wanted, replace=False)
    return np.sort(rows[np.sort(chosen)])
