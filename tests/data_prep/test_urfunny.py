import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.editions import locate
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("urfunny")
IDS = (3, 17, 1, 204, 99, 15619, 8, 30, 41, 52)
FOLDS = {"train": list(IDS[:6]), "dev": list(IDS[6:8]), "test": list(IDS[8:])}


def pickles(*, version: str = "V2", as_lists: bool = False) -> dict[str, Any]:
    """Give the pickles of the release by name: a word has one row of each kind of feature."""
    rng = np.random.default_rng(3)

    def rows(width: int, number: int) -> Any:
        values = rng.normal(size=(1 + number % 4, width))
        return values.tolist() if as_lists else values

    found: dict[str, Any] = {
        "data_folds.pkl": FOLDS,
        "humor_label_sdk.pkl": {name: number % 2 for number, name in enumerate(IDS)},
        "word_embedding_list.pkl": [rng.normal(size=5) for _ in range(20)],
        "covarep_features_sdk.pkl": {},
        "openface_features_sdk.pkl": {},
    }
    words: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(IDS):
        for file, width in (("covarep_features_sdk.pkl", 4), ("openface_features_sdk.pkl", 6)):
            found[file][name] = {
                "punchline_features": rows(width, number),
                "context_features": [rows(width, number)] if number % 3 else [],
            }
        words[name] = {
            "punchline_embedding_indexes": list(range(number, number + 1 + number % 4)),
            "context_embedding_indexes": [[1, 2]] if number % 3 else [],
            "punchline_sentence": f"this is punchline {name}",
            "context_sentences": ["it began so", "and went on"] if number % 3 else [],
        }
    if version == "V1":
        found["word_embedding_indexes_sdk.pkl"] = words
    else:
        found["language_sdk.pkl"] = words
    return found


def write(root: Path, found: dict[str, Any]) -> Path:
    root.mkdir(exist_ok=True)
    for name, value in found.items():
        (root / name).write_bytes(pickle.dumps(value, protocol=2))
    return root


def with_videos(root: Path) -> Path:
    (root / "urfunny2_videos").mkdir()
    for name in IDS:
        (root / "urfunny2_videos" / f"{name}.mp4").touch()
    return root


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def edition(root: Path) -> str:
    found = locate(root, PREPARER.editions)
    return found.edition if found else ""


def test_the_folds_of_the_authors_are_the_splits(tmp_path):
    clips = read(write(tmp_path, pickles()))

    splits = {clip.id: clip.split["official"] for clip in clips}
    assert Counter(splits.values()) == {"train": 6, "val": 2, "test": 2}
    assert splits["8"] == "val"
    assert {clip.id: clip.label for clip in clips} == {
        str(name): number % 2 for number, name in enumerate(IDS)
    }


@pytest.mark.parametrize("as_lists", [True, False])
def test_features_and_words_become_a_store(tmp_path, as_lists):
    found = pickles(as_lists=as_lists)
    values = np.array(found["covarep_features_sdk.pkl"][17]["punchline_features"])
    values[0, 1] = -np.inf
    found["covarep_features_sdk.pkl"][17]["punchline_features"] = (
        values.tolist() if as_lists else values
    )
    write(tmp_path / "raw", found)
    assert edition(tmp_path / "raw") == "V2 features"

    made = prepare(PrepareRequest("urfunny", tmp_path / "raw", tmp_path / "store"), lambda _: None)

    with open_store(made.path) as store:
        assert store.modalities == ("audio", "text", "vision")
        row = store.index.ids().index("17")
        audio, _ = store.gather("audio", np.array([row]))
        expected = np.where(np.isinf(values), 0, values)
        np.testing.assert_allclose(audio[0][: len(values)], expected, rtol=1e-6)
        glove, _ = store.gather("text.glove", np.array([row]))
        vectors = np.array(found["word_embedding_list.pkl"])
        np.testing.assert_allclose(glove[0][:2], vectors[[1, 2]], rtol=1e-6)
        tokens, _ = store.gather("text", np.array([row]))
        assert bytes(int(t) - 1 for t in tokens[0] if t).decode() == "this is punchline 17"


def test_the_first_version_has_no_sentences_but_their_vectors(tmp_path):
    write(tmp_path / "raw", pickles(version="V1"))
    assert edition(tmp_path / "raw") == "V1 features"

    made = prepare(PrepareRequest("urfunny", tmp_path / "raw", tmp_path / "store"), lambda _: None)

    with open_store(made.path) as store:
        assert set(store.columns) == {"audio", "vision", "text.glove"}
        assert store.columns["text.glove"].shape == (5,)


def test_videos_are_read_where_they_are_and_features_on_demand(tmp_path):
    root = with_videos(write(tmp_path, pickles()))

    assert edition(root) == "V2 videos"
    clip = {clip.id: clip for clip in read(root)}["204"]
    assert clip.sources["video"].path == root / "urfunny2_videos/204.mp4"
    assert clip.sources["audio"] == clip.sources["video"]
    assert clip.sources["text"].text == "this is punchline 204"
    columns = PREPARER.columns(root, parse_options(PREPARER, {}))
    assert set(columns) == {"audio", "audio.logmel", "video", "text"}
    features = {clip.id: clip for clip in read(root, features="true")}["204"]
    assert features.sources["audio"].key == "204/punchline_features"


def test_what_comes_before_the_punchline_is_read_on_demand(tmp_path):
    found = pickles()
    found["language_sdk.pkl"][1]["context_sentences"] = [["in", "words"]]
    texts = {c.id: c.sources["text"].text for c in read(write(tmp_path, found), context="true")}

    assert texts["17"] == "it began so and went on this is punchline 17"
    assert texts["3"] == "this is punchline 3"
    assert texts["1"] == "in words this is punchline 1"


def test_the_pickle_of_multibench_is_an_edition_of_its_own(tmp_path):
    value = {
        part: {
            **{key: np.ones((2, 4, 3), np.float32) for key in ("text", "audio", "vision")},
            "labels": np.array([[[-1.0]], [[1.0]]]),
            "id": np.array([[5], [6]]),
        }
        for part in ("train", "valid", "test")
    }
    write(tmp_path / "raw", {"humor.pkl": value})
    assert edition(tmp_path) == "multibench"

    clips = read(tmp_path / "raw")

    assert [clip.label for clip in clips] == [0, 1] * 3
    assert [clip.split["official"] for clip in clips] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert len({clip.id for clip in clips}) == 6
    columns = PREPARER.columns(tmp_path / "raw", parse_options(PREPARER, {}))
    assert set(columns) == {"audio", "vision", "text"}


@pytest.mark.parametrize(("count", "said"), [(16_514, "by its labels V1"), (9_588, "neither")])
def test_another_number_of_labels_than_the_edition_has_is_refused(tmp_path, count, said):
    found = pickles()
    found["humor_label_sdk.pkl"] = {number: number % 2 for number in range(count)}

    with pytest.raises(SourceError, match=r"V2 of UR-FUNNY has 10,166") as caught:
        read(write(tmp_path, found))
    assert said in str(caught.value)


def test_folds_or_labels_of_another_kind_are_refused(tmp_path):
    for name, value, said in (
        ("data_folds.pkl", {"train": [], "test": []}, "has no dev"),
        ("humor_label_sdk.pkl", dict.fromkeys(IDS, 2), "labels are 0 and 1"),
        ("humor_label_sdk.pkl", {3: 0}, "utterance 17 of train has no label"),
    ):
        with pytest.raises(SourceError) as caught:
            read(write(tmp_path / f"{name}{said[:5]}", {**pickles(), name: value}))
        assert said in str(caught.value)
        assert caught.value.fix


def test_a_missing_pickle_is_named(tmp_path):
    root = with_videos(write(tmp_path, pickles()))
    (root / "covarep_features_sdk.pkl").unlink()

    with pytest.raises(SourceError, match=r"covarep_features_sdk.pkl"):
        read(root, features="true")
