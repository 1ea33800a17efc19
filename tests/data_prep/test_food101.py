import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("food101")
CLASSES = ("apple_pie", "tacos")


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def titles(root: Path, header: str = "", prefix: str = "") -> Path:
    """Write the csv edition: 50 train and 5 test lines per class."""
    (root / "texts").mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 50), ("test", 5)):
        rows = [
            f'{prefix}{name}_{n}.jpg,"Best {name.replace("_", " ").title()}, ""ever"" &amp; {n}"'
            f",{name}"
            for name in CLASSES
            for n in range(count)
        ]
        (root / "texts" / f"{part}_titles.csv").write_text("\n".join([header, *rows]).strip("\n"))
        (root / "images" / part).mkdir(parents=True, exist_ok=True)
    return root


@pytest.mark.parametrize(
    ("header", "prefix"),
    [("", ""), ("Image_path,text,label", ""), ("Image_path,text,label", "/data/images/x/")],
)
def test_both_dialects_give_the_same_clips(tmp_path, header, prefix):
    clips = read(titles(tmp_path, header, prefix))

    assert Counter(c.split["official"] for c in clips) == {"train": 92, "val": 8, "test": 10}
    assert clips[0].id == "train-apple_pie_0"
    assert clips[0].sources["image"].path == (
        tmp_path / "images" / "train" / "apple_pie" / "apple_pie_0.jpg"
    )
    assert clips[0].sources["text"].text == 'Best Apple Pie, "ever" & 0'
    assert len({clip.id for clip in clips}) == len(clips) == 110


def test_val_is_drawn_from_train_evenly_over_classes(tmp_path):
    val = [clip for clip in read(titles(tmp_path)) if clip.split["official"] == "val"]

    assert Counter(clip.label for clip in val) == {0: 4, 1: 4}
    assert all("/train/" in clip.sources["image"].path.as_posix() for clip in val)


@pytest.mark.parametrize(
    ("title", "label", "left"),
    [
        ("Best Apple Pie ever", "apple_pie", "Best [dish] ever"),
        ("apple-pies and ApplePie", "apple_pie", "[dish] and [dish]"),
        ("tacosaurus", "tacos", "tacosaurus"),
        ("Pineapple Pie", "apple_pie", "Pineapple Pie"),
    ],
)
def test_the_name_of_the_dish_is_masked_as_a_whole(title, label, left):
    assert PREPARER.module.masked(title, label) == left


def test_titles_are_masked_only_on_request(tmp_path):
    root = titles(tmp_path)

    plain, hidden = read(root), read(root, mask_class_word="true")

    assert "Apple Pie" in plain[0].sources["text"].text
    assert hidden[0].sources["text"].text == 'Best [dish], "ever" & 0'


def test_a_clip_without_a_title_says_so(tmp_path):
    root = titles(tmp_path)
    path = root / "texts" / "train_titles.csv"
    path.write_text(f"apple_pie_99.jpg,&nbsp;,apple_pie\n{path.read_text()}")

    found = {clip.id: clip.skip for clip in read(root)}

    assert found.pop("train-apple_pie_99") == "no-text"
    assert set(found.values()) == {""}


def test_a_class_that_train_does_not_have_is_named_with_the_closest(tmp_path):
    root = titles(tmp_path)
    with (root / "texts" / "test_titles.csv").open("a") as file:
        file.write("\ntaco_1.jpg,A taco,taco")

    with pytest.raises(SourceError) as caught:
        read(root)

    assert "test_titles.csv:11" in caught.value.where
    assert "'tacos'" in caught.value.fix


def test_a_line_with_an_unquoted_comma_is_refused(tmp_path):
    root = titles(tmp_path)
    with (root / "texts" / "test_titles.csv").open("a") as file:
        file.write("\ntacos_9.jpg,Tacos, cheap,tacos")

    with pytest.raises(SourceError, match="4 cells instead of 3"):
        read(root)


def jsonl(root: Path) -> Path:
    (root / "images").mkdir()
    for name, count in (("train", 6), ("dev", 2), ("test", 3)):
        folder = "test" if name == "test" else "train"
        start = 100 if name == "dev" else 0
        rows = [
            {"img": f"/elsewhere/{folder}/{c}/{c}_{start + n}.jpg", "text": "T &lt; U", "label": c}
            for c in CLASSES
            for n in range(count)
        ]
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_the_lists_in_json_have_their_own_val(tmp_path):
    clips = read(jsonl(tmp_path))

    assert Counter(c.split["official"] for c in clips) == {"train": 12, "val": 4, "test": 6}
    by_id = {clip.id: clip for clip in clips}
    val = by_id["train-tacos_101"]
    assert val.split["official"] == "val"
    assert val.sources["image"].path == tmp_path / "images" / "train" / "tacos" / "tacos_101.jpg"
    assert val.sources["text"].text == "T < U"


@pytest.mark.parametrize("row", ["{", "[1]", '{"img": "a.jpg"}'])
def test_a_broken_row_in_json_is_named_with_its_line(tmp_path, row):
    root = jsonl(tmp_path)
    (root / "dev.jsonl").write_text(row)

    with pytest.raises(SourceError) as caught:
        read(root)

    assert "dev.jsonl:1" in caught.value.where


def test_a_picture_that_is_a_web_page_is_skipped_and_counted(tmp_path):
    root = titles(tmp_path)
    for number, clip in enumerate(read(root)):
        path = clip.sources["image"].path
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3)).astype(np.uint8)
        path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    page = root / "images" / "train" / "tacos" / "tacos_3.jpg"
    page.write_text("<!DOCTYPE html><html>gone</html>")
    options = {"height": "8", "width": "8"}

    made = prepare(
        PrepareRequest("food101", root, tmp_path / "store", options=options), lambda _: None
    )

    assert open_store(made.path).index.num_rows == 109
    assert "not-media" in json.dumps(made.report)
