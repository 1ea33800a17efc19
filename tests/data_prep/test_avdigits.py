import gzip
import io
import re
import struct
import wave
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.media.raw import fingerprint
from mmtool.media.records import read_idx
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("avdigits")
SAMPLE = PREPARER.bundled
PROTOCOLS = ("official", "speaker")


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def refusal(root: Path, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        read(root, **options)
    assert caught.value.fix
    return str(caught.value)


@pytest.fixture(scope="module")
def sample() -> list[Clip]:
    assert SAMPLE is not None
    return read(SAMPLE)


def finished(clip: Clip, audio: np.ndarray, image: np.ndarray, **options: str):
    finish = PREPARER.finish
    assert finish is not None
    given = {"audio": audio.copy(), "image": image.copy()}
    return finish(clip, given, parse_options(PREPARER, options))


def takes_of(clips: list[Clip]) -> dict[str, set[int]]:
    takes = defaultdict(set)
    for clip in clips:
        member = clip.sources["audio"].member or clip.sources["audio"].path.name
        takes[clip.split["official"]].add(int(re.search(r"_(\d+)\.wav$", member)[1]))
    return takes


def test_the_official_test_has_three_thousand_pairs_of_all_classes(sample):
    by_split = Counter(clip.split["official"] for clip in sample)
    assert by_split["test"] == 3_000
    assert by_split["train"] > by_split["val"] >= 500
    for split in by_split:
        labels = Counter(c.label for c in sample if c.split["official"] == split)
        assert len(labels) == 10
        assert len(set(labels.values())) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("modality", ["audio", "image"])
def test_no_recording_and_no_picture_lies_in_two_splits(sample, protocol, modality):
    splits = defaultdict(set)
    for clip in sample:
        splits[fingerprint(clip.sources[modality])].add(clip.split[protocol])

    assert set.union(*splits.values()) == {"train", "val", "test"}
    assert all(len(found) == 1 for found in splits.values())


def test_no_picture_is_used_twice(sample):
    assert len({clip.sources["image"] for clip in sample}) == len(sample)
    names = {clip.sources["image"].path for clip in sample}
    pixels = np.concatenate([read_idx(path).reshape(-1, 784) for path in sorted(names)])
    assert len(np.unique(pixels, axis=0)) == len(pixels) == len(sample)


def test_the_official_test_is_that_of_both_data_sets(sample):
    assert takes_of(sample)["test"] == set(range(5))
    test = [clip for clip in sample if clip.split["official"] == "test"]
    assert len({clip.sources["audio"] for clip in test}) == 300
    for clip in sample:
        is_test = clip.split["official"] == "test"
        assert clip.sources["image"].path.name.startswith("t10k" if is_test else "train")


def test_the_speaker_protocol_shares_no_speaker(sample):
    speakers = defaultdict(set)
    for clip in sample:
        speakers[clip.split["speaker"]].add(clip.group)
        assert f"_{clip.group}_" in clip.sources["audio"].member
    assert {split: len(found) for split, found in speakers.items()} == {
        "train": 4,
        "val": 1,
        "test": 1,
    }
    assert len(set.union(*speakers.values())) == 6


def test_voice_and_picture_show_the_digit_of_the_label(sample):
    labels = {part: read_idx(SAMPLE / f"mnist/{part}-labels-idx1-ubyte.gz") for part in
              ("t10k", "train")}  # fmt: skip
    for clip in sample:
        picture = clip.sources["image"]
        assert labels[picture.path.name.partition("-")[0]][picture.row] == clip.label
        assert Path(clip.sources["audio"].member).name.startswith(f"{clip.label}_")


def test_the_noise_has_the_strength_that_was_asked_for(sample):
    clip = sample[0]
    voice = np.rint(3_000 * np.sin(np.arange(8_000) / 5)).astype(np.int16)
    grey = np.full((1, 200, 200), 128, np.uint8)

    noisy = finished(clip, voice, grey, snr_db="6", image_sigma="0.1")

    added = noisy["audio"].astype(float) - voice
    ratio_db = 10 * np.log10(np.mean(voice.astype(float) ** 2) / np.mean(added**2))
    assert ratio_db == pytest.approx(6, abs=0.2)
    assert np.std(noisy["image"].astype(float) - 128) / 255 == pytest.approx(0.1, abs=0.003)
    assert (noisy["audio"].dtype, noisy["image"].dtype) == (np.int16, np.uint8)


def test_noise_does_not_wrap_around_at_the_ends_of_the_range(sample):
    loud = np.tile(np.array([32767, -32768], np.int16), 500)
    extremes = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)])

    noisy = finished(sample[0], loud, extremes, snr_db="20")

    assert (np.sign(noisy["audio"]) == np.sign(loud)).all()
    assert noisy["image"][0].max() < 128 < noisy["image"][1].min()


def test_noise_depends_on_the_clip_and_the_seed_alone(sample):
    voice, grey = np.full(500, 1_000, np.int16), np.full((1, 28, 28), 128, np.uint8)
    first = finished(sample[0], voice, grey)
    for key, again in finished(sample[0], voice, grey).items():
        np.testing.assert_array_equal(again, first[key])
    for other in (
        finished(sample[1], voice, grey),
        finished(sample[0], voice, grey, noise_seed="1"),
    ):
        for key, array in other.items():
            assert (array != first[key]).mean() > 0.5


def test_a_modality_that_did_not_decode_stays_away_and_leaves_the_other_as_it_is(sample):
    voice, grey = np.full(500, 1_000, np.int16), np.full((1, 28, 28), 128, np.uint8)
    both = finished(sample[0], voice, grey)
    options = parse_options(PREPARER, {})

    for name, given in (("audio", voice), ("image", grey)):
        alone = PREPARER.finish(sample[0], {name: given.copy()}, options)
        assert set(alone) == {name}
        np.testing.assert_array_equal(alone[name], both[name])


def test_the_sample_becomes_the_same_store_twice(tmp_path):
    made = [
        prepare(
            PrepareRequest("avdigits", None, tmp_path / str(workers), workers=workers, limit=60),
            lambda _: None,
        )
        for workers in (1, 2)
    ]

    assert made[0].hash == made[1].hash
    store = open_store(made[0].path)
    assert store.columns["audio"].kind == "spectrogram"
    assert tuple(store.columns["audio"].shape) == (1, 40, 40)
    assert store.columns["image"].kind == "frames"
    assert tuple(store.columns["image"].shape) == (1, 28, 28)


def test_the_sample_is_small_and_says_where_it_comes_from():
    notice = (SAMPLE / "NOTICE.txt").read_text(encoding="utf-8")
    for fact in (
        "CC BY-SA 4.0",
        "CC BY-SA 3.0",
        "Jackson",
        "LeCun",
        "takes 0 to 13",
        "840",
        "324",
        "300",
    ):
        assert fact in notice
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) < 5_250_000


Release = Callable[..., Path]


@pytest.fixture
def release(tmp_path) -> Release:
    """Write a small release: loose recordings and plain idx files."""

    def write(num_pictures: int = 10, ending: str = "-idx{}-ubyte") -> Path:
        (tmp_path / "fsdd" / "recordings").mkdir(parents=True, exist_ok=True)
        (tmp_path / "mnist").mkdir(exist_ok=True)
        for digit in range(10):
            for take in (0, 5, 7):
                name = f"{digit}_ann_{take}.wav"
                (tmp_path / "fsdd" / "recordings" / name).write_bytes(sound(digit))
        labels = np.arange(10 * num_pictures, dtype=np.uint8) % 10
        pictures = np.repeat(labels, 784).reshape(-1, 28, 28)
        for part in ("t10k", "train"):
            for kind, array in (("labels", labels), ("images", pictures)):
                name = f"{part}-{kind}{ending.format(array.ndim)}"
                (tmp_path / "mnist" / name).write_bytes(idx(array))
        return tmp_path

    return write


def sound(value: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8_000)
        writer.writeframes(np.full(100, value, "<i2").tobytes())
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    ) + array.tobytes()


FEW = {"pairs_per_train_clip": "3", "pairs_per_test_clip": "4"}


@pytest.mark.parametrize("ending", ["-idx{}-ubyte", ".idx{}-ubyte"])
def test_loose_recordings_and_unpacked_pictures_are_read(release, ending):
    clips = read(release(ending=ending), **FEW)

    assert Counter(c.split["official"] for c in clips) == {"train": 30, "val": 30, "test": 40}
    assert {c.group for c in clips} == {"ann"}
    columns = PREPARER.columns(SAMPLE, parse_options(PREPARER, {}))
    for clip in clips:
        picture = decode(clip.sources["image"], columns["image"].spec).array
        assert (picture == clip.label).all()


def test_too_few_pictures_are_named_with_the_option_that_needs_fewer(release):
    said = refusal(release(num_pictures=5), **FEW)

    assert "train part has too few pictures of digit 0" in said
    assert "-s pairs_per_train_clip=" in said
    assert len(read(release(num_pictures=6), **FEW)) == 100


def test_a_folder_without_the_recordings_says_what_was_looked_for(tmp_path):
    said = refusal(tmp_path)

    assert "no spoken digits were found" in said
    assert str(tmp_path / "fsdd") in said
    assert "{digit}_{speaker}_{take}.wav" in said


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_missing_idx_file_is_named_with_every_name_it_may_have(release, name):
    root = release()
    (root / "mnist" / name).unlink()

    said = refusal(root, **FEW)

    assert f"{name}.gz, {name}," in said
    assert str(root / "mnist") in said


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: gzip.compress(content)[:-9],
        lambda content: b"<html>" + content,
        lambda content: content[:0],
    ],
)
def test_a_damaged_idx_file_is_named(release, damage):
    path = release() / "mnist" / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))

    assert path.name in refusal(path.parents[1], **FEW)


def test_pictures_and_labels_of_different_number_are_refused(release):
    path = release() / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.zeros(7, np.uint8)))

    assert "different lengths" in refusal(path.parents[1], **FEW)


def test_a_broken_archive_is_named(release):
    root = release()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("recordings/0_ann_0.wav", sound(0))
    (root / "fsdd" / "free-spoken-digit-dataset.zip").write_bytes(whole.getvalue()[:-30])

    assert "free-spoken-digit-dataset.zip is not a whole zip archive" in refusal(root, **FEW)


def test_the_whole_sets_are_read_by_the_same_code(kit):
    clips = read(kit)

    assert len({clip.sources["audio"] for clip in clips}) == 3_000
    assert len({clip.sources["image"] for clip in clips}) == len(clips) == 300 * 10 + 2_700 * 6
    assert takes_of(clips)["train"] == set(range(7, 50))
