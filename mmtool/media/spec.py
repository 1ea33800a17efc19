"""What a column of the store holds, and how a raw source becomes it.

A preparer declares one spec per column; `media.decode` turns a `Source` into the array the spec
describes, and `features` derives what has no randomness (a log-mel spectrogram) once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Source:
    """Where the raw data of one modality of one clip lies."""

    path: Path
    member: str | None = None
    """Name inside a zip archive."""
    row: int | None = None
    """Record inside a container of many, such as an idx file."""
    start_s: float = 0.0
    end_s: float | None = None
    text: str | None = None
    """The text itself, where a table holds it rather than a file."""


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
class AudioSpec:
    """A mono wave at a fixed rate: int16 [samples] of varying length, or a derived spectrogram."""

    rate_hz: int = 16_000
    max_seconds: float | None = None
    feature: LogMel | None = None


@dataclass(frozen=True, slots=True)
class FramesSpec:
    """uint8 frames [num_frames, channels, height, width], taken at segment centres by time stamp.

    An image is one frame. `num_frames = 1` is stored without the frame axis.
    """

    num_frames: int = 1
    height: int = 256
    width: int = 341
    channels: Literal[1, 3] = 3


@dataclass(frozen=True, slots=True)
class SeriesSpec:
    """float32 or float16 [time, channel] of varying length."""

    dtype: Literal["float32", "float16"] = "float32"
    max_steps: int | None = None


@dataclass(frozen=True, slots=True)
class TextSpec:
    """int32 token ids [token] of varying length: the UTF-8 bytes plus one, 0 being padding."""

    max_tokens: int = 512


Spec: TypeAlias = AudioSpec | FramesSpec | SeriesSpec | TextSpec
