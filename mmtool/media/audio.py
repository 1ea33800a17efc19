"""Sound as a mono int16 wave at a fixed rate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtool.media import codec
from mmtool.media.container import file_key, read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.kinds import IMAGES, recognise, recognised
from mmtool.media.resample import resample
from mmtool.media.spec import AudioSpec, Decoded, MediaFacts, Source
from mmtool.media.wav import Buffer, Samples, parse_wav

# Below this a plain read is cheaper than a mapping; above it, cutting a clip out of a recording
# of hours should not read all of it.
_MAP_FROM_BYTES = 8 << 20
# 1e-4 of full scale.
_SILENCE_PEAK = 3
_CLIPPED_SHARE = 1e-3
_WIDTHS = {
    (8, False): "u8", (16, False): "s16le", (24, False): "s24le", (32, False): "s32le",
    (32, True): "f32le", (64, True): "f64le",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Sound:
    """Samples [sample, channel] as they were cut out, and what is known about the stream."""

    samples: Samples
    rate_hz: int
    codec: str | None
    duration_s: float | None
    flags: tuple[str, ...] = ()


def decode_audio(source: Source, spec: AudioSpec) -> Decoded:
    """Give the wave of a source, mixed down by the mean and resampled from its true rate.

    Levels stay as they are: no peak is normalised, what exceeds int16 is clipped.
    """
    kind, content = _opened(source)
    if kind in IMAGES:
        raise MediaError("no-audio", f"{where(source)}: is an image ({kind})")
    stop_s = _stop(source, spec)
    found = None if content is None else _from_wav(source, content, stop_s)
    sound = found or _from_torchcodec(source, stop_s, kind)
    if not len(sound.samples):
        raise MediaError("too-short", f"{where(source)}: holds no sound{_span(source)}")
    wave = _as_stored(sound, spec, where(source))
    flags = (*sound.flags, *_wave_flags(wave))
    facts = MediaFacts(
        codec=sound.codec, duration_s=sound.duration_s, rate_hz=sound.rate_hz, flags=flags
    )
    return Decoded(wave, facts)


def _as_stored(sound: _Sound, spec: AudioSpec, place: str) -> NDArray[np.int16]:
    samples, rate_hz = sound.samples, sound.rate_hz
    limit = None if spec.max_seconds is None else round(spec.max_seconds * spec.rate_hz)
    if samples.dtype == np.int16 and samples.shape[1] == 1 and rate_hz == spec.rate_hz:
        return samples[:limit, 0].astype(np.int16)
    scale = 1.0 if samples.dtype == np.int16 else 32768.0
    with np.errstate(invalid="ignore"):
        wave = samples.mean(axis=1, dtype=np.float64)
    _refuse_non_finite(wave, place)
    wave = resample(wave, rate_hz, spec.rate_hz)[:limit] * scale
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


def _wave_flags(wave: NDArray[np.int16]) -> tuple[str, ...]:
    low, high = int(wave.min()), int(wave.max())
    if low == high or (high <= _SILENCE_PEAK and low >= -_SILENCE_PEAK):
        return ("silent",)
    if high == 32767 or low == -32768:
        num_clipped = np.count_nonzero(wave == 32767) + np.count_nonzero(wave == -32768)
        if num_clipped > _CLIPPED_SHARE * wave.size:
            return ("clipped",)
    return ()


def _opened(source: Source) -> tuple[str | None, Buffer | None]:
    """Say what a file is, and give its content if it is a wave."""
    name = source.member or source.path.name
    large = source.member is None and file_key(source.path)[2] >= _MAP_FROM_BYTES
    # The name only saves a second opening; what counts is the content.
    if large or not name.endswith((".wav", ".WAV")):
        kind = recognise(source)
        if kind != "wav":
            return kind, None
        return kind, np.memmap(source.path, np.uint8, "r").data if large else read_bytes(source)
    content = read_bytes(source)
    kind = recognised(source, content[:512])
    return kind, content if kind == "wav" else None


def _from_wav(source: Source, content: Buffer, stop_s: float | None) -> _Sound | None:
    found = parse_wav(content, where(source))
    if found is None:
        return None
    first = round(source.start_s * found.rate_hz)
    last = found.num_samples
    if stop_s is not None:
        last = min(last, round(stop_s * found.rate_hz))
    samples = found.samples(min(first, last), last)
    codec_name = f"pcm_{_WIDTHS[found.bits, found.is_float]}"
    return _Sound(samples, found.rate_hz, codec_name, found.num_samples / found.rate_hz)


def _from_torchcodec(source: Source, stop_s: float | None, kind: str | None) -> _Sound:
    decoders = codec.decoders(where(source))
    content = codec.handle(source, kind)
    try:
        decoder = decoders.AudioDecoder(content)
    except ValueError as error:
        if codec.opens(decoders.VideoDecoder, content, seek_mode="approximate"):
            raise MediaError("no-audio", f"{where(source)}: has no audio stream") from error
        raise codec.unreadable(source, error, kind) from error
    except RuntimeError as error:
        raise codec.unreadable(source, error, kind) from error
    try:
        whole = source.start_s == 0.0 and stop_s is None
        if whole:
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
    samples = played.data.numpy().T
    told = decoder.metadata
    duration_s = len(samples) / played.sample_rate if whole else told.duration_seconds
    # Matroska keeps the length with the file, not with its streams.
    flags = () if told.duration_seconds is not None else ("no-duration",)
    return _Sound(samples, int(played.sample_rate), told.codec, duration_s, flags)


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
