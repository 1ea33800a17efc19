"""UPMC Food-101: 101 dishes, a picture from the web with the title of its page.

    mmtool prepare food101 --source DIR

    DIR/images/{train,test}/<class>/<class>_<n>.jpg
    DIR/texts/{train,test}_titles.csv        titles: file, title, class; with or without a header
    DIR/{train,dev,test}.jsonl               jsonl: {"img": ..., "text": ..., "label": ...}

Of the csv there are two dialects: without a header (`apple_pie_0.jpg,Some title,apple_pie`) and
with `Image_path,text,label`. Both are read; titles hold commas, quotes and HTML entities, and the
latter are turned into characters. Classes are sorted, as in the literature.

Most titles contain the name of the dish, so that text alone is far ahead. That is how results are
reported; `-s mask_class_word=true` replaces the name by [dish] to see what remains. Some pictures
are truncated, or a web page under the name of a picture: those are skipped and counted.

Splits  official   train and test of the release; val is `dev` of the jsonl edition, or is drawn
                   from train evenly over classes. No list of source pages exists, so the same
                   picture under two titles is only found by its content.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import Field

from mmtool.prepare import api

NAME = "food101"
TITLE = "UPMC Food-101: pictures of dishes with titles of web pages"
LICENCE = "for research; pictures and titles belong to the pages they come from"
SOURCE = "visiir.isir.upmc.fr, or its copy on Kaggle (gianmarco96/upmcfood101)"
CITATION = "X. Wang et al., Recipe recognition with large multimodal food dataset, ICMEW 2015"

EDITIONS = {
    "titles": ("images/train", "images/test", "texts/train_titles.csv", "texts/test_titles.csv"),
    "jsonl": ("images", "train.jsonl", "dev.jsonl", "test.jsonl"),
}
MEDIA = ("images/**/*.jpg",)
MAX_MISSING = 0.0

VAL_SHARE = 0.08
MASK = "[dish]"
_PICTURES = (".jpg", ".jpeg", ".png", ".gif")


class Options(api.Options):
    """Size of the pictures and what becomes of the titles."""

    height: int = Field(256, ge=1)
    width: int = Field(256, ge=1)
    max_tokens: int = Field(256, ge=1)
    """Longest title in tokens; bytes unless a tokenizer is given."""
    tokenizer: Path | None = None
    """A tokenizer.json to make the tokens with."""
    mask_class_word: bool = False
    """Replace the name of the dish in its title, which otherwise gives the class away."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A line of a list."""

    split: str
    image: str
    """Path below `images/`."""
    title: str
    label: str
    table: Path
    line: int


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """The picture and the title."""
    del root
    image = api.FramesSpec(height=options.height, width=options.width)
    return {
        "image": api.Column("image", image),
        "text": api.Column("text", api.TextSpec(options.max_tokens, options.tokenizer)),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The classes that train lists, sorted."""
    del options
    return sorted({pair.label for pair in _pairs(root) if pair.split == "train"})


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every line of the lists."""
    names = classes(root, options)
    pairs = list(_pairs(root))
    splits = {_id(pair): pair.split for pair in pairs}
    if "val" not in splits.values():
        labels = {_id(pair): pair.label for pair in pairs}
        splits = api.carve(splits, VAL_SHARE, "food101", labels=labels)
    for pair in pairs:
        title = html.unescape(pair.title).strip()
        if options.mask_class_word:
            title = masked(title, pair.label)
        # A picture listed for train and for test keeps both, to be refused.
        drawn = splits[_id(pair)]
        yield api.Clip(
            id=_id(pair),
            label=api.label_of(pair.label, names, f"{pair.table}:{pair.line}"),
            sources={
                "image": api.Source(root / "images" / pair.image),
                "text": api.Source(pair.table, text=title),
            },
            split={"official": drawn if pair.split == "train" else pair.split},
            skip="" if title else "no-text",
        )


def masked(title: str, label: str) -> str:
    """Replace the name of a dish, as one word or several, in the singular or the plural."""
    words = r"[\s_-]*".join(re.escape(word) for word in label.split("_"))
    return re.sub(rf"(?i)(?<!\w){words}(?:e?s)?(?!\w)", MASK, title)


def _id(pair: Pair) -> str:
    # Numbers may begin anew in each part.
    part = pair.image.partition("/")[0]
    return f"{part}-{Path(pair.image).stem}"


def _pairs(root: Path) -> Iterator[Pair]:
    if api.edition_of(root, EDITIONS) == "jsonl":
        for name, split in (("train", "train"), ("dev", "val"), ("test", "test")):
            yield from _from_jsonl(root / f"{name}.jsonl", split)
        return
    for part in ("train", "test"):
        yield from _from_csv(root / "texts" / f"{part}_titles.csv", part)


def _from_csv(path: Path, part: str) -> Iterator[Pair]:
    rows = api.read_rows(path, num_cells=3)
    if rows and not rows[0][1][0].lower().endswith(_PICTURES):
        rows = rows[1:]
    for line, (file, title, label) in rows:
        image = f"{part}/{label}/{file.replace(chr(92), '/').rpartition('/')[2]}"
        yield Pair(part, image, title, label, path, line)


def _from_jsonl(path: Path, split: str) -> Iterator[Pair]:
    make = partial(Pair, split, table=path)
    folder = "test" if split == "test" else "train"
    for line, text in api.read_lines(path):
        try:
            row = json.loads(text)
            image, title, label = row["img"], row["text"], row["label"]
        except (ValueError, TypeError, KeyError) as error:
            raise api.SourceError(
                f"line {line} of {path.name} is not a row of img, text and label ({error})",
                where=f"{path}:{line}",
                fix="download the list again",
            ) from error
        name = str(image).replace(chr(92), "/").rpartition("/")[2]
        yield make(image=f"{folder}/{label}/{name}", title=str(title), label=str(label), line=line)
