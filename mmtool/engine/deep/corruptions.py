"""What the model answers when the input of one modality is spoilt.

    noise     gaussian, of the standard deviation that the modality has in the batch, as it reaches
              the encoder; of tokens, half of them are replaced with tokens of other places
    blank     what zeros in the store become: silence, black, no measurement
    swapped   the input of another sample

Padding of ragged inputs stays what it is. Samples that lack the modality have nothing to spoil.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mmtool.config.links import alone
from mmtool.data.loader import Loader
from mmtool.data.samplers import Share, Visits, split_evenly
from mmtool.data.transforms import ColumnTransform
from mmtool.engine.deep.prediction import Predictor
from mmtool.engine.deep.record import Judge, host, masked
from mmtool.engine.evaluate import Encoded
from mmtool.engine.job import Job
from mmtool.randomness import fold
from mmtool.types import Batch, Modality

_SALT = 46
_LEAST_BATCH = 16


@dataclass(frozen=True, slots=True)
class Given:
    """The inputs of one modality in a batch, of the samples that have it."""

    values: Tensor  # [sample, ...]
    lengths: Tensor | None
    transform: ColumnTransform
    seed: int

    @property
    def inside(self) -> Tensor:
        """Which values are no padding, to be broadcast; [sample, time, 1...] or one True."""
        if self.lengths is None:
            return torch.ones(1, dtype=torch.bool, device=self.values.device)
        steps = torch.arange(self.values.shape[1], device=self.values.device)
        mask = steps < self.lengths.unsqueeze(1)
        return mask.view(*mask.shape, *([1] * (self.values.dim() - 2)))

    def generator(self) -> torch.Generator:
        """Give random numbers that depend on the batch alone, equal on any device."""
        return torch.Generator().manual_seed(self.seed)


def noise(given: Given) -> Tensor:
    """Add noise as strong as the signal."""
    inside = given.inside.expand_as(given.values)
    if given.transform.kind == "tokens":
        return _mixed_tokens(given, inside)
    drawn = torch.randn(given.values.shape, generator=given.generator()).to(given.values)
    deviation = given.values[inside].double().std(correction=0).to(given.values)
    return torch.where(inside, given.values + deviation * drawn, given.values)


def _mixed_tokens(given: Given, inside: Tensor) -> Tensor:
    generator, values = given.generator(), given.values.clone()
    tokens = values[inside]
    order = torch.randperm(len(tokens), generator=generator).to(tokens.device)
    is_replaced = (torch.rand(len(tokens), generator=generator) < 0.5).to(tokens.device)
    values[inside] = torch.where(is_replaced, tokens[order], tokens)
    return values


def blank(given: Given) -> Tensor:
    """Give what the store's zeros look like to the encoder."""
    transform, zeros = given.transform, torch.zeros_like(given.values)
    if transform.mean is None or transform.deviation is None:
        return zeros
    empty = (zeros - transform.mean) / transform.deviation
    return torch.where(given.inside, empty, zeros)


def corrupt(job: Job, encoded: Encoded, judge: Judge) -> dict[str, np.ndarray]:
    """Give the arrays `CORRUPTION/m.*` of samples that were encoded."""
    found: dict[str, np.ndarray] = {}
    predict = Predictor(job)
    for at, modality in enumerate(job.model.modalities):
        has = encoded.present[:, at]
        loader = job.loader if job.model.is_exchanging else _loader_of(job, modality)
        for name in ("noise", "blank", "swapped"):
            features, known = _spoilt(job, loader, encoded, modality, name)
            logits = predict(features, encoded.present)
            marks = masked(judge.marks(logits, names="right gain answer"), has & known)
            found |= {f"{name}/{modality}.{key}": host(value) for key, value in marks.items()}
    return found


def _spoilt(
    job: Job, loader: Loader, encoded: Encoded, modality: Modality, name: str
) -> tuple[Mapping[Modality, Tensor], Tensor]:
    """Give the features with one input spoilt, and of which samples it was."""
    features = {m: f.clone() for m, f in encoded.features.items() if _hears(job, m, modality)}
    known = torch.zeros(len(encoded.index), dtype=torch.bool, device=encoded.index.device)
    for batch, places in _batches(job, loader, encoded):
        position = batch.modalities.index(modality)
        members = batch.present[:, position].nonzero().squeeze(1)
        if not len(members) or (name == "swapped" and len(members) < 2):
            continue
        changed = spoilt_batch(job, batch, modality, members, name)
        with job.precision.autocast():
            if job.model.is_exchanging:
                answered = job.model.encode(changed)
            else:
                lengths = changed.lengths.get(modality)
                encoder = job.model.encoders[modality]
                answered = {modality: encoder(changed.inputs[modality], lengths)}
        for m, value in answered.items():
            features[m][places[members]] = value[members].float()
        known[places[members]] = True
    return {**encoded.features, **features}, known


def _hears(job: Job, listener: Modality, modality: Modality) -> bool:
    return listener == modality or job.model.is_exchanging


def spoilt_batch(job: Job, batch: Batch, modality: Modality, members: Tensor, name: str) -> Batch:
    """Spoil one modality of the samples of a batch that have it."""
    values, lengths = batch.inputs[modality].clone(), batch.lengths.get(modality)
    if name == "swapped":
        sources = members.roll(1)
        values[members] = batch.inputs[modality][sources]
        if lengths is None:
            return replace(batch, inputs={**batch.inputs, modality: values})
        moved = lengths.clone()
        moved[members] = lengths[sources]
        return replace(
            batch,
            inputs={**batch.inputs, modality: values},
            lengths={**batch.lengths, modality: moved},
        )
    given = Given(
        values[members],
        None if lengths is None else lengths[members],
        job.loader.transforms[modality],
        fold(job.recipe.train.seed, _SALT, int(batch.index[0])) >> 1,
    )
    values[members] = noise(given) if name == "noise" else blank(given)
    return replace(batch, inputs={**batch.inputs, modality: values})


def _batches(job: Job, loader: Loader, encoded: Encoded) -> Iterator[tuple[Batch, Tensor]]:
    """Give the samples in batches of a random order, and their places among the encoded ones.

    Neighbours in the store may be alike; who swaps inputs must not be.
    """
    rows = host(encoded.index)
    generator = np.random.Generator(np.random.Philox(key=[job.recipe.train.seed, _SALT]))
    order = generator.permutation(len(rows))
    size = max(job.recipe.train.batch_size, _LEAST_BATCH)
    pieces = [order[part] for part in split_evenly(len(rows), -(-len(rows) // size))]
    shares = (Share(step, len(piece), (Visits(rows[piece]),)) for step, piece in enumerate(pieces))
    with closing(loader.run(shares, epoch=None)) as loaded:
        for piece, share in zip(pieces, loaded, strict=True):
            yield share.batches[0], torch.from_numpy(piece).to(encoded.index.device)


def _loader_of(job: Job, modality: Modality) -> Loader:
    """Give a loader that reads nothing but one modality."""
    recipe = alone(job.recipe, modality)
    seen = replace(job.dataset, config=recipe.data, modalities=(modality,))
    return Loader(seen, device=job.device, seed=recipe.train.seed)
