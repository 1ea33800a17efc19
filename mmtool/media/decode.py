"""The door of the room: a raw source and a spec in, the array the spec describes out.

May be called from many threads at once; the decoders release Python's lock while they work.
"""

from importlib.metadata import PackageNotFoundError, version

import numpy as np

from mmtool.media.audio import decode_audio
from mmtool.media.failure import MediaError as MediaError
from mmtool.media.image import decode_image, decode_record
from mmtool.media.raw import IMAGES, recognise
from mmtool.media.records import AnyArray
from mmtool.media.series import decode_series
from mmtool.media.spec import AudioSpec, FramesSpec, SeriesSpec, Source, Spec
from mmtool.media.text import decode_text
from mmtool.media.video import decode_video

# 1e-4 of full scale.
SILENCE_PEAK = 3
_CLIPPED_SHARE = 1e-3
_DECODERS = ("numpy", "torchcodec", "opencv-python-headless")


def decode(source: Source, spec: Spec) -> AnyArray:
    """Give the array a spec describes; raises `MediaError` when the source does not hold it.

    A wave int16 [sample], frames uint8 [frame, channel, height, width] without the first axis
    when it is one frame, a series float [time, channel], token ids int32 [token]. A feature that
    is derived from a wave is the caller's next step.
    """
    if isinstance(spec, AudioSpec):
        _refuse_row(source)
        return decode_audio(source, spec)
    if isinstance(spec, FramesSpec):
        return _decode_frames(source, spec)
    if isinstance(spec, SeriesSpec):
        return decode_series(source, spec)
    return decode_text(source, spec)


def flags(array: AnyArray, spec: Spec) -> list[str]:
    """Say what is odd about an array that is nevertheless worth keeping."""
    if isinstance(spec, AudioSpec):
        return _wave_flags(array)
    if isinstance(spec, FramesSpec | SeriesSpec) and array.size:
        return ["constant"] if (array == array.flat[0]).all() else []
    return []


def versions() -> dict[str, str]:
    """Name the decoders and their versions, which decide the pixels of a store."""
    found = {}
    for name in _DECODERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _decode_frames(source: Source, spec: FramesSpec) -> AnyArray:
    if source.row is not None:
        return decode_record(source, spec)
    if recognise(source) in IMAGES:
        return decode_image(source, spec)
    frames = decode_video(source, spec)
    return frames[0] if spec.num_frames == 1 else frames


def _wave_flags(wave: AnyArray) -> list[str]:
    if not wave.size:
        return []
    low, high = int(wave.min()), int(wave.max())
    found = []
    if low == high or (high <= SILENCE_PEAK and low >= -SILENCE_PEAK):
        found.append("silent")
    elif np.count_nonzero((wave == 32767) | (wave == -32768)) > _CLIPPED_SHARE * wave.size:
        found.append("clipped")
    return found


def _refuse_row(source: Source) -> None:
    if source.row is not None:
        raise MediaError("decode-error", f"{source.path}: sound is not read from rows")
