import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.store.index import Index, index_bytes, read_index


def written(tmp_path: Path, **more: object) -> Index:
    facts = {
        "ids": ["a", "b.c", "ü"],
        "labels": [0, 1, 1],
        "groups": ["x", "", "x"],
        "splits": {"main": ["train", None, "test"]},
        "present": [[True], [False], [True]],
        "num_modalities": 1,
    }
    (tmp_path / "index.npz").write_bytes(index_bytes(**{**facts, **more}))  # type: ignore[arg-type]
    return read_index(tmp_path / "index.npz", "main")


def test_names_of_ids_and_groups_come_back(tmp_path: Path) -> None:
    index = written(tmp_path)

    assert index.ids() == ["a", "b.c", "ü"]
    assert [index.group_names[code] for code in index.group] == ["x", "", "x"]


def test_numbers_behind_labels_come_back_where_there_are_any(tmp_path: Path) -> None:
    index = written(tmp_path, values=[-2.5, None, 3.0])

    assert index.value is not None
    assert index.value[0] == pytest.approx(-2.5)
    assert math.isnan(index.value[1])
    assert index.value[2] == pytest.approx(3.0)


@pytest.mark.parametrize("values", [None, [None, None, None]])
def test_an_index_without_numbers_is_as_it_was_before_there_were_any(
    tmp_path: Path, values: list[None] | None
) -> None:
    plain = written(tmp_path)
    before = (tmp_path / "index.npz").read_bytes()

    assert written(tmp_path, values=values).value is None
    assert plain.value is None
    assert (tmp_path / "index.npz").read_bytes() == before


def test_any_number_of_classes_comes_back_by_row_and_no_single_label_is_left(
    tmp_path: Path,
) -> None:
    index = written(tmp_path, label_sets=[(2, 0), (), (1,)])

    assert index.is_multi_label
    assert index.label.tolist() == [-1, -1, -1]
    assert index.label_sets(np.array([2, 0, 1])) == [[1], [0, 2], []]
    assert index.answers(np.array([2, 0, 1, 0]), 3).tolist() == [
        [0, 1, 0],
        [1, 0, 1],
        [0, 0, 0],
        [1, 0, 1],
    ]
    assert index.labels_lie_within(3)
    assert not index.labels_lie_within(2)


def test_one_class_per_row_is_answered_with_a_single_one(tmp_path: Path) -> None:
    index = written(tmp_path)

    assert not index.is_multi_label
    assert index.answers(np.array([0, 2]), 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert index.label_sets(np.array([0, 2])) == [[0], [1]]


def test_rows_without_any_class_need_no_row_with_one(tmp_path: Path) -> None:
    index = written(tmp_path, label_sets=[(), (), ()])

    assert index.is_multi_label
    assert index.answers(np.arange(3), 2).tolist() == [[0, 0]] * 3
    assert index.answers(np.zeros(0, np.int64), 2).shape == (0, 2)


@given(st.lists(st.sets(st.integers(0, 4)), min_size=3, max_size=3), st.data())
def test_answers_are_the_sets_in_any_order_of_rows(
    tmp_path_factory: pytest.TempPathFactory, sets: list[set[int]], data: st.DataObject
) -> None:
    index = written(tmp_path_factory.mktemp("any"), label_sets=sets)
    rows = np.array(data.draw(st.lists(st.integers(0, 2), max_size=8)), dtype=np.int64)

    answers = index.answers(rows, 5)

    assert [set(np.flatnonzero(row).tolist()) for row in answers] == [sets[r] for r in rows]


def test_the_order_of_the_classes_of_a_row_does_not_change_the_file(tmp_path: Path) -> None:
    written(tmp_path, label_sets=[(2, 0), (), (1,)])
    before = (tmp_path / "index.npz").read_bytes()
    written(tmp_path, label_sets=[(0, 2), (), (1,)])

    assert (tmp_path / "index.npz").read_bytes() == before
