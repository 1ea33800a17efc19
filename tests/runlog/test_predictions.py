"""Answers of single samples: written whole, read back, refused when damaged."""

import numpy as np
import pytest

from mmtool.errors import RunDirectoryError
from mmtool.runlog.predictions import (
    Predictions,
    predictions_path,
    read_predictions,
    write_predictions,
)


def answers(task="single_label", **fields):
    head = {"split": "test", "task": task, "modalities": ["audio"], "dataset_hash": "h"}
    plain = {
        "row": np.array([3, 5, 9]),
        "id": np.array(["a", "b", "ü"]),
        "group": np.array([0, 0, 1]),
        "label": np.array([1, 0, 2]),
        "answer": np.array([1, 1, 2]),
        "loss": np.array([0.1, 2.0, 0.3], dtype=np.float32),
        "answers": {"audio": np.array([1, 0, 0])},
        "present": {"audio": np.array([True, False, True])},
    }
    return Predictions(head=head, **{**plain, **fields})


def test_what_was_written_is_read(tmp_path):
    write_predictions(tmp_path, answers())
    found = read_predictions(tmp_path, "test")

    assert list(found.id) == ["a", "b", "ü"]
    assert found.right().tolist() == [1.0, 0.0, 1.0]
    assert found.key == answers().key
    assert read_predictions(tmp_path, "val") is None


def test_a_sample_without_the_modality_has_no_answer_of_it():
    right = answers().right("audio")

    assert right[0] == 1.0
    assert np.isnan(right[1])
    assert right[2] == 0.0


def test_several_labels_count_by_the_share_of_right_answers():
    label = np.array([[1, 0], [0, 0], [1, 1]], dtype=np.float32)
    said = np.array([[True, True], [False, False], [False, False]])

    assert answers("multi_label", label=label, answer=said).right().tolist() == [0.5, 1.0, 0.0]


def test_a_regression_gives_squared_errors():
    label, said = np.array([[1.0], [2.0], [0.0]]), np.array([[1.5], [2.0], [-1.0]])

    found = answers("regression", label=label, answer=said).right()
    assert found.ravel().tolist() == [0.25, 0.0, 1.0]


@pytest.mark.parametrize("damage", ["cut", "text", "schema"])
def test_a_damaged_file_is_refused_and_says_what_to_do(tmp_path, damage):
    path = write_predictions(tmp_path, answers())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no", encoding="utf-8")
    else:
        with np.load(path) as file:
            arrays = dict(file)
        head = str(arrays["head"]).replace("predictions/1", "predictions/2")
        np.savez(path, **{**arrays, "head": np.array(head)})

    with pytest.raises(RunDirectoryError, match="answers on test cannot be read") as caught:
        read_predictions(tmp_path, "test")
    assert "rm " in caught.value.fix


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch):
    write_predictions(tmp_path, answers())

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmtool.runlog.whole.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_predictions(tmp_path, answers(answer=np.array([0, 0, 0])))

    assert [p.name for p in predictions_path(tmp_path, "test").parent.iterdir()] == ["test.npz"]
    assert read_predictions(tmp_path, "test").answer.tolist() == [1, 1, 2]
