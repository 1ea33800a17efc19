"""AV-MNIST: a blurred handwritten digit with a spoken one, rebuilt cleanly or as it was published.

    mmtool prepare av_mnist --source DIR                     rebuilt from MNIST and FSDD
    mmtool prepare av_mnist --source DIR --limit 14000       a fifth of it, in proportion

    DIR/mnist/{train,t10k}-{images,labels}-idx*-ubyte.gz     clean: the four files of MNIST
    DIR/fsdd/*.zip or fsdd/recordings/*.wav                  the Free Spoken Digit Dataset

    DIR/image/{train,test}_data.npy                          published: pictures, n x 784
    DIR/audio/{train,test}_data.npy                          spectrograms, n x 112 x 112
    DIR/{train,test}_labels.npy

The two are different tasks and their results must not be mixed.

clean      A picture keeps its projection on the first 4 principal components of the training
           pictures, without the mean being added back, as published; the basis is fitted on train
           alone (the published generator fitted another one on test). Pixel = 128 + value / 2.
           The sound is the whole recording at 8 kHz, with white noise of `snr_db` if that is given,
           as log(|STFT|) of 112 frequencies x 112 steps of one second, shorter ones repeated.
           Test pictures (t10k) go with takes 0-4, the official test of FSDD; the last 5,000 of
           train are val and go with takes 5-6; the others with takes 7-49. Within a split each
           picture takes the next recording of its digit, cyclic. So no recording is in two splits,
           but all six speakers are in each.
published  The arrays as they are: 55,000 train, 5,000 val (the last ones), 10,000 test. Its
           generator kept the order in which parallel processes finished, so that sound and label
           may not belong together; around 40 % by sound alone is its ceiling, where the clean
           sounds reach more than 95 %. Numbers that are not uint8 are scaled to 0..255 by the
           extremes of train.

Splits  official   as above
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmtool.media.records import read_idx
from mmtool.prepare import api

NAME = "av_mnist"
TITLE = "AV-MNIST: handwritten digits reduced by PCA with spoken digits"
LICENCE = (
    "MNIST: CC BY-SA 3.0 as commonly stated; FSDD: CC BY-SA 4.0; published arrays: none stated"
)
SOURCE = "the four MNIST files and github.com/Jakobovski/free-spoken-digit-dataset"
CITATION = (
    "V. Vielzeuf et al., CentralNet, 2018; P. P. Liang et al., MultiBench, NeurIPS 2021; "
    "Z. Jackson et al., Free Spoken Digit Dataset; Y. LeCun et al., MNIST"
)
_ARRAYS = ("image/train_data.npy", "image/test_data.npy", "audio/train_data.npy",
           "audio/test_data.npy", "train_labels.npy", "test_labels.npy")  # fmt: skip
EDITIONS = {
    "clean": ("mnist/train-images*", "mnist/t10k-images*", "fsdd"),
    "published": _ARRAYS,
}
MAX_MISSING = 0.0

NUM_VAL = 5_000
VAL_TAKES = range(5, 7)
_SIDE, _STEPS = 28, 112
_GREY, _GAIN = 128.0, 0.5
_fit_once = threading.Lock()


class Options(api.Options):
    """How hard the clean construction is; the published arrays are taken as they are."""

    components: int = Field(4, ge=1, le=784)
    """Principal components kept of each picture; fewer make the picture harder to read."""
    snr_db: float | None = None
    """Signal-to-noise ratio of white noise added to the sound; unset adds none."""
    noise_seed: int = Field(0, ge=0)


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Picture of 28 x 28 and spectrogram of 112 x 112."""
    del options
    image = api.FramesSpec(height=_SIDE, width=_SIDE, channels=1)
    if api.edition_of(root, EDITIONS) == "published":
        audio = api.FramesSpec(height=_STEPS, width=_STEPS, channels=1)
        return {
            name: api.Column(
                name, replace(spec, value_range=_range(root / name / "train_data.npy"))
            )
            for name, spec in (("audio", audio), ("image", image))
        }
    rate_hz = api.SPOKEN_RATE_HZ
    feature = api.LogSpectrogram(rate_hz=rate_hz, seconds=1.0, num_fft=2 * _STEPS - 2, hop=72)
    return {
        "audio": api.Column("audio", api.AudioSpec(rate_hz=rate_hz, feature=feature)),
        "image": api.Column("image", image),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The ten digits."""
    del root, options
    return [str(digit) for digit in range(10)]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every picture of MNIST with its sound."""
    del options
    if api.edition_of(root, EDITIONS) == "published":
        yield from _published(root)
        return
    takes: dict[tuple[str, int], list[tuple[str, api.Source]]] = defaultdict(list)
    spoken = api.spoken_digits(root / "fsdd", obtain_from=SOURCE.split(" and ")[1])
    for (digit, speaker, take), sound in sorted(spoken.items(), key=lambda item: item[0]):
        takes[_split_of(take), digit].append((speaker, sound))
    sounds = {key: cycle(found) for key, found in takes.items()}
    parts: tuple[Literal["train", "t10k"], ...] = ("train", "t10k")
    for part in parts:
        pictures = api.handwritten_digits(root / "mnist", part)
        first_val = len(pictures.labels) - NUM_VAL
        for row, digit in enumerate(pictures.labels.tolist()):
            split = "test" if part == "t10k" else "val" if row >= first_val else "train"
            if (split, digit) not in sounds:
                raise api.SourceError(
                    f"no recording of digit {digit} is left for {split}",
                    where=str(root / "fsdd"),
                    why="test takes 0-4, val takes 5-6 and train the other takes of each digit",
                    fix="complete the recordings",
                )
            speaker, sound = next(sounds[split, digit])
            picture = api.Source(pictures.images, row=row)
            yield api.Clip(
                id=f"{part}-{row:05d}",
                label=digit,
                sources={"audio": sound, "image": picture},
                split={"official": split},
                group=speaker,
            )


def finish(
    clip: api.Clip, arrays: dict[str, NDArray[np.generic]], options: Options
) -> dict[str, NDArray[np.generic]]:
    """Project the picture and add the noise, which depends on the clip's id alone."""
    if not clip.group:  # the published arrays, which name no speaker
        return arrays
    if "image" in arrays:
        picture = arrays["image"]
        folder = clip.sources["image"].path.parent
        with _fit_once:
            mean, basis = _components(folder, options.components)
        centred = picture.reshape(-1).astype(np.float64) - mean
        value = basis @ (basis.T @ centred)
        pixels = np.clip(np.rint(_GREY + _GAIN * value), 0, 255)
        arrays["image"] = pixels.astype(np.uint8).reshape(picture.shape)
    if "audio" in arrays and options.snr_db is not None:
        wave = arrays["audio"].astype(np.int16, copy=False)
        name = f"{clip.id}/audio"
        arrays["audio"] = api.with_noise(wave, options.snr_db, name, options.noise_seed)
    return arrays


def _split_of(take: int) -> str:
    if take in api.SPOKEN_TEST_TAKES:
        return "test"
    return "val" if take in VAL_TAKES else "train"


@lru_cache(maxsize=4)
def _components(folder: Path, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the mean [784] and the first principal axes [784, count] of the training pictures."""
    pictures = read_idx(api.handwritten_digits(folder, "train").images)
    pixels = pictures[: max(1, len(pictures) - NUM_VAL)].reshape(-1, _SIDE**2).astype(np.float64)
    mean = pixels.mean(axis=0)
    centred = pixels - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    return mean, np.ascontiguousarray(axes[:, : -count - 1 : -1])


def _published(root: Path) -> Iterable[api.Clip]:
    for part in ("train", "test"):
        files = {name: root / name / f"{part}_data.npy" for name in ("audio", "image")}
        label_file = root / f"{part}_labels.npy"
        labels = _mapped(label_file).reshape(-1)
        for path in files.values():
            if len(_mapped(path)) != len(labels):
                raise api.SourceError(
                    f"{path.name} and {label_file.name} have different lengths",
                    where=str(path),
                    fix="take the six files from one download",
                )
        for row, digit in enumerate(labels.tolist()):
            is_val = part == "train" and row >= len(labels) - NUM_VAL
            yield api.Clip(
                id=f"{part}-{row:05d}",
                label=int(digit),
                sources={name: api.Source(path, row=row) for name, path in files.items()},
                split={"official": "val" if is_val else part},
            )


def _range(path: Path) -> tuple[float, float] | None:
    """Give the extremes of the training values, or nothing where they are pixels already."""
    values = _mapped(path)
    if values.dtype == np.uint8:
        return None
    return float(values.min()), float(values.max())


def _mapped(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise api.SourceError(
            f"{path.name} is not a plain array ({error})",
            where=str(path),
            fix="download it again",
        ) from error
    return found
