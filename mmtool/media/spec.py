"""What a column of the store holds, and how a raw source becomes it.

A preparer declares one spec per column; `media.decode` turns a `Source` into the array the spec
describes, and `features` derives what has no randomness (a log-mel spectrogram) once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Measurements of one sensor: values [time, channel] at increasing times; NaN where lost."""

    times_s: NDArray[np.float64]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the raw data of one modality of one clip lies."""

    path: Path
    """A file; a folder of numbered pictures counts as a video."""
    member: str | None = None
    """Name inside a zip archive."""
    row: int | None = None
    """Record inside a container of many, such as an idx file or an array of a pickle."""
    start_s: float = 0.0
    end_s: float | None = None
    text: str | None = None
    """The text itself, where a table holds it rather than a file."""
    key: str | None = None
    """Which of several arrays or recordings of the file: `train/audio` in a pickle of mappings,
    the name of a recording where `read` gives several."""
    parts: tuple[Path, ...] = ()
    """Further files or folders that hold further channels of the same sample."""
    read: "Reader | None" = None
    """Turns a file of this release into recordings by name; kept in memory while it is needed."""


Reader: TypeAlias = Callable[[Source], Mapping[str, Recording]]


@dataclass(frozen=True, slots=True)
class LogMel:
    """Log-mel spectrogram, computed once by prepare and stored as float16 [1, mel, time]."""

    num_mels: int = 64
    num_frames: int = 128
    """Frames kept; longer clips are cut, shorter ones padded with the value of silence."""
    window: int = 400
    hop: int = 160
    low_hz: float = 20.0
    high_hz: float | None = None
    """Highest frequency; unset takes half the sampling rate."""


@dataclass(frozen=True, slots=True)
class LogSpectrogram:
    """log(|STFT| + floor), computed once by prepare and stored as float16 [1, frequency, time].

    The wave is resampled without rounding, repeated until it fills `seconds`, and cut there.
    """

    rate_hz: int = 22_050
    seconds: float = 3.0
    num_fft: int = 512
    hop: int = 353
    floor: float = 1e-7


@dataclass(frozen=True, slots=True)
class Filterbank:
    """Kaldi's log-mel filterbank of 25 ms windows every 10 ms: float16 [1, mel, time]."""

    num_mels: int = 128
    num_frames: int = 1024
    """Frames kept; longer clips are cut, shorter ones padded with zeros."""


Feature: TypeAlias = LogMel | LogSpectrogram | Filterbank


@dataclass(frozen=True, slots=True)
class AudioSpec:
    """A mono wave at a fixed rate: int16 [samples] of varying length, or a derived spectrogram."""

    rate_hz: int = 16_000
    max_seconds: float | None = None
    feature: Feature | None = None


@dataclass(frozen=True, slots=True)
class FramesSpec:
    """uint8 frames [num_frames, channels, height, width], taken at segment centres by time stamp.

    An image is one frame. `num_frames = 1` is stored without the frame axis.
    """

    num_frames: int = 1
    height: int = 256
    width: int = 341
    channels: Literal[1, 2, 3] = 3
    """2 is optical flow: the horizontal part in the source's path, the vertical in its `parts`."""
    value_range: tuple[float, float] | None = None
    """The numbers of a record that become 0 and 255; unset takes uint8 as it is."""


@dataclass(frozen=True, slots=True)
class SeriesSpec:
    """float32 or float16 [time, channel] of varying length."""

    dtype: Literal["float32", "float16"] = "float32"
    max_steps: int | None = None
    rate_hz: float | None = None
    """Rate of the grid on which a recording is interpolated; unset keeps the rows as they are."""
    max_gap_s: float = 0.5
    """Longest loss inside a recording that is interpolated; a longer one skips the clip."""
    replace_non_finite: bool = False
    """Put zero where the release holds NaN or infinity, and count the clip as `replaced`."""


@dataclass(frozen=True, slots=True)
class TextSpec:
    """int32 token ids [token] of varying length, 0 being padding.

    The UTF-8 bytes plus one, or the ids plus one of a `tokenizers` file (`tokenizer.json`).
    """

    max_tokens: int = 512
    tokenizer: Path | None = None


Spec: TypeAlias = AudioSpec | FramesSpec | SeriesSpec | TextSpec


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What decoding found out about a source; None where the source has no such thing."""

    codec: str | None = None
    duration_s: float | None = None
    fps: float | None = None
    rate_hz: int | None = None
    """Sampling rate of the stream, before resampling."""
    width: int | None = None
    height: int | None = None
    variable_rate: bool = False
    flags: tuple[str, ...] = ()
    """What is odd about the sample although it is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An array as its spec describes it, and facts about where it came from."""

    array: NDArray[np.generic]
    facts: MediaFacts = MediaFacts()
