"""Another sampling rate by a windowed sinc, the same numbers on every machine.

Output n is the sum over input k of x[k] * h(n * source / target - k), where h is the sinc of the
lower of the two Nyquist frequencies under a Kaiser window.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float64]

_ZERO_CROSSINGS = 64
# A Kaiser window of this shape leaves images about 100 dB down; with 64 zero crossings its
# transition is a tenth of the band, and the roll-off puts the end of it on the Nyquist frequency.
_KAISER_BETA = 10.0
_ROLL_OFF = 0.95
_LARGEST_BANK = 4_000_000
_CHUNK = 4096
_CHUNK_BLOCKS = 1024


def resample(wave: Wave, source_hz: int, target_hz: int) -> Wave:
    """Give `ceil(len * target / source)` samples of the same sound at the target rate."""
    if source_hz == target_hz or not len(wave):
        return wave
    divisor = math.gcd(source_hz, target_hz)
    step, phases = source_hz // divisor, target_hz // divisor
    num_samples = -(-len(wave) * phases // step)
    width = _half_width(step, phases)
    if phases * (step + 2 * width + 1) <= _LARGEST_BANK:
        return _by_bank(wave, step, phases, num_samples)
    return _by_sample(wave, step, phases, num_samples)


def _by_bank(wave: Wave, step: int, phases: int, num_samples: int) -> Wave:
    """Every `phases` outputs see the same filters, `step` inputs further on: one product."""
    width = _half_width(step, phases)
    # Blocks as long as the filters: windows then overlap by half, whatever the two rates are.
    repeats = -(-2 * width // step)
    bank = _filter_bank(step * repeats, phases * repeats)
    step, phases = step * repeats, phases * repeats
    num_blocks = -(-num_samples // phases)
    padded = np.zeros((num_blocks - 1) * step + len(bank))
    padded[width : width + len(wave)] = wave[: len(padded) - width]
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(bank))[::step]
    found = np.empty((num_blocks, phases))
    for start in range(0, num_blocks, _CHUNK_BLOCKS):
        rows = slice(start, start + _CHUNK_BLOCKS)
        # The copy is what lets the product run in BLAS.
        found[rows] = np.ascontiguousarray(windows[rows]) @ bank
    return found.reshape(-1)[:num_samples]


def _by_sample(wave: Wave, step: int, phases: int, num_samples: int) -> Wave:
    """Rates with hardly a common divisor would need a filter per output, so none is kept."""
    width = _half_width(step, phases)
    padded = np.concatenate([np.zeros(width), wave, np.zeros(width + 1)])
    taps = np.arange(-width, width + 1)
    found = np.empty(num_samples)
    for start in range(0, num_samples, _CHUNK):
        position = np.arange(start, min(start + _CHUNK, num_samples)) * step
        centre, rest = position // phases, (position % phases) / phases
        crossings = np.abs(rest[:, None] - taps) * _cutoff(step, phases)
        weights = np.interp(crossings, *_profile())
        weights /= weights.sum(axis=1, keepdims=True)
        values = padded[centre[:, None] + taps + width]
        found[start : start + len(position)] = np.einsum("nk,nk->n", weights, values)
    return found


@lru_cache(maxsize=8)
def _filter_bank(step: int, phases: int) -> Wave:
    """Give the weights [input of a block, phase]."""
    width = _half_width(step, phases)
    at = np.arange(-width, step + width + 1)
    distance = np.arange(phases) * step / phases - at[:, None]
    bank = _windowed_sinc(distance * _cutoff(step, phases))
    bank /= bank.sum(axis=0)
    bank.flags.writeable = False
    return bank


@lru_cache(maxsize=1)
def _profile() -> tuple[Wave, Wave]:
    """Give half a windowed sinc, fine enough that a line between two points is 120 dB exact."""
    crossings = np.linspace(0.0, _ZERO_CROSSINGS, _ZERO_CROSSINGS * 2048 + 1)
    return crossings, _windowed_sinc(crossings)


def _windowed_sinc(crossings: Wave) -> Wave:
    inside = np.clip(1.0 - (crossings / _ZERO_CROSSINGS) ** 2, 0.0, None)
    window = np.i0(_KAISER_BETA * np.sqrt(inside)) / np.i0(_KAISER_BETA)
    found: Wave = np.where(inside > 0.0, np.sinc(crossings) * window, 0.0)
    return found


def _cutoff(step: int, phases: int) -> float:
    return _ROLL_OFF * min(1.0, phases / step)


def _half_width(step: int, phases: int) -> int:
    return math.ceil(_ZERO_CROSSINGS / _cutoff(step, phases))
