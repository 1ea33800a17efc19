"""MVSA, sentiment of tweets: a picture with its text, labelled separately by one or three people.

    mmtool prepare mvsa --source DIR         MVSA-Single or MVSA-Multiple, told by the table

    DIR/labelResultAll.txt                   ID <tab> text,image (single: once; multiple: 3 times)
    DIR/data/<ID>.jpg  DIR/data/<ID>.txt
    DIR/{train,dev,test}.jsonl               optional lists of QMF

A person rates text and picture separately. Where three do, the majority decides for each of the
two first; without one the pair is left out (`no-majority`). Then text and picture are merged: equal
ones stay, neutral gives way to the other, positive against negative is left out (`contradiction`).
Of MVSA-Single's 5,129 pairs 4,511 stay. What is left out is counted by reason. Texts are UTF-8,
cp1252 or latin-1, file by file.

Splits  random     80/10/10 drawn evenly over classes; default. There is no official split and no
                   list of authors, so the same text or picture in two splits is only found by its
                   content.
        qmf        the lists of QMF where they lie beside the table. They are much smaller in some
                   copies and were drawn otherwise: name the protocol with the number.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from mmtool.prepare import api

NAME = "mvsa"
TITLE = "MVSA: sentiment of tweets with pictures"
LICENCE = "for research; tweets and pictures belong to their authors"
SOURCE = "mcrlab.net, MVSA: Sentiment Analysis on Multi-view Social Data"
CITATION = "T. Niu et al., Sentiment analysis on multi-view social data, MMM 2016"

EDITIONS = {"mvsa": ("labelResultAll.txt", "data")}
MEDIA = ("data/*.jpg", "data/*.txt")
MAX_MISSING = 0.0

CLASSES = ("negative", "neutral", "positive")
TEST_SHARE, VAL_SHARE = 0.1, 1 / 9
_QMF = {"train": "train", "dev": "val", "test": "test"}


class Options(api.Options):
    """Size of the pictures and length of the texts."""

    height: int = Field(256, ge=1)
    width: int = Field(256, ge=1)
    max_tokens: int = Field(280, ge=1)
    """Longest text in tokens; bytes unless a tokenizer is given."""
    tokenizer: Path | None = None
    """A tokenizer.json to make the tokens with."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """The picture and the text."""
    del root
    image = api.FramesSpec(height=options.height, width=options.width)
    return {
        "image": api.Column("image", image),
        "text": api.Column("text", api.TextSpec(options.max_tokens, options.tokenizer)),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The three sentiments, sorted."""
    del root, options
    return CLASSES


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every pair of the table; without a label it carries the reason."""
    del options
    found = _read_labels(root / "labelResultAll.txt")
    usable = {name: label for name, label in found.items() if label in CLASSES}
    splits = dict.fromkeys(usable, "train")
    for share, into in ((TEST_SHARE, "test"), (VAL_SHARE, "val")):
        splits = api.carve(splits, share, f"mvsa:{into}", labels=usable, into=into)
    lists = _read_qmf(root)
    for name, label in found.items():
        split = {"random": splits.get(name, "train")}
        if name in lists:
            split["qmf"] = lists[name]
        text = root / "data" / f"{name}.txt"
        yield api.Clip(
            id=name,
            label=CLASSES.index(label) if name in usable else 0,
            sources={
                "image": api.Source(root / "data" / f"{name}.jpg"),
                "text": api.Source(text, text=_decoded(text)),
            },
            split=split,
            skip="" if name in usable else label,
        )


def merged(text: str, image: str) -> str:
    """Give the sentiment of a pair, or "contradiction"."""
    if text == image or image == "neutral":
        return text
    return image if text == "neutral" else "contradiction"


def majority(ratings: Sequence[str]) -> str:
    """Give what more than half of the ratings say, or nothing."""
    rating, count = Counter(ratings).most_common(1)[0]
    return rating if 2 * count > len(ratings) else ""


def _read_labels(path: Path) -> dict[str, str]:
    """Give a sentiment, or the reason why there is none, by ID in the order of the table."""
    found: dict[str, str] = {}
    for line, text in api.read_lines(path):
        name, *cells = re.split(r"\s+", text.strip())
        pairs = [cell.lower().split(",") for cell in cells]
        if name.lower() == "id":
            continue
        if not pairs or any(len(p) != 2 or not set(p) <= set(CLASSES) for p in pairs):
            raise api.SourceError(
                f"line {line} is not an ID with sentiments of text and image: {text.strip()!r}",
                where=f"{path}:{line}",
                why=f"expected such as `1  neutral,positive`, of {', '.join(CLASSES)}",
                fix="take labelResultAll.txt from the release again",
            )
        if name in found:
            raise api.SourceError(
                f"ID {name} is listed twice", where=f"{path}:{line}", fix="remove one of the lines"
            )
        text_says, image_says = (majority(ratings) for ratings in zip(*pairs, strict=True))
        found[name] = merged(text_says, image_says) if text_says and image_says else "no-majority"
    return found


def _read_qmf(root: Path) -> dict[str, str]:
    """Give the split by ID of the lists of QMF; nothing where they are not all there."""
    paths = {split: root / f"{name}.jsonl" for name, split in _QMF.items()}
    if not all(path.is_file() for path in paths.values()):
        return {}
    found: dict[str, str] = {}
    for split, path in paths.items():
        for line, text in api.read_lines(path):
            try:
                row = json.loads(text)
                name = Path(str(row.get("img") or row["id"])).stem
            except (ValueError, AttributeError, KeyError) as error:
                raise api.SourceError(
                    f"line {line} of {path.name} names no picture ({error})",
                    where=f"{path}:{line}",
                    fix=f"correct the list, or remove {path.name}",
                ) from error
            if found.setdefault(name, split) != split:
                raise api.SourceError(
                    f"{name} is in two lists of QMF: {found[name]} and {split}",
                    where=f"{path}:{line}",
                    why="a model would be tested on what it was trained on",
                    fix="keep one of the two lines",
                )
    return found


def _decoded(path: Path) -> str | None:
    """Give the text of a file; nothing where it is missing, which prepare counts."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding).strip()
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1").strip()
