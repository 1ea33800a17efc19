import io
import struct
import wave
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.records import read_idx
from mmtool.prepare.api import Clip
from mmtool.prepare.editions import edition_of
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("av_mnist")
EDITIONS = PREPARER.module.EDITIONS


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def sound(value: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8_000)
        writer.writeframes((np.arange(1_000) * (value + 1) % 2_000).astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """Write a release of 300 + 60 pictures, the last 50 of train being val."""
    monkeypatch.setattr(PREPARER.module, "NUM_VAL", 50)
    (tmp_path / "fsdd" / "recordings").mkdir(parents=True)
    (tmp_path / "mnist").mkdir()
    for digit in range(10):
        for take in (0, 5, 7, 8):
            path = tmp_path / "fsdd" / "recordings" / f"{digit}_ann_{take}.wav"
            path.write_bytes(sound(10 * take + digit))
    generator = np.random.default_rng(0)
    for part, count in (("train", 300), ("t10k", 60)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pictures = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        (tmp_path / "mnist" / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
        (tmp_path / "mnist" / f"{part}-images-idx3-ubyte").write_bytes(idx(pictures))
    return tmp_path


def finished(clip: Clip, **options: str) -> np.ndarray:
    """Give the picture of a clip as stored."""
    source = clip.sources["image"]
    picture = read_idx(source.path)[source.row][None]
    done = PREPARER.finish(clip, {"image": picture.copy()}, parse_options(PREPARER, options))
    return done["image"]


def test_every_picture_has_a_recording_of_its_digit(small):
    clips = read(small)

    assert Counter(c.split["official"] for c in clips) == {"train": 250, "val": 50, "test": 60}
    for clip in clips:
        assert clip.sources["audio"].path.name.startswith(f"{clip.label}_ann_")
    assert len({clip.sources["image"] for clip in clips}) == 360


def test_no_recording_is_in_two_splits(small):
    takes = defaultdict(set)
    for clip in read(small):
        takes[clip.split["official"]].add(clip.sources["audio"].path.stem.rpartition("_")[2])

    assert takes == {"test": {"0"}, "val": {"5"}, "train": {"7", "8"}}


def test_a_split_without_a_recording_of_a_digit_is_refused(small):
    (small / "fsdd" / "recordings" / "3_ann_5.wav").unlink()

    with pytest.raises(SourceError, match="no recording of digit 3 is left for val"):
        read(small)


def test_pictures_lie_in_a_space_of_as_many_dimensions_as_components(small):
    clips = read(small)[::7]

    for count in (1, 4):
        values = np.stack([finished(c, components=str(count)).reshape(-1) for c in clips])
        deviations = np.linalg.svd(values.astype(float) - 128, compute_uv=False)
        # Rounding to whole pixels leaves a little in all other directions.
        assert deviations[count] < 0.3 * deviations[count - 1]


def test_the_basis_is_that_of_the_training_pictures_alone(small):
    clips = read(small)
    first = finished(clips[0])
    path = small / "mnist" / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((60, 28, 28), np.uint8)))

    np.testing.assert_array_equal(finished(clips[0]), first)
    pictures = read_idx(small / "mnist" / "train-images-idx3-ubyte")[:250]
    mean = pictures.reshape(250, -1).mean(axis=0)
    _, _, axes = np.linalg.svd(pictures.reshape(250, -1) - mean, full_matrices=False)
    value = axes[:4].T @ (axes[:4] @ (pictures[0].reshape(-1) - mean))
    np.testing.assert_allclose(first.reshape(-1), 128 + value / 2, atol=0.51)


def test_noise_is_added_only_where_it_is_asked_for(small):
    clip = read(small)[0]
    voice = np.rint(3_000 * np.sin(np.arange(8_000) / 5)).astype(np.int16)

    def heard(**options: str) -> np.ndarray:
        given = {"audio": voice.copy()}
        return PREPARER.finish(clip, given, parse_options(PREPARER, options))["audio"]

    np.testing.assert_array_equal(heard(), voice)
    added = heard(snr_db="6").astype(float) - voice
    ratio_db = 10 * np.log10(np.mean(voice.astype(float) ** 2) / np.mean(added**2))
    assert ratio_db == pytest.approx(6, abs=0.2)
    np.testing.assert_array_equal(heard(snr_db="6"), heard(snr_db="6"))
    assert (heard(snr_db="6") != heard(snr_db="6", noise_seed="1")).mean() > 0.5


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(PREPARER.module, "NUM_VAL", 10)
    for name in ("image", "audio"):
        (tmp_path / name).mkdir()
    for part, count in (("train", 40), ("test", 20)):
        image = np.linspace(-100, 155, count * 784).reshape(count, 784)
        audio = np.arange(count * 112 * 112).reshape(count, 112, 112) % 251
        np.save(tmp_path / "image" / f"{part}_data.npy", image)
        np.save(tmp_path / "audio" / f"{part}_data.npy", audio.astype(np.uint8))
        np.save(tmp_path / f"{part}_labels.npy", np.arange(count) % 10)
    return tmp_path


def test_the_published_arrays_have_their_own_split(published):
    clips = read(published)

    assert edition_of(published, EDITIONS) == "published"
    assert Counter(c.split["official"] for c in clips) == {"train": 30, "val": 10, "test": 20}
    val = [clip.sources["image"].row for clip in clips if clip.split["official"] == "val"]
    assert val == list(range(30, 40))


def test_published_numbers_become_pixels_by_the_extremes_of_train(published, tmp_path):
    columns = PREPARER.columns(published, parse_options(PREPARER, {}))

    assert columns["audio"].spec.value_range is None
    assert columns["image"].spec.value_range == (-100.0, 155.0)
    made = prepare(
        PrepareRequest("av_mnist", published, tmp_path / "store", workers=1), lambda _: None
    )
    store = open_store(made.path)
    assert tuple(store.columns["image"].shape) == (1, 28, 28)
    assert tuple(store.columns["audio"].shape) == (1, 112, 112)


def test_published_files_of_different_length_are_refused(published):
    np.save(published / "test_labels.npy", np.zeros(19, int))

    with pytest.raises(SourceError, match="have different lengths"):
        read(published)


def test_pickled_labels_are_refused(published):
    np.save(published / "test_labels.npy", np.array([{}], dtype=object))

    with pytest.raises(SourceError, match="is not a plain array"):
        read(published)


def test_it_becomes_the_same_store_twice(small, tmp_path):
    made = [
        prepare(
            PrepareRequest("av_mnist", small, tmp_path / str(w), workers=w, limit=80),
            lambda _: None,
        )
        for w in (1, 2)
    ]

    assert made[0].hash == made[1].hash
    store = open_store(made[0].path)
    assert store.columns["audio"].kind == "spectrogram"
    assert tuple(store.columns["audio"].shape) == (1, 112, 112)
    assert tuple(store.columns["image"].shape) == (1, 28, 28)


def test_the_whole_sets_are_paired(kit):
    clips = read(kit)

    by_split = Counter(clip.split["official"] for clip in clips)
    assert by_split == {"train": 55_000, "val": 5_000, "test": 10_000}
    assert len({clip.sources["audio"] for clip in clips}) == 3_000
