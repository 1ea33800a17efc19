"""What a deep record says of every subset of modalities, sample by sample.

score     right, from 0 to 1; of a regression 1 minus the squared error in variances of the
          target, whose mean is R^2
removed   how the others were removed: `permute` (swapped with other samples', the mean over
          several draws) or `mean` (replaced by their mean feature)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.estimates import Floats
from mmtool.diagnose.verdict.shapley import shapley_matrix
from mmtool.runlog.deep import DeepRecord

Score = Literal["right", "gain"]
Removed = Literal["permute", "mean"]


@dataclass(frozen=True, slots=True)
class Removals:
    """A deep record, read by what was kept."""

    record: DeepRecord

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in the order of the record."""
        return self.record.modalities

    @property
    def is_regression(self) -> bool:
        """Whether answers are numbers."""
        return self.record.head.get("task") == "regression"

    def array(self, name: str) -> NDArray[Any] | None:
        """Give an array, or None when the record does not have it."""
        return self.record.arrays.get(name)

    def score(self, source: str, score: Score = "right") -> Floats | None:
        """Give [.., n] of an array group such as `probe/audio`, as a score."""
        name = "gain" if self.is_regression else score
        found = self.array(f"{source}.{name}")
        if found is None:
            return None
        values = found.astype(np.float64)
        return values + 1.0 if self.is_regression and score == "right" else values

    def values(self, removed: Removed, score: Score = "right") -> Floats | None:
        """Give the score of every subset and sample, [subset, n]."""
        found = self.score(removed, score)
        return found.mean(axis=1) if found is not None and found.ndim == 3 else found

    def place(self, kept: Sequence[str]) -> int | None:
        """Give the place of a subset, or None when it was not measured."""
        try:
            return self.record.subset(*kept)
        except KeyError:
            return None

    def without(self, modality: str) -> int | None:
        """Give the place of all modalities but one."""
        return self.place([m for m in self.modalities if m != modality])

    def shapley(self, removed: Removed = "permute", score: Score = "right") -> Floats | None:
        """Give the Shapley value of every modality for every sample, [modality, n].

        Who owns the decision is asked where all of them speak: unless there are too few of these,
        a sample that lacks a modality has NaN.
        """
        values = self.values(removed, score)
        matrix = shapley_matrix(self.record.arrays["kept"])
        if values is None or matrix is None:
            return None
        whole = self.record.arrays["present"].all(axis=1)
        phi = matrix @ values
        return np.where(whole, phi, np.nan) if whole.sum() >= limits.MIN_VAL_SAMPLES else phi

    def where_present(self, modality: str, values: Floats) -> Floats:
        """Give values [n] with NaN for samples that lack the modality."""
        there = self.record.arrays["present"][:, self.modalities.index(modality)]
        return np.where(there, values, np.nan)

    def flips(self, modality: str) -> Floats | None:
        """Give the share of draws in which permuting a modality changes the answer, [n]."""
        answers, place = self.array("permute.answer"), self.without(modality)
        if answers is None or place is None:
            return None
        whole = answers[self.record.subset(*self.modalities)]
        return self.where_present(modality, (answers[place] != whole).mean(axis=0))
