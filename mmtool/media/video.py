"""Frames of a video by time stamp, through torchcodec or, where that fails, OpenCV."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.media import codec
from mmtool.media.container import read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.image import Picture, fitted, is_constant, opencv
from mmtool.media.kinds import recognise
from mmtool.media.spec import Decoded, FramesSpec, MediaFacts, Source

# Containers round time stamps; a time on a border belongs to the frame that begins there.
_ROUNDING_S = 1e-6
_PROBED_FRAMES = 120
_LONGEST_S = 1e9


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file holds; None where there is no such stream or no decoder that knows."""

    codec: str | None
    fps: float | None
    duration_s: float | None
    width: int | None
    height: int | None
    audio_codec: str | None
    rate_hz: int | None
    variable_rate: bool
    """Frames do not come at equal distances, so a frame's number does not tell its time."""


def decode_video(source: Source, spec: FramesSpec, kind: str | None = None) -> Decoded:
    """Give frames [num_frames, channels, height, width] shown at the centres of equal segments."""
    try:
        found = _by_torchcodec(source, spec, kind)
    except MediaError as refusal:
        if refusal.reason not in {"decode-error", "codec-missing"}:
            raise
        try:
            return _by_opencv(source, spec)
        except MediaError as second:
            # The first decoder knows more about the file, unless it is not there at all.
            raise (second if second.reason == "too-short" else refusal) from refusal
    return found


def probe(path: Path) -> MediaInfo:
    """Report codecs, rates and size of a file, by decoding a little of it."""
    source = Source(path)
    kind = recognise(source)
    decoders = codec.decoders(str(path))
    content = codec.handle(source, kind)
    video = sound = None
    refusal: Exception | None = None
    try:
        video = decoders.VideoDecoder(content, seek_mode="exact")
    except (RuntimeError, ValueError) as error:
        refusal = error
    try:
        sound = decoders.AudioDecoder(content)
    except (RuntimeError, ValueError) as error:
        refusal = error
    if video is None and sound is None and refusal is not None:
        raise codec.unreadable(source, refusal, kind) from refusal
    picture, audio = getattr(video, "metadata", None), getattr(sound, "metadata", None)
    return MediaInfo(
        codec=getattr(picture, "codec", None),
        fps=getattr(picture, "average_fps", None),
        duration_s=getattr(picture or audio, "duration_seconds", None),
        width=getattr(picture, "width", None),
        height=getattr(picture, "height", None),
        audio_codec=getattr(audio, "codec", None),
        rate_hz=getattr(audio, "sample_rate", None),
        variable_rate=video is not None and _is_variable(video),
    )


def segment_centres(source: Source, num_frames: int, duration_s: float) -> NDArray[np.float64]:
    """Give the times, counted from the first frame, at which the frames of a clip are taken."""
    start_s = source.start_s
    end_s = duration_s if source.end_s is None else min(source.end_s, duration_s)
    if end_s <= start_s:
        message = f"{where(source)}: lasts {duration_s:.2f} s, the clip begins at {start_s:g} s"
        raise MediaError("too-short", message)
    centres = start_s + (np.arange(num_frames) + 0.5) / num_frames * (end_s - start_s)
    return np.minimum(centres + _ROUNDING_S, np.nextafter(duration_s, 0.0))


def _by_torchcodec(source: Source, spec: FramesSpec, kind: str | None) -> Decoded:
    decoders = codec.decoders(where(source))
    content = codec.handle(source, kind)
    try:
        # The approximate mode miscounts the frames of flv; the exact one costs half a millisecond.
        decoder = decoders.VideoDecoder(content, dimension_order="NHWC", seek_mode="exact")
    except ValueError as error:
        if codec.opens(decoders.AudioDecoder, content):
            raise MediaError("no-video", f"{where(source)}: has no video stream") from error
        raise codec.unreadable(source, error, kind) from error
    except RuntimeError as error:
        raise codec.unreadable(source, error, kind) from error
    told = decoder.metadata
    begin_s = float(told.begin_stream_seconds)
    duration_s = float(told.end_stream_seconds) - begin_s
    if not told.num_frames_from_content or abs(begin_s) > _LONGEST_S:
        # A picture of the record beside its sound has no place in time.
        raise MediaError("no-video", f"{where(source)}: has a cover picture but no video stream")
    times = segment_centres(source, spec.num_frames, duration_s)
    last_s = np.nextafter(begin_s + duration_s, 0.0)
    try:
        shown = decoder.get_frames_played_at(np.minimum(begin_s + times, last_s).tolist())
    except (RuntimeError, IndexError) as error:
        raise codec.unreadable(source, error, kind) from error
    frames = _fitted(shown.data.numpy(), spec)
    step_s = duration_s / told.num_frames_from_content
    # A stream of flv never says how long it is, only the file does.
    is_untold = told.duration_seconds_from_header is None and kind != "flv"
    flags = ["no-duration"] if is_untold else []
    flags += ["constant"] if is_constant(frames) else []
    return Decoded(
        frames,
        MediaFacts(
            codec=told.codec,
            duration_s=duration_s,
            fps=told.average_fps_from_header or 1.0 / step_s,
            width=told.width,
            height=told.height,
            variable_rate=_looks_variable(shown.duration_seconds.numpy(), step_s),
            flags=tuple(flags),
        ),
    )


def _fitted(frames: Picture, spec: FramesSpec) -> Picture:
    """Give frames [frame, height, width, RGB] as [frame, channel, height, width] of the column.

    Shrinking averages under a triangle, growing is bilinear, all frames of a clip at once: OpenCV's
    averaging was measured to take as long as decoding them.
    """
    if spec.channels != 3:
        return np.stack([fitted(frame, spec) for frame in frames])
    import torch

    planes = torch.from_numpy(frames).permute(0, 3, 1, 2)
    size = (spec.height, spec.width)
    if tuple(planes.shape[2:]) != size:
        planes = torch.nn.functional.interpolate(
            planes, size, mode="bilinear", antialias=True, align_corners=False
        )
    return planes.contiguous().numpy()


def _looks_variable(shown_s: NDArray[np.float64], average_s: float) -> bool:
    """Judge by the frames at hand: where the rate varies, few last as long as the average."""
    uneven = np.abs(shown_s - average_s) > max(0.002, 0.2 * average_s)
    return bool(2 * np.count_nonzero(uneven) > len(shown_s))


def _by_opencv(source: Source, spec: FramesSpec) -> Decoded:
    """Read the stream twice, for the times and for the wanted frames: seeking is not exact."""
    with _as_file(source) as path:
        stamps, step_s = _time_stamps(path, where(source))
        times = segment_centres(source, spec.num_frames, float(stamps[-1]) + step_s)
        wanted = np.maximum(np.searchsorted(stamps, times, side="right") - 1, 0)
        frames: dict[int, Picture] = {}
        size = (0, 0)
        with _capture(path, where(source)) as capture:
            for index in range(int(wanted[-1]) + 1):
                if not capture.grab():
                    break
                if index in wanted:
                    frame = capture.retrieve()[1]
                    size = frame.shape[:2]
                    frames[index] = _fitted(frame[None, :, :, ::-1].copy(), spec)[0]
    if len(frames) != len(set(wanted.tolist())):
        raise MediaError("decode-error", f"{where(source)}: OpenCV lost frames it had counted")
    found = np.stack([frames[int(index)] for index in wanted])
    height, width = size
    duration_s = float(stamps[-1]) + step_s
    facts = MediaFacts(
        duration_s=duration_s,
        fps=len(stamps) / duration_s,
        width=width,
        height=height,
        variable_rate=_is_uneven(stamps),
        flags=("constant",) if is_constant(found) else (),
    )
    return Decoded(found, facts)


def _time_stamps(path: str, place: str) -> tuple[NDArray[np.float64], float]:
    """Give the time of every frame, counted from the first, and how long the last one lasts."""
    cv2 = opencv()
    found = []
    with _capture(path, place) as capture:
        while capture.grab():
            found.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0)
        fps = capture.get(cv2.CAP_PROP_FPS)
    if not found:
        raise MediaError("decode-error", f"{place}: OpenCV reads no frame from it")
    stamps = np.asarray(found) - found[0]
    usual_s = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1.0 / fps if fps else 0.04
    return stamps, usual_s


@contextlib.contextmanager
def _capture(path: str, place: str) -> Iterator[Any]:
    cv2 = opencv()
    try:
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    except cv2.error as error:
        raise MediaError("decode-error", f"{place}: OpenCV: {error}") from error
    try:
        yield capture
    finally:
        capture.release()


@contextlib.contextmanager
def _as_file(source: Source) -> Iterator[str]:
    """Give a path for a decoder that opens nothing else."""
    if source.member is None:
        yield str(source.path.absolute())
        return
    with tempfile.TemporaryDirectory(prefix="mmtool-") as folder:
        copy = Path(folder) / f"clip{Path(source.member).suffix}"
        copy.write_bytes(read_bytes(source))
        yield str(copy)


def _is_variable(video: Any) -> bool:
    """Compare the distances of the first frames, allowing for time stamps in milliseconds."""
    num_frames = int(video.metadata.num_frames)
    stamps = [video.get_frame_at(i).pts_seconds for i in range(min(num_frames, _PROBED_FRAMES))]
    average_s = float(video.metadata.duration_seconds) / num_frames
    return _is_uneven(np.asarray(stamps), average_s)


def _is_uneven(stamps: NDArray[np.float64], average_s: float | None = None) -> bool:
    if len(stamps) < 3:
        return False
    steps = np.diff(stamps)
    usual_s = float(np.median(steps))
    uneven = np.abs(steps - usual_s) > max(0.002, 0.2 * usual_s)
    average_s = float(np.mean(steps)) if average_s is None else average_s
    # One odd frame is a cut or the muxer's start-up, not a rate that varies.
    return bool(uneven.mean() > 0.05 or abs(average_s - usual_s) > 0.05 * usual_s)
