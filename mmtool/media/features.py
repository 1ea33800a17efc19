"""Features without randomness, computed once by prepare: the logarithmic mel spectrogram."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import RequestError
from mmtool.media.spec import Feature, LogMel

_INT16_SCALE = 1.0 / 32768.0
# About the power of the quantisation noise of 16-bit audio: silence becomes a floor, not -inf.
_POWER_FLOOR = 1e-7


def log_mel(wave: NDArray[np.int16], rate_hz: int, spec: LogMel) -> NDArray[np.float16]:
    """Give log(mel power + floor) of a wave; float16 [1, mel, frame].

    Frames start every `hop` samples from the first one; a clip is cut or padded with silence to
    `num_frames`.
    """
    needed = spec.window + (spec.num_frames - 1) * spec.hop
    samples = np.zeros(needed, dtype=np.float64)
    kept = min(needed, len(wave))
    samples[:kept] = wave[:kept] * _INT16_SCALE
    frames = np.lib.stride_tricks.sliding_window_view(samples, spec.window)[:: spec.hop]
    window = np.hanning(spec.window + 1)[:-1]  # periodic
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 / np.sum(window**2)
    mel = power @ mel_filters(rate_hz, spec).T  # [frame, mel]
    return np.log(mel.T + _POWER_FLOOR).astype(np.float16)[np.newaxis]


@lru_cache(maxsize=16)
def mel_filters(rate_hz: int, spec: LogMel) -> NDArray[np.float64]:
    """Give triangular filters [mel, frequency], each with a peak of one, evenly spaced in mel."""
    highest = spec.high_hz if spec.high_hz is not None else rate_hz / 2
    edges_mel = np.linspace(hz_to_mel(spec.low_hz), hz_to_mel(highest), spec.num_mels + 2)
    edges_hz = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    frequencies = np.fft.rfftfreq(spec.window, 1.0 / rate_hz)
    low, peak, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (frequencies - low) / (peak - low)
    falling = (high - frequencies) / (high - peak)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if num_empty := int(np.sum(~filters.any(axis=1))):
        # They would be constant: inputs that look like data and hold none.
        raise RequestError(
            f"{num_empty} of the {spec.num_mels} mel bands hold no frequency",
            why=f"a window of {spec.window} samples at {rate_hz} Hz resolves "
            f"{rate_hz / spec.window:.4g} Hz up to {rate_hz / 2:.6g} Hz",
            fix="lower num_mels or high_hz, or use a longer window",
        )
    return filters


def hz_to_mel(frequency_hz: float) -> float:
    """Give the mel scale of O'Shaughnessy (1987): 2595 log10(1 + f/700)."""
    return float(2595.0 * np.log10(1.0 + frequency_hz / 700.0))


def feature_shape(feature: Feature) -> tuple[int, ...]:
    """Give the shape of a feature's samples."""
    if isinstance(feature, LogMel):
        return (1, feature.num_mels, feature.num_frames)
    raise NotImplementedError


def derive(wave: NDArray[np.int16], rate_hz: int, feature: Feature) -> NDArray[np.float16]:
    """Give a feature of a wave."""
    if isinstance(feature, LogMel):
        return log_mel(wave, rate_hz, feature)
    raise NotImplementedError
