"""Features without randomness, computed once by prepare: logarithmic spectrograms of a wave."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import RequestError
from mmtool.media.failure import MediaError
from mmtool.media.resample import resample
from mmtool.media.spec import Feature, Filterbank, LogMel, LogSpectrogram

_INT16_SCALE = 1.0 / 32768.0
# About the power of the quantisation noise of 16-bit audio: silence becomes a floor, not -inf.
_POWER_FLOOR = 1e-7
# The defaults of Kaldi's compute-fbank-feats, https://kaldi-asr.org/doc/feat.html.
_KALDI_WINDOW_S, _KALDI_HOP_S = 0.025, 0.010
_KALDI_PREEMPHASIS = 0.97
_KALDI_LOW_HZ = 20.0
_FLOAT_EPSILON = 2.0**-23


def derive(wave: NDArray[np.int16], rate_hz: int, feature: Feature) -> NDArray[np.float16]:
    """Give a feature of a wave, float16 of `feature_shape`; refuses less than one window."""
    window = _window(rate_hz, feature)
    if len(wave) < window:
        message = f"{len(wave):,} samples at {rate_hz} Hz are less than a window of {window}"
        raise MediaError("too-short", message)
    if isinstance(feature, LogMel):
        return log_mel(wave, rate_hz, feature)
    if isinstance(feature, LogSpectrogram):
        return log_spectrogram(wave, rate_hz, feature).astype(np.float16)[np.newaxis]
    return filterbank(wave, rate_hz, feature).astype(np.float16)[np.newaxis]


def feature_shape(feature: Feature) -> tuple[int, ...]:
    """Give the shape of a feature's samples."""
    if isinstance(feature, LogSpectrogram):
        num_samples = round(feature.seconds * feature.rate_hz)
        return (1, feature.num_fft // 2 + 1, 1 + num_samples // feature.hop)
    return (1, feature.num_mels, feature.num_frames)


def _window(rate_hz: int, feature: Feature) -> int:
    """Give the length of one analysis window in samples of the stored wave."""
    if isinstance(feature, LogMel):
        return feature.window
    if isinstance(feature, LogSpectrogram):
        return -(-feature.num_fft * rate_hz // feature.rate_hz)
    return int(rate_hz * _KALDI_WINDOW_S)


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


def log_spectrogram(
    wave: NDArray[np.int16], rate_hz: int, spec: LogSpectrogram
) -> NDArray[np.float64]:
    """Give log(|STFT| + floor) [frequency, time] under a periodic Hann window, frames centred.

    The wave stays in double precision: where the sound has no energy, the logarithm would show
    the rounding to 16 bits instead.
    """
    num_samples = round(spec.seconds * spec.rate_hz)
    heard = resample(wave.astype(np.float64) * _INT16_SCALE, rate_hz, spec.rate_hz)
    heard = np.clip(np.resize(heard, num_samples), -1.0, 1.0)
    padded = np.pad(heard, spec.num_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.num_fft)[:: spec.hop]
    window = np.hanning(spec.num_fft + 1)[:-1]
    return np.log(np.abs(np.fft.rfft(frames * window, axis=1)).T + spec.floor)


def filterbank(wave: NDArray[np.int16], rate_hz: int, spec: Filterbank) -> NDArray[np.float64]:
    """Give Kaldi's logarithmic filterbank [mel, time] of the wave in [-1, 1), without dither."""
    length, hop = int(rate_hz * _KALDI_WINDOW_S), int(rate_hz * _KALDI_HOP_S)
    needed = length + (spec.num_frames - 1) * hop
    frames = np.lib.stride_tricks.sliding_window_view(wave[:needed] * _INT16_SCALE, length)[::hop]
    frames = frames - frames.mean(axis=1, keepdims=True)
    # The first sample stands in for the one before it.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - _KALDI_PREEMPHASIS * before) * np.hanning(length)
    num_fft = 1 << (length - 1).bit_length()
    power = np.abs(np.fft.rfft(frames, num_fft, axis=1)) ** 2
    energy = power[:, :-1] @ _kaldi_filters(rate_hz, num_fft, spec.num_mels).T
    found = np.zeros((spec.num_mels, spec.num_frames))
    found[:, : len(energy)] = np.log(np.maximum(energy, _FLOAT_EPSILON)).T
    return found


@lru_cache(maxsize=16)
def _kaldi_filters(rate_hz: int, num_fft: int, num_mels: int) -> NDArray[np.float64]:
    """Give filters [mel, frequency] that are triangles over the mel scale, not over frequency."""
    frequencies = np.arange(num_fft // 2) * rate_hz / num_fft
    low, high = hz_to_mel(_KALDI_LOW_HZ), hz_to_mel(rate_hz / 2)
    step = (high - low) / (num_mels + 1)
    centres = low + step * np.arange(1, num_mels + 1)
    distance = np.abs(2595.0 * np.log10(1.0 + frequencies / 700.0) - centres[:, None])
    filters: NDArray[np.float64] = np.maximum(0.0, 1.0 - distance / step)
    return filters
