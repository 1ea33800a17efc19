"""The layouts of MNIST and of the Free Spoken Digit Dataset, and noise that can be rebuilt."""

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import SourceError
from mmtool.media.failure import MediaError
from mmtool.media.records import read_idx
from mmtool.media.spec import Source

MnistPart: TypeAlias = Literal["train", "t10k"]
Take: TypeAlias = tuple[int, str, int]
"""Digit, speaker and number of a recording."""

SPOKEN_RATE_HZ = 8_000
"""Sampling rate of all spoken digits."""
SPOKEN_TEST_TAKES = range(5)
"""The takes that the spoken digits' own page keeps for test."""
_RECORDING = re.compile(r"(?:^|/)(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav$")


@dataclass(frozen=True, slots=True, eq=False)
class HandwrittenDigits:
    """One part of MNIST: the file of its pictures, and their digits in file order."""

    images: Path
    labels: NDArray[np.uint8]


def handwritten_digits(folder: Path, part: MnistPart) -> HandwrittenDigits:
    """Find the two idx files of a part of MNIST, gzipped or not, and read the labels."""
    images, labels = (_idx_file(folder, f"{part}-{kind}") for kind in ("images", "labels"))
    try:
        found, num_pictures = read_idx(labels), len(read_idx(images))
    except MediaError as error:
        raise SourceError(
            f"MNIST's {part} part cannot be read",
            where=str(error),
            fix=f"download {images.name} and {labels.name} again",
        ) from error
    if len(found) != num_pictures:
        raise SourceError(
            f"{images.name} and {labels.name} have different lengths",
            where=str(folder),
            fix="download both again",
        )
    return HandwrittenDigits(images, found)


def spoken_digits(folder: Path, *, obtain_from: str) -> dict[Take, Source]:
    """Find the recordings {digit}_{speaker}_{take}.wav, in an archive or a folder."""
    found: dict[Take, Source] = {}
    for archive in sorted(folder.glob("*.zip")):
        try:
            with zipfile.ZipFile(archive) as opened:
                members = opened.namelist()
        except zipfile.BadZipFile as error:
            raise SourceError(
                f"{archive.name} is not a whole zip archive ({error})",
                where=str(archive),
                fix="download it again",
            ) from error
        for member in members:
            if match := _RECORDING.search(member):
                found[_take(match)] = Source(archive, member=member)
    for path in sorted(folder.rglob("*.wav")):
        if match := _RECORDING.search(path.name):
            found.setdefault(_take(match), Source(path))
    if not found:
        raise SourceError(
            "no spoken digits were found",
            where=str(folder),
            why="looked for a zip archive or wav files named {digit}_{speaker}_{take}.wav",
            fix=f"put the archive of {obtain_from} into {folder}",
        )
    return found


def named_normal(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """Give standard normal numbers that depend on the name and the seed alone."""
    return _generator(name, seed).standard_normal(shape)


def named_choice(name: str, count: int, seed: int) -> int:
    """Give a number from 0 to count - 1 that depends on the name and the seed alone."""
    return int(_generator(name, seed).integers(count))


def with_noise(wave: NDArray[np.int16], snr_db: float, name: str, seed: int) -> NDArray[np.int16]:
    """Add white noise at a signal-to-noise ratio; what exceeds 16 bits is clipped."""
    noisy = wave.astype(np.float64)
    deviation = np.sqrt(np.mean(noisy**2) / 10 ** (snr_db / 10))
    noisy += deviation * named_normal(name, noisy.shape, seed)
    return np.clip(np.round(noisy), -32768, 32767).astype(np.int16)


def _generator(name: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))


def _take(match: re.Match[str]) -> Take:
    return int(match["digit"]), match["speaker"], int(match["take"])


def _idx_file(folder: Path, stem: str) -> Path:
    axes = 3 if stem.endswith("images") else 1
    names = [f"{stem}{dot}idx{axes}-ubyte{ending}" for dot in "-." for ending in (".gz", "")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise SourceError(
        f"MNIST's {stem} are missing",
        where=str(folder),
        why=f"looked for {', '.join(names)}",
        fix=f"put the four MNIST files into {folder}",
    )
