"""Raw files for the tests of the media room: waves by hand, the rest by the ffmpeg program."""

import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmtool.media import codec

TONE_HZ = 440
CLIP_S = 2.0
FPS = 25
ARGUMENTS = {
    "clip.mp4": ["-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p", "-c:a", "aac"],
    "clip.avi": ["-c:v", "mpeg4", "-q:v", "2", "-c:a", "libmp3lame"],
    "clip.flv": ["-c:v", "flv", "-q:v", "2", "-c:a", "libmp3lame"],
    "clip.mkv": ["-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p", "-c:a", "libvorbis"],
    "mute.mp4": ["-an", "-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p"],
    "tone.flac": ["-vn", "-c:a", "flac"],
    "tone.mp3": ["-vn", "-c:a", "libmp3lame", "-b:a", "128k"],
    "tone.ogg": ["-vn", "-c:a", "libvorbis"],
    "tone.m4a": ["-vn", "-c:a", "aac"],
    "tone.alaw.wav": ["-vn", "-ar", "8000", "-c:a", "pcm_alaw"],
}


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def wav_format(tag: int, num_channels: int, rate_hz: int, bits: int) -> tuple[bytes, bytes]:
    align = num_channels * bits // 8
    return b"fmt ", struct.pack("<HHIIHH", tag, num_channels, rate_hz, rate_hz * align, align, bits)


def wav16(samples: np.ndarray, rate_hz: int = 16_000) -> bytes:
    """Give a plain wave file of int16 [sample] or [sample, channel]."""
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    return riff(
        wav_format(1, num_channels, rate_hz, 16), (b"data", samples.astype("<i2").tobytes())
    )


def tone(rate_hz: int, seconds: float = CLIP_S, hz: float = TONE_HZ, level: float = 0.5):
    """Give a sine as float64."""
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def extensible(bits: int, tag: int, num_channels: int, rate_hz: int) -> tuple[bytes, bytes]:
    """Give the long form of a format chunk, with the tag inside a GUID."""
    plain = wav_format(0xFFFE, num_channels, rate_hz, bits)[1]
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return b"fmt ", plain + struct.pack("<HHI", 22, bits, 0) + guid


def main_frequency(wave: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.argmax(spectrum) * rate_hz / len(wave))


def grey_at(frame_number: int) -> int:
    """Say the brightness that `clips` gives to a frame of that number."""
    return 20 + 4 * frame_number


@pytest.fixture(scope="session")
def sounds() -> SimpleNamespace:
    """Give what makes and measures waves."""
    return SimpleNamespace(
        riff=riff,
        wav_format=wav_format,
        extensible=extensible,
        wav16=wav16,
        tone=tone,
        main_frequency=main_frequency,
        tone_hz=TONE_HZ,
        clip_s=CLIP_S,
    )


@pytest.fixture(scope="session")
def needs_torchcodec():
    if isinstance(codec.load(), str):
        pytest.skip(f"torchcodec does not load here: {codec.load()}")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of clips of 50 frames, each brighter than the one before, with a 440-Hz tone.

    The right half of the picture is a pure red, so that a swap of channels shows.
    """
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg program is not on PATH")
    folder = tmp_path_factory.mktemp("clips")
    count = round(CLIP_S * FPS)
    frames = np.zeros((count, 48, 64, 3), np.uint8)
    frames[:] = np.array([grey_at(i) for i in range(count)])[:, None, None, None]
    frames[:, :, 32:] = (220, 0, 0)
    (folder / "frames.rgb").write_bytes(frames.tobytes())
    sound = np.rint(tone(44_100) * 32767).astype(np.int16)
    (folder / "tone.wav").write_bytes(wav16(np.stack([sound, sound], axis=1), 44_100))
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", str(FPS)]
    command = ["ffmpeg", "-v", "error", "-y", *raw, "-i", "frames.rgb", "-i", "tone.wav"]
    for name, arguments in ARGUMENTS.items():
        command += ["-map", "0:v"] if "-vn" not in arguments else []
        command += ["-map", "1:a"] if "-an" not in arguments else []
        command += [*arguments, name]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    # Half the frames at one rate, half at another: the container keeps both.
    uneven = "setpts='if(lt(N,25),N,25+3*(N-25))/25/TB'"
    command = ["ffmpeg", "-v", "error", "-y", *raw, "-i", "frames.rgb", "-vf", uneven]
    command += ["-fps_mode", "vfr", "-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, "uneven.mkv"], cwd=folder, check=True, capture_output=True)
    return folder
