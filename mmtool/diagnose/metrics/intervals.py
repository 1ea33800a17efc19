"""Error bars from counts: every number a rule compares carries the interval it was compared with.

The run log keeps rates, not samples, so pairs cannot be resampled. Each interval below is therefore
either exact for a single rate or errs towards being too wide for a comparison on the same samples.
The same intervals hold, too wide, for a mean of values between 0 and 1, such as a label accuracy.
What is not a rate, such as R^2, comes with the standard error that was logged beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, sqrt

Z95 = 1.959964
_NEARLY_NOTHING = 1e-9
"""Part of a sum, errors included, below which the logarithm of a term says nothing."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int
    is_rate: bool = True
    """Whether the value is a share of counted samples, so that counts can be drawn anew."""

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    def as_dict(self) -> dict[str, float]:
        """Give the interval as plain data."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def wilson(rate: float, n: int) -> Interval:
    """Give Wilson's score interval of a rate observed on n samples."""
    if n <= 0:
        return Interval(rate, 0.0, 1.0, 0)
    scale = 1 + Z95**2 / n
    centre = (rate + Z95**2 / (2 * n)) / scale
    half = Z95 / scale * sqrt(max(rate * (1 - rate), 0.0) / n + Z95**2 / (4 * n * n))
    return Interval(rate, min(max(0.0, centre - half), rate), max(min(1.0, centre + half), rate), n)


def estimated(value: float, error: float, n: int) -> Interval:
    """Give the interval of a value whose standard error is known."""
    return Interval(value, value - Z95 * error, value + Z95 * error, n, is_rate=False)


def difference(first: Interval, second: Interval) -> Interval:
    """Give first minus second with Newcombe's interval for two independent rates.

    Both rates usually come from the same validation samples, where the true interval is narrower.
    """
    value = first.value - second.value
    below = sqrt((first.value - first.low) ** 2 + (second.high - second.value) ** 2)
    above = sqrt((first.high - first.value) ** 2 + (second.value - second.low) ** 2)
    is_rate = first.is_rate and second.is_rate
    return Interval(value, value - below, value + above, min(first.n, second.n), is_rate)


def drop_interval(drop: float, flip: float, n: int) -> Interval:
    """Give the interval of an accuracy drop, using that only flipped predictions can change it.

    Per sample the change is -1, 0 or 1 and is 0 unless the prediction flipped, hence its variance
    is at most flip - drop^2: the pairing is recovered without the samples.
    """
    if n <= 0:
        return Interval(drop, -1.0, 1.0, 0)
    half = Z95 * sqrt(max(flip - drop**2, 1 / n) / n)
    return Interval(drop, max(-1.0, drop - half), min(1.0, drop + half), n)


def share_interval(rates: Mapping[str, float], name: str, n: int) -> Interval:
    """Give one rate's share of the sum of rates, with a delta-method interval on the logit scale.

    logit(share) = log p - log(sum of the others), so the interval stays inside (0, 1) and is not
    too narrow near its ends. Half a count is added so that a rate of zero has an interval too.
    """
    if n <= 0:
        return Interval(1 / max(len(rates), 1), 0.0, 1.0, 0)
    smooth = {key: (rate * n + 0.5) / (n + 1) for key, rate in rates.items()}
    own = smooth[name]
    others = sum(rate for key, rate in smooth.items() if key != name)
    total = sum(rates.values())
    value = rates[name] / total if total > 0 else 1 / len(rates)
    if others == 0:
        return Interval(1.0, 1.0, 1.0, n)
    variance = (1 - own) / (n * own)
    spread = sum(rate * (1 - rate) for key, rate in smooth.items() if key != name)
    variance += spread / (n * others**2)
    centre, half = log(own / others), Z95 * sqrt(variance)
    low, high = _sigmoid(centre - half), _sigmoid(centre + half)
    return Interval(value, min(low, value), max(high, value), n)


def share_of_distances(distances: Mapping[str, Interval], name: str) -> Interval:
    """Give one distance's share of the sum of distances, by the delta method on the logit scale."""
    own, n = distances[name], distances[name].n
    others = [distance for key, distance in distances.items() if key != name]
    total = sum(distance.value for distance in others)
    whole = own.value + total
    value = own.value / whole if whole > 0 else 1 / len(distances)
    unit = whole + sum(distance.half_width for distance in distances.values())
    if min(own.value, total) <= _NEARLY_NOTHING * unit:
        least, most = max(own.low, 0.0), sum(distance.high for distance in others)
        low = least / (least + most) if least > 0 else 0.0
        least = sum(max(distance.low, 0.0) for distance in others)
        high = own.high / (own.high + least) if least > 0 else 1.0
        return Interval(value, min(low, value), max(high, value), n, is_rate=False)
    spread = sum((distance.half_width / total) ** 2 for distance in others)
    centre, half = log(own.value / total), sqrt((own.half_width / own.value) ** 2 + spread)
    low, high = _sigmoid(centre - half), _sigmoid(centre + half)
    return Interval(value, min(low, value), max(high, value), n, is_rate=False)


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + exp(-value))
    return exp(value) / (1 + exp(value))
