"""People who speak in front of a camera: the columns that preparers of such videos share."""

from pathlib import Path

from pydantic import Field

from mmtool.config.schema import Options
from mmtool.media.spec import AudioSpec, FramesSpec, LogMel, Spec, TextSpec

_HOP, _RATE_HZ = 320, 16_000


class SpeechOptions(Options):
    """What is stored of a video in which somebody speaks."""

    frames: int = Field(3, ge=1)
    """Pictures per utterance, where videos are read."""
    max_tokens: int = Field(512, ge=1)
    """Longest text in tokens; bytes unless a tokenizer is given."""
    tokenizer: Path | None = None
    """A tokenizer.json to make the tokens with."""


def words(options: SpeechOptions) -> TextSpec:
    """Give the column of what is said."""
    return TextSpec(options.max_tokens, options.tokenizer)


def speech_specs(options: SpeechOptions, *, seconds: int) -> dict[str, Spec]:
    """Give wave, spectrogram of the first `seconds`, pictures and words by name of the column."""
    num_frames = seconds * _RATE_HZ // _HOP
    logmel = LogMel(num_mels=64, num_frames=num_frames, window=400, hop=_HOP)
    return {
        "audio": AudioSpec(rate_hz=_RATE_HZ),
        "audio.logmel": AudioSpec(rate_hz=_RATE_HZ, feature=logmel),
        "video": FramesSpec(num_frames=options.frames, height=256, width=341),
        "text": words(options),
    }
