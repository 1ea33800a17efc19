"""What the model answers with some modalities kept and the others taken away.

    permute   the others are swapped with other samples' features: what decides when all speak
    mean      the mean feature of training stands for them:        what is left without them

Which samples swap is drawn once for each draw and modality, so that two subsets differ by nothing
but the modalities that one of them keeps. Nobody keeps its own feature.
"""

import numpy as np
import torch
from torch import Tensor

from mmtool.engine.deep.prediction import Predictor
from mmtool.engine.deep.record import Judge, host
from mmtool.engine.evaluate import Encoded
from mmtool.engine.job import Job
from mmtool.types import Modality

MOST_EXACT = 4
"""Modalities up to which every subset is measured."""
NUM_ORDERS = 32
DRAWS = 5
_SWAP_SALT, _ORDER_SALT = 41, 42


def subsets(num_modalities: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give which modalities each subset keeps, and the orders that subsets above four come from.

    -> [subset, modality] bool, from all to none; [order, modality] int64, none up to four.
    """
    every = range(num_modalities)
    found: dict[tuple[int, ...], None] = {}
    orders = np.zeros((0, num_modalities), dtype=np.int64)
    if num_modalities <= MOST_EXACT:
        for bits in range(2**num_modalities):
            found[tuple(m for m in every if bits >> m & 1)] = None
    else:
        generator = np.random.Generator(np.random.Philox(key=[seed, _ORDER_SALT]))
        orders = np.stack([generator.permutation(num_modalities) for _ in range(NUM_ORDERS)])
        found |= {(m,): None for m in every}
        found |= {tuple(k for k in every if k != m): None for m in every}
        for order in orders.tolist():
            found |= {tuple(sorted(order[:size])): None for size in range(num_modalities + 1)}
    ranked = sorted(found, key=lambda kept: (-len(kept), kept))
    return np.array([[m in kept for m in every] for kept in ranked], dtype=bool), orders


def swap_partners(has: Tensor, seed: int, *keys: int) -> Tensor:
    """Give for each sample whose feature it takes: a cycle through those that have one; [sample].

    Who has none, or nobody to swap with, takes its own.
    """
    partners = torch.arange(len(has), device=has.device)
    members = has.nonzero().squeeze(1)
    generator = np.random.Generator(np.random.Philox(key=[seed, _SWAP_SALT + 1000 * _mixed(keys)]))
    order = torch.from_numpy(generator.permutation(len(members))).to(has.device)
    cycle = members[order]
    partners[cycle] = cycle.roll(1)
    return partners


def _mixed(keys: tuple[int, ...]) -> int:
    number = 0
    for key in keys:
        number = number * 1009 + key + 1
    return number


class Removals:
    """Takes modalities from the samples of a split."""

    def __init__(self, job: Job, encoded: Encoded, judge: Judge, *, draws: int = DRAWS) -> None:
        self._predict = Predictor(job)
        self._judge = judge
        self._features = encoded.own
        self._present = encoded.present
        self._modalities = job.model.modalities
        self._means = {m: job.model.mean_feature(m) for m in self._modalities}
        seed = job.recipe.train.seed
        self._partners = [
            [swap_partners(encoded.present[:, at], seed, draw, at) for at in range(self._width)]
            for draw in range(draws)
        ]

    @property
    def _width(self) -> int:
        return len(self._modalities)

    def measure(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Give the arrays `permute.*` [subset, draw, sample], `mean.*` and `conf` [subset, sample].

        `kept` is [subset, modality] bool.
        """
        rows: dict[str, list[np.ndarray]] = {}
        for subset in kept:
            draws = [self._marks(self._swapped(subset, each)) for each in self._partners]
            for name in draws[0]:
                rows.setdefault(f"permute.{name}", []).append(np.stack([d[name] for d in draws]))
            alone = self._marks(self._averaged(subset), names="right gain answer conf")
            for name, value in alone.items():
                rows.setdefault(name if name == "conf" else f"mean.{name}", []).append(value)
        return {name: np.stack(values) for name, values in rows.items()}

    def _marks(
        self, given: tuple[dict[Modality, Tensor], Tensor], names: str = "right gain answer"
    ) -> dict[str, np.ndarray]:
        logits = self._predict(*given)
        return {name: host(v) for name, v in self._judge.marks(logits, names=names).items()}

    def _swapped(
        self, subset: np.ndarray, partners: list[Tensor]
    ) -> tuple[dict[Modality, Tensor], Tensor]:
        features = {
            m: self._features[m] if subset[at] else self._features[m][partners[at]]
            for at, m in enumerate(self._modalities)
        }
        return features, self._present

    def _averaged(self, subset: np.ndarray) -> tuple[dict[Modality, Tensor], Tensor]:
        features = {
            m: self._features[m] if subset[at] else self._means[m].expand_as(self._features[m])
            for at, m in enumerate(self._modalities)
        }
        is_kept = torch.from_numpy(subset).to(self._present.device)
        return features, self._present & is_kept
