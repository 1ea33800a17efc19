"""How far a difference between two groups of runs could be chance: a paired bootstrap.

    d_r = [mean_s b_s(r) + e_b(r)] - [mean_s a_s(r) + e_a(r)]        r = 1 .. num, seeds s

a_s(r), b_s(r)  score of run s on the r-th resample of the test samples, the same resample for all
                runs; where samples come in groups (a speaker, a recording), groups are drawn whole
e(r)            mean of runs drawn with replacement less the mean of all, times sqrt(S / (S - 1)),
                which a mean over S drawn runs falls short by, and times t_df / z, as S is small;
                of a single run, a draw from a normal distribution of the usual spread over seeds

The interval is from the 2.5 % to the 97.5 % point of d_r.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.diagnose.metrics.intervals import Z95

Floats: TypeAlias = NDArray[np.float64]
NUM_RESAMPLES = 2000
SEED = 20_261_121
T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Two-sided 95 % points of Student's t for 1 to 10 degrees of freedom."""
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of mean scores and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def wording(self) -> str:
        """Whether the interval leaves out zero, in words."""
        if self.low <= 0 <= self.high:
            return "no change detected"
        return "improved" if self.low > 0 else "regressed"


def t_point(freedom: int) -> float:
    """Give the two-sided 95 % point of Student's t."""
    return T95[freedom - 1] if 0 < freedom <= len(T95) else Z95


def resampled_scores(
    right: Floats,
    group: NDArray[np.int64],
    *,
    num: int = NUM_RESAMPLES,
    seed: int = SEED,
) -> Floats:
    """Give the mean of each row of [run, sample] on every resample; [run, resample]."""
    sums = _resampled_sums(np.vstack([right, np.ones(right.shape[1])]).T, group, num, seed)
    return (sums[:, :-1] / sums[:, -1:]).T


def resampled_r2(
    errors: Floats,
    target: Floats,
    group: NDArray[np.int64],
    *,
    num: int = NUM_RESAMPLES,
    seed: int = SEED,
) -> Floats:
    """Give R^2, the mean of it over outputs, on every resample; [run, resample].

    `errors` are squared errors [run, sample, output], `target` is [sample, output].
    """
    runs, size, outputs = errors.shape
    centred = target - target.mean(axis=0)
    flat = errors.transpose(1, 0, 2).reshape(size, runs * outputs)
    columns = np.hstack([flat, centred, centred**2, np.ones((size, 1))])
    sums = _resampled_sums(columns, group, num, seed)
    means = sums[:, :-1] / sums[:, -1:]
    wrong = means[:, : runs * outputs].reshape(num, runs, outputs)
    first, second = np.split(means[:, runs * outputs :], 2, axis=1)
    spread = (second - first**2)[:, None, :]
    safe = np.where(spread > 0, spread, 1.0)
    value = np.where(spread > 0, 1 - wrong / safe, wrong == 0)
    return value.mean(axis=2).T  # type: ignore[no-any-return]


def _resampled_sums(columns: Floats, group: NDArray[np.int64], num: int, seed: int) -> Floats:
    """Give the sum of each column over every resample of whole groups; [resample, column]."""
    _, members = np.unique(group, return_inverse=True)
    size = int(members.max()) + 1
    sums = np.zeros((size, columns.shape[1]))
    np.add.at(sums, members, columns)
    rng = np.random.Generator(np.random.Philox(key=seed))
    at_once = max(1, _CELLS_AT_ONCE // size)
    found = []
    for start in range(0, num, at_once):
        rows = min(at_once, num - start)
        drawn = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        found.append(counts.astype(np.float64) @ sums)
    return np.vstack(found)


def difference(
    base: Floats, other: Floats, values: tuple[Sequence[float], Sequence[float]], *, spread: float
) -> Difference:
    """Give the difference of two groups from their scores on the same resamples.

    `base` and `other` are [run, resample], `values` the scores on the samples themselves; `spread`
    is the deviation over seeds to assume of a group of one run.
    """
    rng = np.random.Generator(np.random.Philox(key=SEED + 1))
    widened = t_point(len(base) + len(other) - 2) / Z95
    drawn = _with_seeds(other, rng, widened, spread) - _with_seeds(base, rng, widened, spread)
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = float(np.mean(values[1]) - np.mean(values[0]))
    return Difference(value, float(low), float(high))


def _with_seeds(scores: Floats, rng: np.random.Generator, widened: float, spread: float) -> Floats:
    runs, num = scores.shape
    middle: Floats = scores.mean(axis=0)
    if runs == 1:
        return middle + rng.normal(0.0, spread, num)
    drawn = rng.integers(0, runs, (num, runs))
    means: Floats = scores.T[np.arange(num)[:, None], drawn].mean(axis=1)
    spread_out: Floats = (means - middle) * (sqrt(runs / (runs - 1)) * widened)
    return middle + spread_out
