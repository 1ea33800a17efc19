import math
from pathlib import Path

import pytest

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
