"""A number, its interval, and what it was on every resample of the samples.

    low, high      2.5 % and 97.5 % points of the resampled values
    on resample r  value_r, with low and high as far from it as they are from the value itself; of a
                   share of a whole the distance is kept on the logit scale, where ends are no walls

so that a rule about the lower end of an interval can be asked again on each resample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
_EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number on the samples themselves and on every resample of them."""

    value: float
    draws: Floats  # [resample]
    n: int
    is_share: bool = False
    source: str = ""
    """How it was obtained, in words."""

    @property
    def estimate(self) -> Estimate:
        """Give the number with its interval."""
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return Estimate(self.value, min(float(low), self.value), max(float(high), self.value))

    def resampled(self) -> tuple[Floats, Floats, Floats]:
        """Give value, low and high on every resample."""
        whole = self.estimate
        if not self.is_share:
            return (
                self.draws,
                self.draws - (whole.value - whole.low),
                self.draws + (whole.high - whole.value),
            )
        centre, drawn = _logit(np.asarray(whole.value)), _logit(self.draws)
        below, above = centre - _logit(np.asarray(whole.low)), _logit(np.asarray(whole.high))
        return self.draws, _sigmoid(drawn - below), _sigmoid(drawn + above - centre)

    def as_dict(self) -> dict[str, float | int | str]:
        """Give the number as plain data."""
        whole = self.estimate
        given: dict[str, float | int | str] = {
            "value": whole.value,
            "low": whole.low,
            "high": whole.high,
            "n": self.n,
        }
        return given | ({"source": self.source} if self.source else {})


def quantity(
    resampled: Floats, n: int, *, is_share: bool = False, source: str = ""
) -> Quantity | None:
    """Give a quantity from its values on the samples, first, and on the resamples of them."""
    value, draws = float(resampled[0]), resampled[1:]
    if not np.isfinite(value):
        return None
    return Quantity(value, np.where(np.isfinite(draws), draws, value), n, is_share, source)


def minus(first: Quantity | None, second: Quantity | None, source: str = "") -> Quantity | None:
    """Give a difference, paired by resample."""
    if first is None or second is None:
        return None
    return Quantity(
        first.value - second.value,
        first.draws - second.draws,
        min(first.n, second.n),
        source=source,
    )


def larger(first: Quantity | None, second: Quantity | None) -> Quantity | None:
    """Give the larger of two numbers, chosen anew on every resample; of one, that one."""
    if first is None or second is None:
        return first or second
    chosen = first if first.value >= second.value else second
    draws = np.maximum(first.draws, second.draws)
    return Quantity(chosen.value, draws, chosen.n, source=chosen.source)


def shares_of(parts: Floats, smoothing: float) -> Floats:
    """Give each part's share of the whole; parts are [..., part], negative ones count as nothing.

    `smoothing` is added to every part, so that a share of nothing still has an interval.
    """
    kept = np.maximum(parts, 0.0) + smoothing
    return kept / kept.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def _logit(share: Floats) -> Floats:
    inside = np.clip(share, _EDGE, 1 - _EDGE)
    return np.log(inside / (1 - inside))


def _sigmoid(value: Floats) -> Floats:
    return 1 / (1 + np.exp(-value))
