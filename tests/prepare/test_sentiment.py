"""What classes sentiments become, which files are read, and whose video is in two splits."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.errors import SourceError
from mmtool.media.spec import AudioSpec, FramesSpec, SeriesSpec, TextSpec
from mmtool.prepare.sentiment import (
    SentimentOptions,
    class_of,
    sentiment_classes,
    sentiment_specs,
    sentiments,
)

PICKLES = ("mosi_data.pkl", "aligned_50.pkl", "unaligned_50.pkl")
WAYS = ("7", "2-negative-nonnegative", "2-negative-positive")


def part(names, values, *, words: bool = False) -> dict[str, object]:
    count = len(names)
    found: dict[str, object] = {key: np.ones((count, 2, 3)) for key in ("text", "audio", "vision")}
    found |= {"id": list(names), "labels": np.array(values, np.float32).reshape(-1, 1, 1)}
    return found | ({"raw_text": [f"word {name}" for name in names]} if words else {})


def write(root: Path, *, name: str = "mosi_data.pkl", words: bool = False, **parts) -> Path:
    given_parts = {
        "train": (["a[0]", "a[1]"], [-3, 0]),
        "valid": (["b[0]"], [1.5]),
        "test": (["c[0]"], [3]),
    } | parts
    value = {key: part(*rows, words=words) for key, rows in given_parts.items()}
    (root / name).write_bytes(pickle.dumps(value))
    return root


def table(root: Path, *rows: str) -> Path:
    header = "video_id,clip_id,text,label,annotation,mode"
    (root / "label.csv").write_text("\r\n".join([header, *rows]) + "\r\n", encoding="utf-8-sig")
    return root


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-3.0, (0, 0, 0)),
        (-2.5, (1, 0, 0)),
        (-0.5, (3, 0, 0)),
        (-0.2, (3, 0, 0)),
        (0.0, (3, 1, None)),
        (0.5, (3, 1, 1)),
        (1.5, (5, 1, 1)),
        (2.6, (6, 1, 1)),
        (3.0, (6, 1, 1)),
    ],
)
def test_the_three_ways_to_make_classes(value, expected):
    for way, wanted in zip(WAYS, expected, strict=True):
        label, skip = class_of(value, SentimentOptions(classes=way))
        assert skip == ("neutral" if wanted is None else "")
        if wanted is not None:
            assert label == wanted


@given(st.floats(-3, 3), st.sampled_from(WAYS))
def test_every_sentiment_has_a_class_and_a_larger_one_no_smaller_class(value, way):
    options = SentimentOptions(classes=way)
    label, _ = class_of(value, options)
    assert 0 <= label < len(sentiment_classes(options))
    assert class_of(min(3.0, value + 0.5), options)[0] >= label


def test_classes_go_from_negative_to_positive():
    assert sentiment_classes(SentimentOptions()) == ["-3", "-2", "-1", "0", "1", "2", "3"]
    assert sentiment_classes(SentimentOptions(classes=WAYS[1])) == ["negative", "nonnegative"]
    assert sentiment_classes(SentimentOptions(classes=WAYS[2])) == ["negative", "positive"]


def test_features_are_series_and_words_a_column_beside_them(tmp_path):
    series = SeriesSpec(replace_non_finite=True)
    plain = sentiment_specs(write(tmp_path), SentimentOptions(), PICKLES)
    assert plain == {"audio": series, "vision": series, "text": series}

    write(tmp_path, words=True)
    specs = sentiment_specs(tmp_path, SentimentOptions(max_tokens=9), PICKLES)
    assert specs == {**plain, "text.tokens": TextSpec(9)}
    found = sentiments(tmp_path, SentimentOptions(), PICKLES)
    assert found[0].utterance.sources["text"].text == "word a[0]"
    assert found[0].utterance.sources["text"].key == "train/text"
    assert found[0].utterance.sources["audio"].text is None


def test_the_first_known_pickle_is_read_unless_one_is_named(tmp_path):
    write(tmp_path, name="unaligned_50.pkl", test=(["u[0]"], [0]))
    write(tmp_path, name="aligned_50.pkl", test=(["v[0]"], [0]))

    def tested(**options: str) -> list[str]:
        found = sentiments(tmp_path, SentimentOptions(**options), PICKLES)
        return [s.utterance.id for s in found if s.utterance.split == "test"]

    assert tested() == ["v[0]"]
    assert tested(file="unaligned_50.pkl") == ["u[0]"]
    with pytest.raises(SourceError, match=r"did you mean 'unaligned_50.pkl'") as caught:
        tested(file="unaligned50.pkl")
    assert "there are: aligned_50.pkl, unaligned_50.pkl" in str(caught.value)


def test_utterances_of_a_video_that_is_held_out_leave_the_lesser_split(tmp_path):
    write(
        tmp_path,
        train=(["a[0]", "b[1]", "c[1]"], [0, 0, 0]),
        valid=(["b[0]", "c[2]"], [0, 0]),
        test=(["c[0]"], [0]),
    )

    found = sentiments(tmp_path, SentimentOptions(), PICKLES)
    assert {s.utterance.id for s in found if s.skip == "cross-split-video"} == {
        "b[1]",
        "c[1]",
        "c[2]",
    }
    kept = sentiments(tmp_path, SentimentOptions(shared_videos="keep"), PICKLES)
    assert not any(s.skip for s in kept)


def test_a_label_outside_of_the_scale_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"sentiment of c\[0\] is 4, not between -3 and 3"):
        sentiments(write(tmp_path, test=(["c[0]"], [4])), SentimentOptions(), PICKLES)


def test_videos_are_read_with_their_table(tmp_path):
    segmented = tmp_path / "Raw/Video/Segmented"
    (tmp_path / "Raw/-a_1").mkdir(parents=True)
    segmented.mkdir(parents=True)
    (tmp_path / "Raw/-a_1/3.mp4").touch()
    (segmented / "b_3.mp4").touch()
    table(
        tmp_path,
        '-a_1,3,"WELL, SAID",-0.8,Negative,train',
        "b,3,YES,2.4,Positive,valid",
        "b,4,MISSING,0.0,Neutral,valid",
    )

    found = [s.utterance for s in sentiments(tmp_path, SentimentOptions(), PICKLES)]

    assert [(u.id, u.video, u.split, u.value) for u in found] == [
        ("-a_1_3", "-a_1", "train", -0.8),
        ("b_3", "b", "val", 2.4),
        ("b_4", "b", "val", 0.0),
    ]
    assert found[0].sources["text"].text == "WELL, SAID"
    assert [u.sources["video"].path for u in found] == [
        tmp_path / "Raw/-a_1/3.mp4",
        segmented / "b_3.mp4",
        tmp_path / "Raw/b/4.mp4",
    ]
    specs = sentiment_specs(tmp_path, SentimentOptions(frames=2), PICKLES)
    assert isinstance(specs["audio"], AudioSpec)
    assert specs["video"] == FramesSpec(num_frames=2, height=256, width=341)


def test_the_table_is_read_beside_pickles_when_it_is_named(tmp_path):
    table(write(tmp_path), "b,3,YES,2.4,Positive,test")

    assert len(sentiments(tmp_path, SentimentOptions(), PICKLES)) == 4
    assert len(sentiments(tmp_path, SentimentOptions(file="label.csv"), PICKLES)) == 1


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("b,3,YES,2.4,Positive,tset", ["mode 'tset'", "did you mean 'test'"]),
        ("b,3,YES,much,Positive,test", ["the label 'much' is not a number"]),
        ("b,3,YES,2.4,test", ["5 cells, the header 6"]),
        ("b,3,YES,nan,Positive,test", ["sentiment of b_3 is nan"]),
    ],
)
def test_a_faulty_row_is_refused(tmp_path, row, expected):
    with pytest.raises(SourceError) as caught:
        sentiments(table(tmp_path, row), SentimentOptions(), PICKLES)
    for text in (*expected, "label.csv"):
        assert text in str(caught.value)


def test_videos_without_a_table_say_what_is_needed(tmp_path):
    (tmp_path / "Raw/Video/Segmented").mkdir(parents=True)

    with pytest.raises(SourceError, match=r"lie in .csd files") as caught:
        sentiments(tmp_path, SentimentOptions(), PICKLES)
    assert "video_id,clip_id,text,label,annotation,mode" in caught.value.fix
