"""The door of the room: a raw source and a spec in, the array the spec describes out.

May be called from many threads at once; the decoders release Python's lock while they work.
"""

from importlib.metadata import PackageNotFoundError, version

from mmtool.media.audio import decode_audio
from mmtool.media.failure import MediaError as MediaError
from mmtool.media.folder import decode_folder
from mmtool.media.image import decode_image, decode_record
from mmtool.media.kinds import IMAGES, recognise
from mmtool.media.series import decode_series
from mmtool.media.spec import AudioSpec, Decoded, FramesSpec, SeriesSpec, Source, Spec
from mmtool.media.text import decode_text
from mmtool.media.video import decode_video

_DECODERS = ("numpy", "torchcodec", "opencv-python-headless")


def decode(source: Source, spec: Spec) -> Decoded:
    """Give the array a spec describes, with facts; raises `MediaError` when it is not there.

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
    return Decoded(decode_text(source, spec))


def versions() -> dict[str, str]:
    """Name the decoders and their versions, which decide the pixels of a store."""
    found = {}
    for name in _DECODERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _decode_frames(source: Source, spec: FramesSpec) -> Decoded:
    if source.row is not None or source.key is not None:
        return decode_record(source, spec)
    if source.member is None and (spec.channels == 2 or source.path.is_dir()):
        found = decode_folder(source, spec)
    else:
        kind = recognise(source)
        if kind in IMAGES and (kind != "gif" or spec.num_frames == 1):
            return decode_image(source, spec, kind)
        found = decode_video(source, spec, kind)
    return Decoded(found.array[0], found.facts) if spec.num_frames == 1 else found


def _refuse_row(source: Source) -> None:
    if source.row is not None:
        raise MediaError("decode-error", f"{source.path}: sound is not read from rows")
