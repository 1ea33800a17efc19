"""Pictures and sound into real FLV, AVI and MP4 files: several of them with one call of ffmpeg.

Same arrays give identical bytes: one thread, `-bitexact`, no metadata. Starting ffmpeg costs more
than encoding a small clip, therefore a call encodes a whole batch, and two calls run at a time.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtool.testing.layouts.damage import rotate_mp4, stamp
from mmtool.testing.layouts.sound import write_wav

_BATCH = 8
_WORKERS = 2
_EXACT = [
    *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"),
    *("-map_metadata", "-1", "-threads", "1"),
]
# The coding tools of AAC cost more time than they save bytes in such short clips.
_AAC = [
    *("-c:a", "aac", "-aac_coder", "fast", "-b:a", "64k"),
    *("-aac_tns", "0", "-aac_pns", "0", "-aac_is", "0", "-aac_ms", "0"),
]
_SOUND_CODECS = {
    ".mp4": _AAC,
    ".flv": ["-c:a", "libmp3lame", "-ar", "44100", "-b:a", "64k"],
    # Without a delay of the encoder, which would leave holes before the first frame.
    ".avi": ["-c:a", "pcm_s16le"],
}
_PICTURE_CODECS = {
    ".jpg": ["-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p"],
    ".mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "30", "-pix_fmt", "yuv420p"],
    ".flv": ["-c:v", "flv1", "-q:v", "6", "-pix_fmt", "yuv420p"],
    ".avi": ["-c:v", "mpeg4", "-q:v", "6", "-pix_fmt", "yuv420p"],
}


@dataclass(frozen=True, slots=True, eq=False)
class Movie:
    """One file to write; its suffix chooses the container and the codecs.

    A name such as `frame%06d.jpg` writes one picture per frame, counted from 1.
    """

    path: Path
    frames: NDArray[np.uint8] | None
    """Number x height x width x RGB; None leaves the picture stream out."""
    fps: Fraction
    sound: NDArray[np.int16] | None
    """Samples, or samples x channels; None leaves the sound stream out."""
    rate_hz: int = 44_100
    size: tuple[int, int] | None = None
    """Width and height to scale the frames to."""
    rotation_degrees: int = 0
    """How a player turns the picture, stored as a display matrix (mp4)."""
    variable_rate: bool = False
    """Leave out every fifth frame without closing the gap."""
    fourcc: str = "XVID"
    moov_first: bool = False
    mark: str = ""
    """Bytes that players skip, so that files with the same content differ."""


def require_tools() -> None:
    """Raise RuntimeError when ffmpeg, ffprobe or espeak-ng is missing."""
    missing = [tool for tool in ("ffmpeg", "ffprobe", "espeak-ng") if shutil.which(tool) is None]
    if missing:
        raise RuntimeError(
            f"{', '.join(missing)} not found; synthetic releases need them: "
            "apt-get install ffmpeg espeak-ng"
        )


def run_ffmpeg(arguments: Sequence[str]) -> None:
    """Run ffmpeg quietly; RuntimeError with its message when it fails."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"ffmpeg failed: {message}\n{' '.join(command)}")


def write_movies(movies: Sequence[Movie]) -> None:
    """Encode all movies."""
    require_tools()
    batches = [movies[start : start + _BATCH] for start in range(0, len(movies), _BATCH)]
    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(_write_batch, batches))


def _write_batch(movies: Sequence[Movie]) -> None:
    inputs: list[str] = []
    outputs: list[str] = []
    num_inputs = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, movie in enumerate(movies):
            movie.path.parent.mkdir(parents=True, exist_ok=True)
            if movie.frames is not None:
                raw = Path(folder, f"{number}.rgb")
                raw.write_bytes(np.ascontiguousarray(movie.frames).data)
                height, width = movie.frames.shape[1:3]
                inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
                inputs += ["-r", str(movie.fps), "-i", str(raw)]
                outputs += ["-map", f"{num_inputs}:v"]
                num_inputs += 1
            if movie.sound is not None:
                wav = Path(folder, f"{number}.wav")
                write_wav(wav, movie.sound, movie.rate_hz)
                inputs += ["-i", str(wav)]
                outputs += ["-map", f"{num_inputs}:a"]
                num_inputs += 1
            outputs += _output_options(movie)
        run_ffmpeg([*inputs, *outputs])
    for movie in movies:
        if movie.rotation_degrees:
            rotate_mp4(movie.path, movie.rotation_degrees)
        if movie.mark:
            stamp(movie.path, movie.mark)


def _output_options(movie: Movie) -> list[str]:
    suffix = movie.path.suffix
    options = list(_EXACT)
    if movie.frames is not None:
        options += _PICTURE_CODECS[suffix]
        if suffix == ".avi":
            options += ["-vtag", movie.fourcc]
        if movie.size:
            options += ["-s", f"{movie.size[0]}x{movie.size[1]}", "-sws_flags", "fast_bilinear"]
        if movie.variable_rate:
            options += ["-vf", "select=not(eq(mod(n\\,5)\\,3))", "-fps_mode", "vfr"]
    if movie.sound is not None:
        options += _SOUND_CODECS[suffix]
    if movie.moov_first:
        options += ["-movflags", "+faststart"]
    return [*options, str(movie.path.absolute())]
