"""Sound as arrays: speech from espeak-ng, a tone complex or noise band per class, wav files."""

import functools
import struct
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PEAK = 12_000.0
_FLOOR_DB = 45.0


def write_wav(path: Path, samples: NDArray[np.int16], rate_hz: int) -> None:
    """Write 16-bit PCM with the plain header of 44 bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    data = np.ascontiguousarray(samples, dtype="<i2").tobytes()
    block = 2 * num_channels
    form = struct.pack("<HHIIHH", 1, num_channels, rate_hz, rate_hz * block, block, 16)
    head = (
        b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data))
    )
    path.write_bytes(b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data)


@functools.lru_cache(maxsize=1024)
def speech(
    text: str,
    voice: str = "en",
    speed_wpm: int = 175,
    pitch: int = 50,
    amplitude: int = 100,
) -> NDArray[np.float64]:
    """Give espeak-ng's speech at 16 kHz, about -1 to 1. Read only: it is cached."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        numbers = {"-s": speed_wpm, "-p": pitch, "-a": amplitude}
        options = [part for name, value in numbers.items() for part in (name, str(value))]
        command = ["espeak-ng", "-v", voice, *options, "-w", str(path), "--", text]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            raise RuntimeError("espeak-ng not found: apt-get install espeak-ng") from None
        except subprocess.CalledProcessError as failed:
            raise RuntimeError(f"espeak-ng failed: {failed.stderr.decode()}") from failed
        with wave.open(str(path)) as file:
            rate_hz = file.getframerate()
            spoken = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0
    at = np.arange(int(len(spoken) * 16_000 / rate_hz)) * (rate_hz / 16_000)
    resampled = np.interp(at, np.arange(len(spoken)), spoken)
    resampled.flags.writeable = False
    return resampled


def class_sound(
    index: int,
    num_samples: int,
    rate_hz: int,
    generator: np.random.Generator,
    *,
    snr_db: float,
    during: tuple[float, float] | None = None,
) -> NDArray[np.int16]:
    """Give mono samples: noise, and within `during` (seconds) the sound cue of one class.

    Even classes are tone complexes, odd ones tremolo tones; each class has a pitch of its own, a
    sixth of an octave apart. `snr_db` is measured within the event.
    """
    seconds = np.arange(num_samples, dtype=np.float32) / np.float32(rate_hz)
    pitch_hz = 160.0 * 2 ** (index / 6.0) * (1 + generator.normal(0, 0.003))
    partials = (1.0, 0.5, 0.25) if index % 2 == 0 else (1.0,)
    cue = np.zeros(num_samples, np.float32)
    phase = np.float32(2 * np.pi * pitch_hz) * seconds + np.float32(generator.uniform(0, 6))
    for number, weight in enumerate(partials, start=1):
        if number * pitch_hz < 0.45 * rate_hz:
            cue += np.float32(weight) * np.sin(number * phase)
    if index % 2:
        cue *= (1 + np.sin(np.float32(2 * np.pi * (2 + index % 5)) * seconds)) / 2
    start_s, end_s = during or (0.0, num_samples / rate_hz)
    inside = (seconds >= start_s) & (seconds < end_s)
    cue *= inside
    power = float(np.mean(cue[inside] ** 2)) if inside.any() else 0.1
    noise = generator.standard_normal(num_samples, dtype=np.float32)
    noise *= np.float32(np.sqrt(power / 10 ** (min(snr_db, _FLOOR_DB) / 10)))
    mixed = cue + noise
    peak = max(1e-9, float(np.abs(mixed).max()))
    return np.asarray(mixed * (_PEAK / peak), np.int16)


def as_int16(samples: NDArray[np.float64]) -> NDArray[np.int16]:
    """Give samples of -1 to 1 as 16-bit integers; louder ones are clipped."""
    return np.asarray(np.clip(np.round(samples * 32767), -32768, 32767), np.int16)
