import pickle
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("mosei")


def write(path: Path, counts, *, form: str) -> Path:
    rng = np.random.default_rng(1)
    value = {}
    for part, count in zip(("train", "valid", "test"), counts, strict=True):
        entry: dict[str, object] = {
            key: rng.normal(size=(count, steps, width)).astype(np.float32)
            for key, steps, width in (("text", 4, 3), ("audio", 6, 2), ("vision", 5, 7))
        }
        values = np.linspace(-3, 3, count, dtype=np.float32)
        if form == "mmsa":
            for array, length in ((entry["audio"], 4), (entry["vision"], 3)):
                array[:, length:] = 0
            entry |= {
                "regression_labels": values,
                "raw_text": [f"{part} number {n}" for n in range(count)],
                "audio_lengths": [4] * count,
                "vision_lengths": [3] * count,
                "id": [f"{part}{n}$_$0" for n in range(count)],
            }
        else:
            entry["labels"] = np.repeat(values, 7).reshape(count, 1, 7) * [1, 9, 9, 9, 9, 9, 9]
            entry["id"] = np.array([[f"{part}{n}", "0.0", "4.5"] for n in range(count)])
        value[part] = entry
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(value))
    return path


def test_the_pickle_of_mmsa_becomes_a_store_with_its_words(tmp_path):
    write(tmp_path / "raw/unaligned_50.pkl", (9, 3, 4), form="mmsa")

    made = prepare(
        PrepareRequest(
            "mosei",
            tmp_path / "raw",
            tmp_path / "store",
            options={"classes": "2-negative-nonnegative"},
        ),
        lambda _: None,
    )

    with open_store(made.path) as store:
        assert store.classes == ("negative", "nonnegative")
        assert set(store.lengths("audio")) == {4}
        assert set(store.lengths("vision")) == {3}
        assert set(store.lengths("text")) == {4}
        assert store.default_columns["text"] == "text"
        assert store.columns["text.tokens"].kind == "tokens"
        row = store.index.ids().index("test2$_$0")
        tokens, _ = store.gather("text.tokens", np.array([row]))
        said = bytes(int(token) - 1 for token in tokens[0] if token)
        assert said.decode() == "test number 2"


def test_the_sentiment_is_the_first_of_seven_labels(tmp_path):
    path = write(tmp_path / "raw/mosei_raw.pkl", (9, 3, 4), form="multibench")

    clips = list(PREPARER.clips(path.parent, parse_options(PREPARER, {})))

    assert [clip.label for clip in clips if clip.split["official"] == "val"] == [0, 3, 6]
    assert [clip.value for clip in clips if clip.split["official"] == "val"] == [-3, 0, 3]
    assert clips[0].id == "train0_0.0_4.5"
    assert clips[0].group == "train0"


def test_a_pickle_of_mosi_under_the_same_name_is_refused(tmp_path):
    path = write(tmp_path / "raw/aligned_50.pkl", (1284, 229, 686), form="mmsa")

    with pytest.raises(SourceError, match=r"those of CMU-MOSI") as caught:
        list(PREPARER.clips(path.parent, parse_options(PREPARER, {})))
    assert caught.value.fix.startswith("mmtool prepare mosi ")
