"""Pictures: image files, records of idx files, and the fitting of any frame to a column's shape."""

import os
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from mmtool.media.container import read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.kinds import recognised
from mmtool.media.records import AnyArray, read_record
from mmtool.media.records import read_idx as read_idx
from mmtool.media.spec import Decoded, FramesSpec, MediaFacts, Source

Picture = NDArray[np.uint8]


@lru_cache(maxsize=1)
def opencv() -> ModuleType:
    """Give OpenCV, told to leave the threads to the caller's pool and the terminal alone."""
    # Failures are reported as errors; -8 is FFmpeg's silence.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.setNumThreads(1)
    return cv2


def decode_image(source: Source, spec: FramesSpec, kind: str | None = None) -> Decoded:
    """Give an image file, or the first picture of an animation, as [channels, height, width]."""
    _refuse_many(source, spec)
    return _decoded(read_picture(source), spec, kind)


def read_picture(source: Source) -> Picture:
    """Give an image file upright as [height, width, RGB], its colours and depth reduced to RGB."""
    content = read_bytes(source)
    cv2 = opencv()
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise MediaError("decode-error", f"{where(source)}: {error}") from error
    if picture is None:
        recognised(source, content[:512])
        message = f"{where(source)}: OpenCV cannot decode it; it may be truncated"
        raise MediaError("decode-error", message)
    upright: Picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return upright


def decode_record(source: Source, spec: FramesSpec) -> Decoded:
    """Give one picture of an idx or npy file as [channels, height, width]."""
    _refuse_many(source, spec)
    record = read_record(source)
    if record.shape == (spec.height * spec.width,):
        record = record.reshape(spec.height, spec.width)
    if spec.value_range is not None and record.dtype.kind in "fiu":
        if not np.isfinite(record).all():
            raise MediaError("non-finite", f"{where(source)}: the picture holds NaN or infinity")
        record = _scaled(record, spec.value_range)
    if record.dtype != np.uint8 or not (record.ndim == 2 or record.shape[2:] in ((1,), (3,))):
        message = f"{where(source)}: {record.dtype} {list(record.shape)} is not a uint8 picture"
        raise MediaError("decode-error", message)
    return _decoded(record, spec, None)


def _decoded(picture: Picture, spec: FramesSpec, kind: str | None) -> Decoded:
    height, width = picture.shape[:2]
    found = fitted(picture, spec)
    flags = ("constant",) if is_constant(found) else ()
    return Decoded(found, MediaFacts(codec=kind, width=width, height=height, flags=flags))


def is_constant(frames: Picture) -> bool:
    """Say whether all values are the same; mostly the first few settle it."""
    values = frames.reshape(-1)
    return bool((values[:256] == values[0]).all() and (values == values[0]).all())


def fitted(picture: Picture, spec: FramesSpec) -> Picture:
    """Give a picture [height, width(, gray or RGB)] as [channels, height, width] of the column.

    Shrinking averages the covered pixels, growing is bilinear; each side is treated by itself.
    """
    cv2 = opencv()
    gray = picture.ndim == 2 or picture.shape[2] == 1
    if not gray and spec.channels == 1:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    height, width = picture.shape[:2]
    smaller = (min(width, spec.width), min(height, spec.height))
    if smaller != (width, height):
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (spec.width, spec.height):
        size = (spec.width, spec.height)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    picture = picture.reshape(spec.height, spec.width, -1)
    if picture.shape[2] != spec.channels:
        picture = np.repeat(picture, spec.channels, axis=2)
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def _scaled(record: AnyArray, value_range: tuple[float, float]) -> Picture:
    low, high = value_range
    if high <= low:
        return np.zeros(record.shape, np.uint8)
    scaled = (record.astype(np.float64) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _refuse_many(source: Source, spec: FramesSpec) -> None:
    if spec.num_frames != 1:
        message = f"{where(source)}: is one picture, the column takes {spec.num_frames} frames"
        raise MediaError("no-video", message)
