import json
from collections import Counter
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("mvsa")
SENTIMENTS = ("negative", "neutral", "positive")
sentiments = st.sampled_from(SENTIMENTS)


def read(root: Path) -> dict[str, Clip]:
    return {clip.id: clip for clip in PREPARER.clips(root, parse_options(PREPARER, {}))}


def release(root: Path, rows: list[str], header: str = "ID\ttext,image") -> Path:
    (root / "data").mkdir(exist_ok=True)
    (root / "labelResultAll.txt").write_text("\r\n".join([header, *rows]) + "\r\n")
    return root


@pytest.mark.parametrize(
    ("pair", "result"),
    [
        ("positive,positive", "positive"),
        ("neutral,positive", "positive"),
        ("negative,neutral", "negative"),
        ("neutral,neutral", "neutral"),
        ("positive,negative", "contradiction"),
        ("negative,positive", "contradiction"),
    ],
)
def test_text_and_picture_are_merged_by_the_rule(tmp_path, pair, result):
    clip = read(release(tmp_path, [f"1\t{pair}"]))["1"]

    if result == "contradiction":
        assert clip.skip == result
    else:
        assert clip.skip == ""
        assert SENTIMENTS[clip.label] == result


@given(sentiments, sentiments)
def test_the_rule_treats_text_and_picture_alike(text, image):
    merged = PREPARER.module.merged

    assert merged(text, image) == merged(image, text)


@given(st.lists(sentiments, min_size=3, max_size=3))
def test_two_of_three_people_decide(ratings):
    found = PREPARER.module.majority(ratings)

    assert found == next((s for s in SENTIMENTS if ratings.count(s) >= 2), "")


def test_three_people_are_asked_one_modality_at_a_time(tmp_path):
    rows = [
        "7\tpositive,neutral\tpositive,neutral\tnegative,negative",
        "8\tpositive,neutral\tneutral,neutral\tnegative,neutral",
        "9\tpositive,negative\tpositive,negative\tneutral,neutral",
    ]

    clips = read(release(tmp_path, rows, "ID\ttext,image\ttext,image\ttext,image"))

    assert SENTIMENTS[clips["7"].label] == "positive"
    assert [clips[name].skip for name in "789"] == ["", "no-majority", "contradiction"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("caf\u00e9".encode(), "caf\u00e9"),
        ("it\u2019s".encode("cp1252"), "it\u2019s"),
        (b"\xe9t\xe9 \x81", "\u00e9t\u00e9 \x81"),
        (b"\xef\xbb\xbfhello\n", "hello"),
    ],
)
def test_texts_are_read_in_whatever_they_were_written(tmp_path, content, text):
    root = release(tmp_path, ["1\tneutral,neutral"])
    (root / "data" / "1.txt").write_bytes(content)

    source = read(root)["1"].sources["text"]

    assert source.text == text
    assert source.path == root / "data" / "1.txt"


def test_a_text_that_is_not_there_is_left_to_be_counted_as_missing(tmp_path):
    source = read(release(tmp_path, ["1\tneutral,neutral"]))["1"].sources["text"]

    assert source.text is None
    assert not source.path.exists()


@pytest.fixture
def many(tmp_path) -> Path:
    pairs = [f"{a},{b}" for a, b in product(SENTIMENTS, SENTIMENTS)]
    return release(tmp_path, [f"{n}\t{pairs[n % 9]}" for n in range(900)])


def test_the_random_split_is_eighty_ten_ten_of_every_class(many):
    clips = [clip for clip in read(many).values() if not clip.skip]

    assert len(clips) == 700
    for label, count in Counter(clip.label for clip in clips).items():
        by_split = Counter(c.split["random"] for c in clips if c.label == label)
        assert by_split["test"] == pytest.approx(count / 10, abs=1)
        assert by_split["val"] == pytest.approx(count / 10, abs=1)
    assert {tuple(clip.split) for clip in clips} == {("random",)}


def test_the_lists_of_qmf_are_a_protocol_of_their_own(many):
    for name, ids in (("train", [0, 1]), ("dev", [3]), ("test", [4])):
        rows = [{"id": str(n), "img": f"data/{n}.jpg", "label": "x"} for n in ids]
        (many / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    clips = read(many)

    found = {name: clip.split["qmf"] for name, clip in clips.items() if "qmf" in clip.split}
    assert found == {"0": "train", "1": "train", "3": "val", "4": "test"}
    assert next(iter(clips["0"].split)) == "random"


def test_an_id_in_two_lists_of_qmf_is_refused(many):
    for name in ("train", "dev", "test"):
        (many / f"{name}.jsonl").write_text(json.dumps({"id": "5"}))

    with pytest.raises(SourceError, match="5 is in two lists of QMF: train and val"):
        read(many)


@pytest.mark.parametrize("row", ["1\tpositive", "1\tgood,bad", "1", "1\tpositive,negative,neutral"])
def test_a_row_without_sentiments_is_named_with_its_line(tmp_path, row):
    with pytest.raises(SourceError) as caught:
        read(release(tmp_path, ["0\tneutral,neutral", row]))

    assert "labelResultAll.txt:3" in caught.value.where


def test_an_id_twice_in_the_table_is_refused(tmp_path):
    with pytest.raises(SourceError, match="ID 1 is listed twice"):
        read(release(tmp_path, ["1\tneutral,neutral", "1\tpositive,neutral"]))


def test_pairs_become_a_store_and_what_is_left_out_is_counted(tmp_path):
    rows = [f"{n}\t{'positive,negative' if n == 7 else 'neutral,positive'}" for n in range(20)]
    root = release(tmp_path, rows)
    for n in range(20):
        picture = np.random.default_rng(n).integers(0, 256, (9, 9, 3)).astype(np.uint8)
        (root / "data" / f"{n}.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
        (root / "data" / f"{n}.txt").write_bytes(f"it\u2019s {n}".encode("cp1252"))
    options = {"height": "8", "width": "8"}

    made = prepare(
        PrepareRequest("mvsa", root, tmp_path / "store", options=options), lambda _: None
    )

    store = open_store(made.path)
    assert tuple(store.columns["image"].shape) == (3, 8, 8)
    assert store.index.num_rows == 19
    assert "contradiction" in json.dumps(made.report)
