"""A store of several classes per row, and that one of a single class is what it always was."""

import json
from pathlib import Path

import pytest

from mmtool.errors import StoreError
from mmtool.store.reader import open_store
from mmtool.testing.fakes import FakeModality, write_fake_store

MODALITIES = {"audio": FakeModality((6,), "spectrogram"), "motion": FakeModality((3,))}


def manifest(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "manifest.json").read_text())
    return found


def test_several_classes_per_row_are_read_back_from_a_store(tmp_path: Path) -> None:
    folder = write_fake_store(tmp_path / "fake", MODALITIES, task="multi_label")

    with open_store(folder) as store:
        sets = store.index.label_sets(store.index.rows("train"))

        assert store.manifest.is_multi_label
        assert {len(classes) for classes in sets} == {0, 1, 2, 3}


def test_an_older_reader_refuses_several_classes_by_the_version(tmp_path: Path) -> None:
    folder = write_fake_store(tmp_path / "fake", MODALITIES, task="multi_label")

    assert manifest(folder)["version"] == "2.0"


def test_a_store_of_one_class_per_row_keeps_its_version_and_hash(tmp_path: Path) -> None:
    folder = write_fake_store(tmp_path / "fake", MODALITIES)
    found = manifest(folder)

    assert found["version"] == "1.0"
    assert "is_multi_label" not in found
    # Written down when there were no stores of several classes yet.
    assert found["hash"] == "dabdcc14953716db1e274892645cf314c8e04f950be308020abcba4eef645939"


def test_a_manifest_that_says_otherwise_than_its_index_is_refused(tmp_path: Path) -> None:
    folder = write_fake_store(tmp_path / "fake", MODALITIES)
    (folder / "manifest.json").write_text(
        json.dumps({**manifest(folder), "is_multi_label": True, "version": "2.0"})
    )

    with pytest.raises(StoreError, match="what a label is"):
        open_store(folder)
