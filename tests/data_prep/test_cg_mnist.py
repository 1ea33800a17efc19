import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.editions import edition_of
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("cg_mnist")
EDITIONS = PREPARER.module.EDITIONS
MEANS = PREPARER.module.MEAN_COLOURS
SIZES = {"train": 1_200, "t10k": 400}


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


@pytest.fixture
def release(tmp_path) -> Path:
    """Write a MNIST of white squares whose labels count up."""
    (tmp_path / "mnist").mkdir()
    for part, count in SIZES.items():
        labels = (np.arange(count) % 10).astype(np.uint8)
        pictures = np.zeros((count, 28, 28), np.uint8)
        pictures[:, 8:20, 8:20] = 255
        # No two pictures are the same.
        pictures[:, 0, :2] = np.stack([np.arange(count) // 250, np.arange(count) % 250], axis=1)
        pictures[:, 0, 2] = len(part)
        (tmp_path / "mnist" / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
        (tmp_path / "mnist" / f"{part}-images-idx3-ubyte").write_bytes(idx(pictures))
    return tmp_path


def read(root: Path) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, {})))


def tint(clip: Clip, **options: str) -> np.ndarray:
    """Give the colour, 0 to 1, that a white picture gets."""
    given = {"gray": np.full((1, 2, 2), 255, np.uint8), "colour": np.full((3, 2, 2), 255, np.uint8)}
    done = PREPARER.finish(clip, given, parse_options(PREPARER, options))
    assert (done["gray"] == 255).all()
    assert done["colour"].dtype == np.uint8
    assert (done["colour"] == done["colour"][:, :1, :1]).all()
    return done["colour"][:, 0, 0] / 255


def test_val_is_a_twelfth_of_train_evenly_over_digits(release):
    clips = read(release)

    assert Counter(c.split["official"] for c in clips) == {"train": 1_100, "val": 100, "test": 400}
    val = Counter(c.label for c in clips if c.split["official"] == "val")
    assert set(val.values()) == {10}


def test_in_training_and_validation_the_tint_is_that_of_the_digit(release):
    clips = [clip for clip in read(release) if clip.split["official"] != "test"]

    for digit in range(10):
        tints = np.stack([tint(c, variance="0.0001") for c in clips if c.label == digit])
        np.testing.assert_allclose(tints.mean(axis=0), MEANS[digit], atol=0.02)


def test_in_test_the_tint_says_nothing_about_the_digit(release):
    clips = [clip for clip in read(release) if clip.split["official"] == "test"]

    nearest = [np.abs(MEANS - tint(c, variance="0")).sum(axis=1).argmin() for c in clips]

    assert set(nearest) == set(range(10))
    assert 0.04 < np.mean([n == c.label for n, c in zip(nearest, clips, strict=True)]) < 0.18


def test_the_noise_has_the_variance_that_was_asked_for(release):
    train = [clip for clip in read(release) if clip.split["official"] == "train"]
    # Teal's green and blue lie at one half, where nothing is clipped.
    teal = np.stack([tint(clip, variance="0.01") for clip in train if clip.label == 1])

    assert np.var(teal[:, 1:]) == pytest.approx(0.01, rel=0.3)


def test_a_tint_depends_on_the_clip_and_the_seed_alone(release):
    first, second = read(release)[0], read(release)[10]

    np.testing.assert_array_equal(tint(first), tint(read(release)[0]))
    assert (tint(first) != tint(second)).any()
    assert (tint(first) != tint(first, colour_seed="1")).any()


def test_a_tinted_picture_keeps_the_shape(release):
    shape = np.arange(784, dtype=np.float64).reshape(28, 28) * 255 / 783
    gray = np.rint(shape).astype(np.uint8)[None]
    given = {"gray": gray.copy(), "colour": np.repeat(gray, 3, axis=0)}

    done = PREPARER.finish(read(release)[0], given, parse_options(PREPARER, {"variance": "0"}))

    expected = gray.astype(float) * MEANS[0][:, None, None]
    np.testing.assert_allclose(done["colour"], expected, atol=0.51)


def arrays(root: Path, *, shift: int = 0) -> Path:
    for part, name in (("train", "train"), ("t10k", "test")):
        labels = (np.arange(SIZES[part]) + shift) % 10
        np.save(root / f"{name}_label.npy", labels)
        np.save(root / f"{name}_image.npy", np.full((SIZES[part], 28, 28, 3), 77, np.uint8))
    return root


def test_the_published_colours_are_taken_as_they_are(release):
    root = arrays(release)
    clip = read(root)[5]

    assert edition_of(root, EDITIONS) == "jitter"
    assert clip.sources["colour"].path == root / "train_image.npy"
    assert clip.sources["colour"].row == clip.sources["gray"].row == 5
    np.testing.assert_allclose(tint(clip), 1.0)


def test_published_labels_in_another_order_are_refused(release):
    with pytest.raises(SourceError, match="does not hold the labels of MNIST in their order"):
        read(arrays(release, shift=1))


def test_the_packed_file_is_refused_with_the_way_to_unpack_it(release):
    np.save(release / PREPARER.module.PACKED, np.array({"a": 1}, dtype=object))

    with pytest.raises(SourceError, match="does not open") as caught:
        read(release)

    assert edition_of(release, EDITIONS) == "packed"
    assert "execute code" in caught.value.why
    assert "numpy.save" in caught.value.fix


def test_it_becomes_the_same_store_twice(release, tmp_path):
    made = [
        prepare(
            PrepareRequest("cg_mnist", release, tmp_path / str(w), workers=w, limit=200),
            lambda _: None,
        )
        for w in (1, 2)
    ]

    assert made[0].hash == made[1].hash
    store = open_store(made[0].path)
    assert tuple(store.columns["gray"].shape) == (1, 28, 28)
    assert tuple(store.columns["colour"].shape) == (3, 28, 28)


def test_the_whole_of_mnist_is_listed(kit):
    by_split = Counter(clip.split["official"] for clip in read(kit))

    assert by_split == {"train": 55_000, "val": 5_000, "test": 10_000}
