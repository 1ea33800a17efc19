"""Pickles of features of utterances in every form that the releases have."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.media.spec import SeriesSpec, Source
from mmtool.prepare.utterances import read_utterances, without_padding

SIZES = {"train": 4, "valid": 2, "test": 3}


def content(form: str = "mult") -> dict[str, dict[str, object]]:
    """Give a pickle as MulT, MMSA or MultiBench writes it, filled up with zeros in front."""
    found = {}
    for position, (part, count) in enumerate(SIZES.items()):
        rng = np.random.default_rng(position)
        features = {
            key: rng.normal(size=(count, steps, width)).astype(np.float32)
            for key, steps, width in (("text", 5, 3), ("audio", 8, 4), ("vision", 6, 2))
        }
        values = np.linspace(-3, 3, count, dtype=np.float32)
        names = [f"{part}v{number}" for number in range(count)]
        found[part] = {
            "mult": lambda v=values, n=names: {
                "labels": v.reshape(-1, 1, 1),
                "id": np.array([[name.encode(), b"0.5", b"2.25"] for name in n]),
            },
            "mmsa": lambda v=values, n=names: {
                "regression_labels": v,
                "classification_labels": np.sign(v),
                "annotations": ["Neutral"] * len(v),
                "raw_text": np.array([f"words of {name}" for name in n]),
                "text_bert": np.zeros((len(v), 3, 5)),
                "audio_lengths": [8] * len(v),
                "vision_lengths": [6] * len(v),
                "id": [f"{name}$_$7" for name in n],
            },
            "multibench": lambda v=values, n=names: {
                "labels": np.stack([v, v * 0 + 9], axis=1)[:, None, :],
                "id": np.array([f"{name}[7]" for name in n]),
            },
        }[form]() | features
    return found


def write(path: Path, value: object, *, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("form", ["mult", "mmsa", "multibench"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_every_form_gives_the_same_rows(tmp_path, form, protocol):
    value = content(form)
    rows = read_utterances(write(tmp_path / "a.pkl", value, protocol=protocol))

    assert [row.split for row in rows] == ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    assert [row.value for row in rows if row.split == "test"] == [-3, 0, 3]
    assert [row.video for row in rows if row.split == "val"] == ["validv0", "validv1"]
    assert len({row.id for row in rows}) == 9
    assert (rows[0].text == "words of trainv0") == (form == "mmsa")
    for row, number in ((rows[0], 0), (rows[3], 3)):
        for key, source in row.sources.items():
            array = decode(source, SeriesSpec()).array
            np.testing.assert_array_equal(array, value["train"][key][number])


def test_a_gzipped_pickle_is_read(tmp_path):
    path = tmp_path / "aligned_50.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(content("mmsa"))))

    assert len(read_utterances(path)) == 9


@pytest.mark.parametrize(
    ("name", "video"),
    [
        (b"03bSnISJMiM$_$12", "03bSnISJMiM"),
        ("--qXJuDtHPw[4]", "--qXJuDtHPw"),
        ("_dI--eQ6qVU_13", "_dI--eQ6qVU"),
        ("a_b_c", "a_b_c"),
        (17, "17"),
    ],
)
def test_a_name_tells_its_video(tmp_path, name, video):
    value = content("mmsa")
    value["valid"]["id"] = [name, "other$_$1"]

    rows = [row for row in read_utterances(write(tmp_path / "a.pkl", value)) if row.split == "val"]
    assert [row.video for row in rows] == [video, "other"]


def _without(part, key):
    def change(value):
        del value[part][key]

    return change


def _with(part, key, entry):
    def change(value):
        value[part][key] = entry

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda value: value.pop("valid"), ["has no valid", "found test: dict, train: dict"]),
        (_without("test", "audio"), ["test has no audio", "text: [3, 5, 3]"]),
        (_without("test", "id"), ["test has no id"]),
        (_with("test", "id", []), ["test is empty"]),
        (_without("train", "labels"), ["train has no labels"]),
        (_with("test", "audio", np.zeros((2, 8, 4))), ["test/audio is not [3, time, channel]"]),
        (_with("test", "vision", np.zeros((3, 8))), ["test/vision is not [3, time, channel]"]),
        (_with("test", "labels", np.zeros((2, 1, 1))), ["test/labels is not one finite number"]),
        (_with("test", "labels", np.full((3, 1, 1), np.nan)), ["not one finite number per id"]),
        (lambda value: value.update(test=[1]), ["test is no mapping", "a list"]),
    ],
)
def test_unknown_keys_and_shapes_are_refused_with_what_was_found(tmp_path, change, expected):
    value = content()
    change(value)

    with pytest.raises(SourceError) as caught:
        read_utterances(write(tmp_path / "mosi_data.pkl", value))
    for part in expected:
        assert part in str(caught.value)
    assert caught.value.fix


def test_what_is_no_pickle_of_arrays_is_refused(tmp_path):
    (tmp_path / "page.pkl").write_bytes(b"<!doctype html><html>")
    for path in (tmp_path / "page.pkl", write(tmp_path / "path.pkl", Path("/"))):
        with pytest.raises(SourceError, match=r"not a pickle that can be read"):
            read_utterances(path)
    with pytest.raises(SourceError, match=r"it has no train, valid, test"):
        read_utterances(write(tmp_path / "list.pkl", [1, 2]))


@given(
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
def test_zeros_at_both_ends_go_and_aligned_series_stay_aligned(front, back, inner):
    length = max(f + i + b for f, i, b in zip(front, inner, back, strict=True))
    arrays = {}
    for name, before, used in zip("abc", front, inner, strict=True):
        arrays[name] = np.zeros((length, 2), np.float32)
        arrays[name][before : before + used, 0] = np.arange(1, used + 1)
    arrays["tokens"] = np.zeros(4, np.int32)

    cut = without_padding({}, arrays)

    start = min(front)
    end = max(f + i for f, i in zip(front, inner, strict=True))
    for name in "abc":
        np.testing.assert_array_equal(cut[name], arrays[name][start:end])
    assert cut["tokens"] is arrays["tokens"]


def test_series_of_different_length_are_cut_one_by_one():
    arrays = {"a": np.zeros((6, 1), np.float32), "b": np.zeros((9, 1), np.float32)}
    arrays["a"][4:] = 1
    arrays["b"][0], arrays["b"][2] = 1, 2

    cut = without_padding({}, arrays)

    assert cut["a"].ravel().tolist() == [1, 1]
    assert cut["b"].ravel().tolist() == [1, 0, 2]


def test_a_series_of_zeros_alone_keeps_one_row():
    arrays = {"a": np.zeros((6, 2), np.float32), "b": np.ones((3, 2), np.float32)}
    assert {name: len(array) for name, array in without_padding({}, arrays).items()} == {
        "a": 1,
        "b": 3,
    }
    alone = without_padding({}, {"a": np.zeros((6, 2), np.float32)})
    assert alone["a"].shape == (1, 2)


@pytest.mark.parametrize("in_front", [True, False])
def test_the_length_of_the_pickle_counts_where_the_rest_is_zero(tmp_path, in_front):
    value = content("mmsa")
    value["test"]["audio_lengths"] = [5, 5, 5]
    path = write(tmp_path / "a.pkl", value)
    audio = np.zeros((8, 4), np.float32)
    # A silent step inside of the length, at the side of the padding, belongs to the utterance.
    audio[slice(4, 8) if in_front else slice(0, 4)] = 1
    source = Source(path, key="test/audio", row=1)

    cut = without_padding({"audio": source}, {"audio": audio, "vision": np.ones((2, 1))})

    expected = audio[3:] if in_front else audio[:5]
    np.testing.assert_array_equal(cut["audio"], expected)


def test_a_length_that_would_cut_values_is_not_believed(tmp_path):
    value = content("mmsa")
    value["test"]["audio_lengths"] = [2, 2, 2]
    path = write(tmp_path / "a.pkl", value)
    audio = np.zeros((8, 4), np.float32)
    audio[1:6] = 1
    source = Source(path, key="test/audio", row=1)

    cut = without_padding({"audio": source}, {"audio": audio, "vision": np.ones((2, 1))})

    assert len(cut["audio"]) == 5
