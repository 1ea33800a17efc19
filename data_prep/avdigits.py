"""Audio-visual digits: spoken digits (FSDD) paired with handwritten ones (MNIST) of the same class.

    mmtool prepare avdigits                     the sample that comes with mmtool
    mmtool prepare avdigits --source DIR        the whole sets

DIR holds `fsdd/` (the repository's zip, or its `recordings/` folder) and `mnist/` (the four idx
files, gzipped or not). Recordings are named {digit}_{speaker}_{take}.wav.

A genuine case of modality imbalance: either modality alone reaches nine in ten, yet trained
together the easy picture is learnt first and the voice is left behind. Noise makes the task hard
enough for that to matter; it is drawn from the clip's id, so that a store can be rebuilt exactly.

No recording and no image occurs in two splits: a recording belongs to one split and is paired with
several images, and every image is used once.

Splits  official   test takes 0-4 (FSDD's own), val takes 5-6, train the rest; test images from t10k
        speaker    test one speaker, val another, train the others
"""

import hashlib
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmtool.media.failure import MediaError
from mmtool.media.records import read_idx
from mmtool.prepare import api

NAME = "avdigits"
TITLE = "Audio-visual digits: spoken (FSDD) and handwritten (MNIST)"
LICENCE = "FSDD: CC BY-SA 4.0; MNIST: CC BY-SA 3.0 as commonly stated"
SOURCE = "github.com/Jakobovski/free-spoken-digit-dataset and the four MNIST idx files"
CITATION = (
    "Z. Jackson et al., Free Spoken Digit Dataset; "
    "Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits"
)
BUNDLED = Path(__file__).parent / "samples" / "avdigits"

RATE_HZ = 8_000
OFFICIAL_TEST_TAKES = range(5)
VAL_TAKES = range(5, 7)
# theo and yweweler were recorded at a quarter of the others' level or less. Both are in train: held
# out, the voice would be at chance for its loudness alone.
TEST_SPEAKER, VAL_SPEAKER = "nicolas", "lucas"
_RECORDING = re.compile(r"(?:^|/)(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav$")


class Options(api.Options):
    """How hard the task is, and how many pairs are made."""

    snr_db: float = 6.0
    """Signal-to-noise ratio of the white noise added to each recording."""
    image_sigma: float = Field(0.05, ge=0.0)
    """Deviation of the noise added to each picture, whose values run from 0 to 1."""
    pairs_per_test_clip: int = Field(10, ge=1)
    """Pictures paired with each recording of the official test takes."""
    pairs_per_train_clip: int = Field(6, ge=1)
    """Pictures paired with each other recording."""
    noise_seed: int = Field(0, ge=0)


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Log-mel spectrogram of 0.65 s, and the picture."""
    del root, options
    feature = api.LogMel(num_mels=40, num_frames=40, window=256, hop=128, low_hz=60.0)
    return {
        "audio": api.Column("audio", api.AudioSpec(rate_hz=RATE_HZ, feature=feature)),
        "image": api.Column("image", api.FramesSpec(height=28, width=28, channels=1)),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The ten digits."""
    del root, options
    return [str(digit) for digit in range(10)]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every recording with each of its pictures."""
    recordings = _recordings(root / "fsdd")
    pictures = {part: _pictures(root / "mnist", part) for part in ("t10k", "train")}
    for (digit, speaker, take), audio in sorted(recordings.items()):
        is_test = take in OFFICIAL_TEST_TAKES
        part = "t10k" if is_test else "train"
        wanted = options.pairs_per_test_clip if is_test else options.pairs_per_train_clip
        for number in range(wanted):
            picture = next(pictures[part][digit], None)
            if picture is None:
                raise api.SourceError(
                    f"MNIST's {part} part has too few pictures of digit {digit}",
                    where=str(root / "mnist"),
                    why=f"every recording takes {wanted} of its own, none is used twice",
                    fix="-s pairs_per_test_clip=1" if is_test else "-s pairs_per_train_clip=1",
                )
            yield api.Clip(
                id=f"{digit}_{speaker}_{take:02d}_{number:02d}",
                label=digit,
                sources={"audio": audio, "image": picture},
                split={"official": _official(take), "speaker": _by_speaker(speaker)},
                group=speaker,
            )


def finish(
    clip: api.Clip, arrays: dict[str, NDArray[np.generic]], options: Options
) -> dict[str, NDArray[np.generic]]:
    """Add the noise, drawn from the clip's id; a modality that did not decode is not there."""
    if "audio" in arrays:
        wave = arrays["audio"].astype(np.float64)
        deviation = np.sqrt(np.mean(wave**2) / 10 ** (options.snr_db / 10))
        wave += deviation * _noise(f"{clip.id}/audio", wave.shape, options)
        arrays["audio"] = np.clip(np.round(wave), -32768, 32767).astype(np.int16)
    if "image" in arrays:
        picture = arrays["image"].astype(np.float64)
        picture += 255 * options.image_sigma * _noise(f"{clip.id}/image", picture.shape, options)
        arrays["image"] = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    return arrays


def _official(take: int) -> str:
    if take in OFFICIAL_TEST_TAKES:
        return "test"
    return "val" if take in VAL_TAKES else "train"


def _by_speaker(speaker: str) -> str:
    return {TEST_SPEAKER: "test", VAL_SPEAKER: "val"}.get(speaker, "train")


def _noise(name: str, shape: tuple[int, ...], options: Options) -> NDArray[np.float64]:
    """Give standard normal numbers that depend on the name and the seed alone."""
    digest = hashlib.sha256(f"{options.noise_seed}/{name}".encode()).digest()
    key = int.from_bytes(digest[:16], "little")
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def _recordings(folder: Path) -> dict[tuple[int, str, int], api.Source]:
    """Find recordings by (digit, speaker, take), in an archive or a folder."""
    found: dict[tuple[int, str, int], api.Source] = {}
    for archive in sorted(folder.glob("*.zip")):
        try:
            with zipfile.ZipFile(archive) as opened:
                members = opened.namelist()
        except zipfile.BadZipFile as error:
            raise api.SourceError(
                f"{archive.name} is not a whole zip archive ({error})",
                where=str(archive),
                fix="download it again",
            ) from error
        for member in members:
            if match := _RECORDING.search(member):
                found[_key(match)] = api.Source(archive, member=member)
    for path in sorted(folder.rglob("*.wav")):
        if match := _RECORDING.search(path.name):
            found.setdefault(_key(match), api.Source(path))
    if not found:
        raise api.SourceError(
            "no spoken digits were found",
            where=str(folder),
            why="looked for a zip archive or wav files named {digit}_{speaker}_{take}.wav",
            fix=f"put the archive of {SOURCE.split(' and ')[0]} into {folder}",
        )
    return found


def _key(match: re.Match[str]) -> tuple[int, str, int]:
    return int(match["digit"]), match["speaker"], int(match["take"])


def _pictures(folder: Path, part: str) -> dict[int, Iterator[api.Source]]:
    """Give the pictures of each digit in file order."""
    images, labels = (_idx_file(folder, f"{part}-{kind}") for kind in ("images", "labels"))
    try:
        label, num_pictures = read_idx(labels), len(read_idx(images))
    except MediaError as error:
        raise api.SourceError(
            f"MNIST's {part} part cannot be read",
            where=str(error),
            fix=f"download {images.name} and {labels.name} again",
        ) from error
    if len(label) != num_pictures:
        raise api.SourceError(
            f"{images.name} and {labels.name} have different lengths",
            where=str(folder),
            fix="download both again",
        )
    rows: dict[int, list[api.Source]] = defaultdict(list)
    for row, digit in enumerate(label.tolist()):
        rows[digit].append(api.Source(images, row=row))
    return {digit: iter(rows[digit]) for digit in range(10)}


def _idx_file(folder: Path, stem: str) -> Path:
    axes = 3 if stem.endswith("images") else 1
    names = [f"{stem}{dot}idx{axes}-ubyte{ending}" for dot in "-." for ending in (".gz", "")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise api.SourceError(
        f"MNIST's {stem} are missing",
        where=str(folder),
        why=f"looked for {', '.join(names)}",
        fix=f"put the four MNIST files into {folder}",
    )
