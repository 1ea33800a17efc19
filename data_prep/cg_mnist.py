"""Colored-and-gray-MNIST: the colour gives the digit away in training and says nothing in test.

    mmtool prepare cg_mnist --source DIR

    DIR/mnist/{train,t10k}-{images,labels}-idx*-ubyte.gz     rebuilt: the four files of MNIST
    DIR/{train,test}_{image,label}.npy                       jitter: beside them, the colour file

Two views of one picture: gray, and tinted. In train (and in val, which is drawn from it) the tint
is the mean colour of the digit plus normal noise of variance 0.03 per channel; in test it is the
mean colour of a random class plus the same noise. A model that follows the colour is near perfect
on val and falls towards chance on test: val cannot tell a model that has learnt the shape.

rebuilt  Made from MNIST. Mean colours are the ten commonly read off the published file; class and
         noise are drawn from the clip's id, values are clipped to 0..1 and multiply the gray value.
jitter   The published `mnist_10color_jitter_var_0.030.npy` of Kim et al., as four plain arrays. It
         is a pickled mapping: reading it may execute code that it brings along, so mmtool does not.
         Where you trust your copy, unpack it once; the error for the packed file shows how. Its
         labels must equal those of MNIST, row by row.

Published vanilla results differ by 15 points between papers, whose colour file, variance and
network differ. State all three.

Splits  official   60,000 train, of which 5,000 are drawn evenly over digits for val; 10,000 test
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmtool.prepare import api

NAME = "cg_mnist"
TITLE = "Colored-and-gray-MNIST: colour is a shortcut that test takes away"
LICENCE = "MNIST: CC BY-SA 3.0 as commonly stated; the published colour file states none"
SOURCE = "the four MNIST files"
CITATION = (
    "N. Wu et al., Characterizing and overcoming the greedy nature of learning in multi-modal deep "
    "neural networks, ICML 2022; B. Kim et al., Learning not to learn, CVPR 2019"
)
PACKED = "mnist_10color_jitter_var_0.030.npy"
_PARTS: Mapping[Literal["train", "t10k"], str] = {"train": "train", "t10k": "test"}
_MNIST = ("mnist/train-images*", "mnist/t10k-images*")
EDITIONS = {
    "jitter": (*_MNIST, "train_image.npy", "test_image.npy", "train_label.npy", "test_label.npy"),
    "packed": (*_MNIST, PACKED),
    "rebuilt": _MNIST,
}
MAX_MISSING = 0.0

VAL_SHARE = 1 / 12
MEAN_COLOURS = np.array(
    [(220, 20, 60), (0, 128, 128), (253, 233, 16), (0, 149, 182), (237, 145, 33),
     (145, 30, 188), (70, 240, 240), (250, 197, 187), (210, 245, 60), (128, 0, 0)]
) / 255.0  # fmt: skip


class Options(api.Options):
    """The colours of the rebuilt edition."""

    variance: float = Field(0.03, ge=0.0)
    """Variance of the noise on each channel of a picture's colour, on a scale of 0 to 1."""
    colour_seed: int = Field(0, ge=0)


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """The gray and the coloured picture."""
    del root, options
    return {
        "gray": api.Column("gray", api.FramesSpec(height=28, width=28, channels=1)),
        "colour": api.Column("colour", api.FramesSpec(height=28, width=28, channels=3)),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The ten digits."""
    del root, options
    return [str(digit) for digit in range(10)]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every picture of MNIST."""
    del options
    edition = api.edition_of(root, EDITIONS)
    if edition == "packed":
        raise _packed(root)
    for part, name in _PARTS.items():
        digits = api.handwritten_digits(root / "mnist", part)
        coloured = digits.images
        if edition == "jitter":
            coloured = root / f"{name}_image.npy"
            _check_labels(root / f"{name}_label.npy", digits.labels)
        labels = digits.labels.tolist()
        ids = [f"{part}-{row:05d}" for row in range(len(labels))]
        val = api.draw_share(ids, VAL_SHARE, "cg_mnist", labels=labels) if part == "train" else ()
        for row, (clip_id, digit) in enumerate(zip(ids, labels, strict=True)):
            yield api.Clip(
                id=clip_id,
                label=digit,
                sources={
                    "gray": api.Source(digits.images, row=row),
                    "colour": api.Source(coloured, row=row),
                },
                split={"official": "val" if clip_id in val else name},
            )


def finish(
    clip: api.Clip, arrays: dict[str, NDArray[np.generic]], options: Options
) -> dict[str, NDArray[np.generic]]:
    """Tint the picture of the rebuilt edition; the published one comes in its colours."""
    if "colour" in arrays and clip.sources["colour"].path == clip.sources["gray"].path:
        tinted = arrays["colour"].astype(np.float64) * _colour(clip, options)[:, None, None]
        arrays["colour"] = np.rint(tinted).astype(np.uint8)
    return arrays


def _colour(clip: api.Clip, options: Options) -> NDArray[np.float64]:
    seed = options.colour_seed
    is_test = clip.split["official"] == "test"
    chosen = api.named_choice(f"{clip.id}/class", 10, seed) if is_test else clip.label
    noise = np.sqrt(options.variance) * api.named_normal(f"{clip.id}/colour", (3,), seed)
    colour: NDArray[np.float64] = np.clip(MEAN_COLOURS[chosen] + noise, 0.0, 1.0)
    return colour


def _check_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False).reshape(-1)
    except (OSError, ValueError) as error:
        raise api.SourceError(
            f"{path.name} is not a plain array ({error})", where=str(path), fix=_UNPACK
        ) from error
    if len(found) != len(labels) or (found != labels).any():
        raise api.SourceError(
            f"{path.name} does not hold the labels of MNIST in their order",
            where=str(path),
            why=f"it has {len(found):,}, MNIST {len(labels):,}; the two views would not match",
            fix=f"remove the four arrays from {path.parent} to rebuild the colours from MNIST",
        )


_UNPACK = (
    "if you trust your copy: "
    f"""python -c "import numpy; d = numpy.load('{PACKED}', encoding='latin1', """
    """allow_pickle=True).item(); [numpy.save(k, d[k]) for k in d]" """
).strip()


def _packed(root: Path) -> api.SourceError:
    return api.SourceError(
        f"{PACKED} is a pickle inside of an array, which mmtool does not open",
        where=str(root / PACKED),
        why="reading it may execute code that the file brings along",
        fix=f"{_UNPACK}; or move it away, to rebuild the colours from MNIST",
    )
