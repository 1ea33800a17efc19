"""Sound as a mono int16 wave at a fixed rate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.media import codec
from mmtool.media.container import file_key, read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.raw import IMAGES, recognise
from mmtool.media.resample import resample
from mmtool.media.spec import AudioSpec, Source
from mmtool.media.wav import Buffer, Samples, parse_wav

# Below this a plain read is cheaper than a mapping; above it, cutting a clip out of a recording
# of hours should not read all of it.
_MAP_FROM_BYTES = 8 << 20


def decode_audio(source: Source, spec: AudioSpec) -> NDArray[np.int16]:
    """Give the wave of a source, mixed down by the mean and resampled from its true rate.

    Levels stay as they are: no peak is normalised, what exceeds int16 is clipped.
    """
    kind = recognise(source)
    if kind in IMAGES:
        raise MediaError("no-audio", f"{where(source)}: is an image ({kind})")
    stop_s = _stop(source, spec)
    found = _from_wav(source, stop_s) if kind == "wav" else None
    samples, rate_hz = found or _from_torchcodec(source, stop_s, kind)
    if not len(samples):
        raise MediaError("too-short", f"{where(source)}: holds no sound{_span(source)}")
    limit = None if spec.max_seconds is None else round(spec.max_seconds * spec.rate_hz)
    if samples.dtype == np.int16 and samples.shape[1] == 1 and rate_hz == spec.rate_hz:
        return samples[:limit, 0].astype(np.int16)
    scale = 1.0 if samples.dtype == np.int16 else 32768.0
    with np.errstate(invalid="ignore"):
        wave = samples.mean(axis=1, dtype=np.float64)
    _refuse_non_finite(wave, where(source))
    wave = resample(wave, rate_hz, spec.rate_hz)[:limit] * scale
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


def _from_wav(source: Source, stop_s: float | None) -> tuple[Samples, int] | None:
    found = parse_wav(_content(source), where(source))
    if found is None:
        return None
    first = round(source.start_s * found.rate_hz)
    last = found.num_samples
    if stop_s is not None:
        last = min(last, round(stop_s * found.rate_hz))
    return found.samples(min(first, last), last), found.rate_hz


def _from_torchcodec(
    source: Source, stop_s: float | None, kind: str | None
) -> tuple[NDArray[Any], int]:
    decoders = codec.decoders(where(source))
    content = codec.handle(source)
    try:
        decoder = decoders.AudioDecoder(content)
    except ValueError as error:
        if codec.opens(decoders.VideoDecoder, content, seek_mode="approximate"):
            raise MediaError("no-audio", f"{where(source)}: has no audio stream") from error
        raise codec.unreadable(source, error, kind) from error
    except RuntimeError as error:
        raise codec.unreadable(source, error, kind) from error
    try:
        if source.start_s == 0.0 and stop_s is None:
            played = decoder.get_all_samples()
        else:
            # Times count from the first sample; encoders shift it (mp3 by 25 ms).
            zero_s = float(decoder.metadata.begin_stream_seconds or 0.0)
            end_s = None if stop_s is None else zero_s + stop_s
            played = decoder.get_samples_played_in_range(zero_s + source.start_s, end_s)
    except RuntimeError as error:
        if "No audio frames were decoded" in str(error):
            message = f"{where(source)}: holds no sound{_span(source)}"
            raise MediaError("too-short", message) from error
        raise codec.unreadable(source, error, kind) from error
    return played.data.numpy().T, int(played.sample_rate)


def _content(source: Source) -> Buffer:
    if source.member is None and file_key(source.path)[2] >= _MAP_FROM_BYTES:
        return np.memmap(source.path, np.uint8, mode="r").data
    return read_bytes(source)


def _stop(source: Source, spec: AudioSpec) -> float | None:
    if spec.max_seconds is None:
        return source.end_s
    limit_s = source.start_s + spec.max_seconds
    return limit_s if source.end_s is None else min(limit_s, source.end_s)


def _span(source: Source) -> str:
    if source.start_s == 0.0 and source.end_s is None:
        return ""
    end = "its end" if source.end_s is None else f"{source.end_s:g} s"
    return f" between {source.start_s:g} s and {end}"


def _refuse_non_finite(wave: NDArray[np.float64], place: str) -> None:
    bad = np.flatnonzero(~np.isfinite(wave))
    if len(bad):
        message = f"{place}: sample {bad[0]} is {wave[bad[0]]} ({len(bad):,} such samples)"
        raise MediaError("non-finite", message)
