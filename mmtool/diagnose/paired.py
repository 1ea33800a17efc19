"""The answers of several runs on the same samples, laid side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.bootstrap import (
    Difference,
    Floats,
    difference,
    resampled_r2,
    resampled_scores,
)
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.errors import RequestError, RunDirectoryError
from mmtool.runlog.predictions import Predictions, read_predictions

FEWEST_GROUPS = 5
"""Of fewer groups of samples than this, a resample says nothing: samples are drawn singly."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What runs answered on one split, by the position of the run."""

    split: str
    found: Mapping[int, Predictions]
    scores: Mapping[int, float]
    resampled: Mapping[int, Floats]
    num_units: int
    """How many groups of samples, or samples, a resample draws."""

    def difference(self, base: Sequence[int], other: Sequence[int]) -> Difference | None:
        """Give how two groups of runs differ; None where a run left no answers."""
        if not self.found.keys() >= {*base, *other}:
            return None
        one, two = (np.stack([self.resampled[i] for i in some]) for some in (base, other))
        values = [self.scores[i] for i in base], [self.scores[i] for i in other]
        return difference(one, two, values, spread=limits.SEED_SPREAD)


def read_answers(runs: Sequence[Run], split: str) -> tuple[Answers, list[str]]:
    """Read the answers of every run that has some, and say which cannot be read."""
    found: dict[int, Predictions] = {}
    notes = []
    for index, run in enumerate(runs):
        try:
            answers = read_predictions(run.path, split)
        except RunDirectoryError as error:
            notes.append(f"{run.name}: {error.what}; it is compared by its log alone.")
            continue
        if answers is not None and len(answers.row):
            found[index] = answers
    _check_same_samples(runs, found)
    scores = {index: _score(answers) for index, answers in found.items()}
    units = drawn_units(next(iter(found.values()))) if found else np.zeros(0, dtype=np.int64)
    num_units = len(np.unique(units))
    return Answers(split, found, scores, _resampled(found, units), num_units), notes


def drawn_units(answers: Predictions) -> NDArray[np.int64]:
    """Give what is drawn as a whole: groups of samples, or samples where there are few groups."""
    if len(np.unique(answers.group)) < FEWEST_GROUPS:
        return np.arange(len(answers.row))
    return answers.group


def modality_score(answers: Predictions, modality: str) -> float | None:
    """Give the score of one modality by itself over the samples that have it."""
    if modality not in answers.answers or not answers.present[modality].any():
        return None
    return _score(answers, modality)


def _check_same_samples(runs: Sequence[Run], found: Mapping[int, Predictions]) -> None:
    """Refuse to set answers to different questions side by side."""
    if not found:
        return
    first_at, first = next(iter(found.items()))
    for index, answers in found.items():
        if answers.key == first.key and np.array_equal(answers.row, first.row):
            continue
        one, two = first.head, answers.head
        named = [k for k in ("dataset_hash", "protocol", "task") if one.get(k) != two.get(k)]
        why = ", ".join(f"{key}: {one.get(key)} and {two.get(key)}" for key in named)
        raise RequestError(
            f"these runs cannot be compared: they answered on other {first.head['split']} samples",
            where=f"{runs[first_at].name}, {runs[index].name}",
            why=why or f"{len(first.row)} and {len(answers.row)} rows of the store, not the same",
            fix=f"mmtool diagnose {runs[first_at].path}",
        )


def _score(answers: Predictions, modality: str | None = None) -> float:
    right = answers.right(modality)
    known = ~np.isnan(right if right.ndim == 1 else right[:, 0])
    if answers.task != "regression":
        return float(right[known].mean())
    wrong, target = right[known].mean(axis=0), answers.label[known].astype(np.float64)
    spread = target.var(axis=0)
    safe = np.where(spread > 0, spread, 1.0)
    return float(np.where(spread > 0, 1 - wrong / safe, wrong == 0).mean())


def _resampled(found: Mapping[int, Predictions], units: NDArray[np.int64]) -> dict[int, Floats]:
    if not found:
        return {}
    first = next(iter(found.values()))
    right = np.stack([answers.right() for answers in found.values()])
    if first.task == "regression":
        scores = resampled_r2(right, first.label.astype(np.float64), units)
    else:
        scores = resampled_scores(right, units)
    return dict(zip(found, scores, strict=True))
