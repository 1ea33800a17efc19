"""One file per defect, named by the defect."""

import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtool.testing.layouts import damage, drawing, sound
from mmtool.testing.layouts.encode import Movie, require_tools, run_ffmpeg, write_movies

_RATE_HZ = 16_000
_FPS = Fraction(25)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_ODD_NAMES = {
    "name-hyphen": "-starts with a hyphen.mp4",
    "name-blank": "with blanks in it.mp4",
    "name-comma": "one, two.mp4",
    "name-ampersand": "you&me.mp4",
    "name-non-ascii": "Grüße-日本.mp4",
}


def write_bad_inputs(folder: Path) -> dict[str, Path]:
    """Write the whole pack and give the file of each defect.

    Media of 0.6 seconds but for `av-length` (sound 3 s longer) and `outlier-61s` (61 s).
    `case-twin-lower` and `case-twin-upper` differ only by case, `apple-double` is the `._` twin of
    `apple-double-of`. The files of `lists` are csv tables of the same three rows `id,label`.
    """
    require_tools()
    folder.mkdir(parents=True, exist_ok=True)
    found = _movies(folder)
    found |= _broken(folder, found["plain"])
    found |= _wavs(folder)
    found |= _tables(folder)
    return found


def _good(path: Path) -> Movie:
    generator = np.random.default_rng(7)
    frames = drawing.class_frames(1, 4, 15, generator, width=96, height=64)
    samples = sound.class_sound(2, int(0.6 * _RATE_HZ), _RATE_HZ, generator, snr_db=20)
    return Movie(path, frames, _FPS, samples, _RATE_HZ)


def _movies(folder: Path) -> dict[str, Path]:
    good = _good(folder / "plain.mp4")
    assert good.frames is not None
    assert good.sound is not None
    second = np.zeros(_RATE_HZ, np.int16)
    still = np.repeat(good.frames[:1, ::2, ::2], 61, axis=0)
    changes: dict[str, dict[str, object]] = {
        "plain": {},
        "no-audio": {"sound": None},
        "no-picture": {"frames": None},
        "silent": {"sound": np.zeros_like(good.sound)},
        "audio-10ms": {"sound": good.sound[: _RATE_HZ // 100]},
        "constant-dc": {"sound": np.full_like(good.sound, 3000)},
        "av-length": {"sound": np.concatenate([good.sound, *[second] * 3])},
        "outlier-61s": {"frames": still, "sound": np.tile(second, 61), "fps": Fraction(1)},
        "one-frame": {"frames": good.frames[:1]},
        "rotation-90": {"rotation_degrees": 90},
        "variable-rate": {"variable_rate": True},
        "truncated": {"moov_first": True},
        "moov-missing": {},
        "case-twin-lower": {"path": folder / "Case" / "twinabc.mp4"},
        "case-twin-upper": {"path": folder / "Case" / "twinABC.mp4"},
        **{kind: {"path": folder / name} for kind, name in _ODD_NAMES.items()},
        "apple-double-of": {},
    }
    movies = {}
    for kind, change in changes.items():
        movie = replace(good, path=folder / f"{kind}.mp4", mark=kind)
        movies[kind] = replace(movie, **change)  # type: ignore[arg-type]
    write_movies(list(movies.values()))
    damage.truncate(movies["truncated"].path)
    damage.without_moov(movies["moov-missing"].path)
    return {kind: movie.path for kind, movie in movies.items()}


def _broken(folder: Path, plain: Path) -> dict[str, Path]:
    writers: dict[str, Callable[[Path], object]] = {
        "lfs-pointer": damage.lfs_pointer,
        "html": damage.web_page,
        "empty": damage.empty,
    }
    found = {kind: folder / f"{kind}.mp4" for kind in writers}
    for kind, write in writers.items():
        write(found[kind])
    found["apple-double"] = damage.apple_double(folder / "apple-double-of.mp4")
    found["cover-art"] = folder / "cover-art.mp4"
    cover = folder / "cover.png"
    run_ffmpeg(
        [*_still_picture(), str(cover.absolute())],
    )
    # The picture of the cover comes first, the video second.
    arguments = ["-i", str(cover.absolute()), "-i", str(plain.absolute()), "-map", "0:v"]
    arguments += ["-map", "1:v", "-map", "1:a", "-c", "copy", "-disposition:v:0", "attached_pic"]
    arguments += ["-map_metadata", "-1", "-fflags", "+bitexact"]
    run_ffmpeg([*arguments, str(found["cover-art"].absolute())])
    cover.unlink()
    damage.cover_first(found["cover-art"])
    # Raw H.264 states neither a duration nor a trustworthy frame rate.
    found["no-duration"] = folder / "no-duration.h264"
    raw = ["-i", str(plain.absolute()), "-map", "0:v", "-c", "copy", "-fflags", "+bitexact"]
    run_ffmpeg([*raw, str(found["no-duration"].absolute())])
    return found


def _still_picture() -> list[str]:
    source = ["-f", "lavfi", "-i", "color=c=red:s=64x64:d=1:r=1", "-frames:v", "1"]
    return [*source, "-fflags", "+bitexact", "-flags:v", "+bitexact"]


def _wavs(folder: Path) -> dict[str, Path]:
    tone = np.sin(2 * np.pi * 440 * np.arange(_RATE_HZ // 2) / _RATE_HZ) * 0.5
    at_48k = np.sin(2 * np.pi * 440 * np.arange(24_000) / 48_000) * 0.5
    six = np.stack([at_48k * share for share in (1, 1, 0.5, 0, 0.2, 0.2)], axis=1)
    wide = np.round(tone * (2**23 - 1)).astype("<i4")
    contents = {
        "wav-8-bit": _wav(np.round(tone * 127 + 128).astype(np.uint8).tobytes(), bits=8),
        "wav-24-bit": _wav(wide.view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), bits=24),
        "wav-32-float": _wav(tone.astype("<f4").tobytes(), bits=32, form=_FLOAT),
        "wav-48-khz": _wav(sound.as_int16(at_48k).tobytes(), rate_hz=48_000),
        "wav-5.1": _wav(sound.as_int16(six).tobytes(), rate_hz=48_000, num_channels=6),
        "wav-endless-header": _wav(sound.as_int16(tone).tobytes(), claimed=0xFFFFFFFF),
        "wav-silent": _wav(bytes(_RATE_HZ)),
        "wav-constant-dc": _wav(_constant(3000)),
        "wav-10ms": _wav(sound.as_int16(tone[: _RATE_HZ // 100]).tobytes()),
        "wav-empty": b"",
        "wav-no-samples": _wav(b""),
    }
    for kind, content in contents.items():
        (folder / f"{kind}.wav").write_bytes(content)
    return {kind: folder / f"{kind}.wav" for kind in contents}


def _constant(value: int) -> bytes:
    samples: NDArray[np.int16] = np.full(_RATE_HZ // 2, value, np.int16)
    return samples.tobytes()


def _wav(
    data: bytes,
    *,
    rate_hz: int = _RATE_HZ,
    bits: int = 16,
    num_channels: int = 1,
    form: int = _PCM,
    claimed: int | None = None,
) -> bytes:
    block = bits // 8 * num_channels
    fields = (rate_hz, rate_hz * block, block, bits)
    if num_channels > 2:
        # Channel mask 0x3F: front left, right, centre, low, back left, right.
        head = struct.pack("<HHIIHHHHI", _EXTENSIBLE, num_channels, *fields, 22, bits, 0x3F)
        head += struct.pack("<H", form) + bytes.fromhex("000000001000800000aa00389b71")
    else:
        head = struct.pack("<HHIIHH", form, num_channels, *fields)
    length = len(data) if claimed is None else claimed
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", length)
    whole = len(body) + len(data) if claimed is None else claimed
    return b"RIFF" + struct.pack("<I", whole) + body + data


def _tables(folder: Path) -> dict[str, Path]:
    plain = "id,label\na1,bark\na2,purr\na3,moo\n"
    contents = {
        "csv-bom": b"\xef\xbb\xbf" + plain.encode(),
        "csv-crlf": plain.replace("\n", "\r\n").encode(),
        "csv-cp1252": plain.replace("purr", "it’s – café").encode("cp1252"),
        "csv-quoted-commas": plain.replace("purr", '"purr, softly ""again"""').encode(),
        "csv-blank-line": (plain + "\n").encode(),
    }
    for kind, content in contents.items():
        (folder / f"{kind}.csv").write_bytes(content)
    return {kind: folder / f"{kind}.csv" for kind in contents}
