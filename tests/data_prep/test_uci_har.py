import zipfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("uci_har")
NAMES = ["WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"]
SUBJECTS = {"train": (1, 3, 5, 7, 11), "test": (2, 4)}
PER_SUBJECT = 12


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def everything(root: Path) -> tuple[list[str], list[Clip]]:
    return list(PREPARER.classes(root, parse_options(PREPARER, {}))), read(root)


def write(root: Path, *, subjects: bool = True) -> Path:
    """Write a release whose values tell signal, part, window, step and axis."""
    root.mkdir(parents=True)
    for part, there in SUBJECTS.items():
        count = PER_SUBJECT * len(there)
        folder = root / part / "Inertial Signals"
        folder.mkdir(parents=True)
        labels = np.arange(count) // 2 % 6 + 1
        (root / part / f"y_{part}.txt").write_text("".join(f"{n}\n" for n in labels))
        if subjects:
            who = np.repeat(there, PER_SUBJECT)
            (root / part / f"subject_{part}.txt").write_text("".join(f"{n}\n" for n in who))
        for kind, name in enumerate(("total_acc", "body_gyro", "body_acc")):
            for number, axis in enumerate("xyz"):
                steps = np.arange(128) / 128
                rows = [10 * kind + number + window + steps for window in range(count)]
                text = "".join("".join(f" {v: .7e}" for v in row) + "\n" for row in rows)
                (folder / f"{name}_{axis}_{part}.txt").write_text(text)
    if subjects:
        text = "".join(f"{n} {name}\n" for n, name in enumerate(NAMES, start=1))
        (root / "activity_labels.txt").write_text(text)
    return root


def test_a_doubled_folder_becomes_a_store_of_two_modalities(tmp_path):
    write(tmp_path / "raw" / "UCI HAR Dataset" / "UCI HAR Dataset")

    made = prepare(PrepareRequest("uci_har", tmp_path / "raw", tmp_path / "out"), lambda _: None)

    with open_store(made.path) as store:
        assert store.modalities == ("body_gyro", "total_acc")
        assert list(store.classes) == NAMES
        row = store.index.ids().index("test-00005")
        for kind, name in enumerate(("total_acc", "body_gyro")):
            values, _ = store.gather(name, np.array([row]))
            expected = 10 * kind + 5 + np.arange(128)[:, None] / 128 + np.arange(3)
            np.testing.assert_allclose(values[0], expected, rtol=1e-6)


def test_an_archive_gives_the_same_store_as_its_folder(tmp_path):
    root = write(tmp_path / "raw" / "UCI HAR Dataset")
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "UCI HAR Dataset.zip", "w") as archive:
        for path in sorted(root.rglob("*.txt")):
            archive.write(path, path.relative_to(root.parent).as_posix())

    made = [
        prepare(PrepareRequest("uci_har", tmp_path / kind, tmp_path / f"out-{kind}"), lambda _: 0)
        for kind in ("raw", "zip")
    ]

    assert made[0].report["rows"] == made[1].report["rows"] == 84
    with open_store(made[0].path) as one, open_store(made[1].path) as other:
        assert one.index.ids() == other.index.ids()
        for name in ("total_acc", "body_gyro"):
            for left, right in zip(
                one.gather(name, np.arange(84)), other.gather(name, np.arange(84)), strict=True
            ):
                np.testing.assert_array_equal(left, right)


def test_no_subject_is_in_two_splits_and_test_is_the_official_one(tmp_path):
    clips = read(write(tmp_path / "raw"))

    assert next(iter(clips[0].split)) == "official"
    for protocol in clips[0].split:
        splits = defaultdict(set)
        for clip in clips:
            splits[clip.group].add(clip.split[protocol])
        assert all(len(found) == 1 for found in splits.values()), protocol
        assert set.union(*splits.values()) == {"train", "val", "test"}
    for clip in clips:
        assert (clip.split["official"] == "test") == clip.id.startswith("test")
    folds = [name for name in clips[0].split if name != "official"]
    assert folds == [f"subject-{n:02d}" for n in (1, 2, 3, 4, 5, 7, 11)]
    assert {c.group for c in clips if c.split["subject-04"] == "test"} == {"04"}


def test_without_subjects_val_is_made_of_stretches_that_end_where_the_activity_does(tmp_path):
    clips = read(write(tmp_path / "raw", subjects=False))
    train = [clip for clip in clips if clip.id.startswith("train")]

    assert set(clips[0].split) == {"official"}
    assert {clip.split["official"] for clip in train} == {"train", "val"}
    borders = [
        (one, two) for one, two in pairwise(train) if one.split["official"] != two.split["official"]
    ]
    assert borders
    assert all(one.label != two.label for one, two in borders)
    assert list(PREPARER.classes(tmp_path / "raw", parse_options(PREPARER, {}))) == NAMES


def test_the_acceleration_without_gravity_comes_on_demand_alone(tmp_path):
    root = write(tmp_path / "raw")
    options = parse_options(PREPARER, {"body_acc": "true"})

    assert set(read(root)[0].sources) == {"total_acc", "body_gyro"}
    assert set(read(root, body_acc="true")[0].sources) == set(PREPARER.columns(root, options))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train/y_train.txt", "1\n2\n", r"has 60 rows, y_train.txt 2"),
        ("train/Inertial Signals/total_acc_y_train.txt", "1\n", r"has 1 windows, y_train.txt 60"),
        ("train/y_train.txt", "7\n" * 60, r"instead of 1 to 6"),
        ("test/subject_test.txt", "1\n" * 24, r"subjects 01 are in train and in test"),
        ("test/subject_test.txt", "2\n" * 23, r"has 23 rows, y_test.txt 24"),
        ("activity_labels.txt", "1 A\n3 B\n", r"does not name the activities 1 to 6"),
        ("test/Inertial Signals/body_gyro_z_test.txt", None, r"body_gyro_z_test.txt is missing"),
    ],
)
def test_a_release_that_contradicts_itself_is_refused(tmp_path, name, text, said):
    root = write(tmp_path / "raw")
    if text is None:
        (root / name).unlink()
    else:
        (root / name).write_text(text)

    with pytest.raises(SourceError, match=said) as caught:
        everything(root)
    assert caught.value.fix


def test_the_subset_of_the_kit_has_its_windows(kit):
    clips = read(kit / "uci_har_subset")

    by_split = defaultdict(list)
    for clip in clips:
        by_split[clip.split["official"]].append(clip)
    assert len(by_split["test"]) == 950
    assert len(by_split["train"]) + len(by_split["val"]) == 2_400
    assert 0.1 < len(by_split["val"]) / 2_400 < 0.2
    assert {clip.label for clip in by_split["val"]} == set(range(6))
    spec = PREPARER.columns(kit, parse_options(PREPARER, {}))["total_acc"].spec
    first = decode(by_split["test"][0].sources["total_acc"], spec).array
    assert first.shape == (128, 3)
    assert float(first[0, 0]) == pytest.approx(0.9946)
