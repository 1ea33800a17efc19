"""Measurements of a re-opened checkpoint: written whole, read back, refused when damaged."""

import json

import numpy as np
import pytest

from mmtool.errors import RunDirectoryError
from mmtool.runlog.deep import DeepRecord, deep_path, read_deep, write_deep


def record(**changed):
    head = {"split": "val", "task": "single_label", "modalities": ["audio", "image"]}
    arrays = {
        "row": np.array([3, 5, 9]),
        "id": np.array(["a", "b", "ü"]),
        "group": np.array([0, 0, 1]),
        "label": np.array([1, 0, 2]),
        "present": np.array([[True, True], [True, False], [True, True]]),
        "kept": np.array([[True, True], [True, False], [False, True], [False, False]]),
        "permute.right": np.zeros((4, 2, 3), dtype=np.float32),
        "probe/audio.right": np.array([1.0, 0.0, np.nan], dtype=np.float32),
        "emap.right": np.array([1.0, 0.0], dtype=np.float32),
    }
    return DeepRecord(head, {**arrays, **changed})


def test_what_was_written_is_read(tmp_path):
    path = write_deep(tmp_path, record())
    found = read_deep(tmp_path, "val")

    assert path == tmp_path / "deep" / "val.npz"
    assert found.n == 3
    assert found.modalities == ("audio", "image")
    assert found.head["schema"] == "mmtool-deep/1.0"
    for name, array in record().arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    assert read_deep(tmp_path, "train") is None


def test_a_subset_is_found_by_what_it_keeps():
    found = record()

    assert [found.subset("audio", "image"), found.subset("audio"), found.subset()] == [0, 1, 3]
    short = record(kept=np.array([[True, True], [False, False]]))
    with pytest.raises(KeyError, match="was not measured"):
        short.subset("audio")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"permute.right": np.zeros((4, 2, 2))}, "permute.right does not fit its 3 samples"),
        ({"probe/audio.right": np.zeros(4)}, "probe/audio.right does not fit"),
        ({"kept": np.zeros((4, 3), dtype=bool)}, "kept does not fit"),
    ],
)
def test_arrays_of_other_samples_are_refused(tmp_path, changed, words):
    write_deep(tmp_path, record(**changed))

    with pytest.raises(RunDirectoryError, match=words) as refused:
        read_deep(tmp_path, "val")
    assert "--deep" in refused.value.fix


def test_a_torn_file_is_refused_with_its_place(tmp_path):
    path = write_deep(tmp_path, record())
    path.write_bytes(path.read_bytes()[:200])

    with pytest.raises(RunDirectoryError, match="cannot be read") as refused:
        read_deep(tmp_path, "val")
    assert refused.value.where == str(deep_path(tmp_path, "val"))


def test_a_newer_schema_is_refused_by_name(tmp_path):
    path = write_deep(tmp_path, record())
    arrays = dict(record().arrays)
    head = json.dumps({**record().head, "schema": "mmtool-deep/2.0"})
    np.savez(path, head=np.array(head), **arrays)

    with pytest.raises(RunDirectoryError, match=r"mmtool-deep/2\.0, this mmtool reads"):
        read_deep(tmp_path, "val")


def test_an_incomplete_record_says_what_it_lacks(tmp_path):
    arrays = {k: v for k, v in record().arrays.items() if k != "kept"}
    write_deep(tmp_path, DeepRecord(record().head, arrays))

    with pytest.raises(RunDirectoryError, match="it lacks kept"):
        read_deep(tmp_path, "val")
