"""Sentiment of -3 to 3 in videos: what the preparers of CMU-MOSI and CMU-MOSEI share.

Either a pickle of features (see `utterances`), or videos with a table of labels, `label.csv`, as
MMSA writes it: `video_id,clip_id,text,label,annotation,mode`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mmtool.errors import SourceError
from mmtool.media.spec import SeriesSpec, Source, Spec
from mmtool.prepare.files import FileTree
from mmtool.prepare.records import read_records
from mmtool.prepare.speech import SpeechOptions, speech_specs, words
from mmtool.prepare.table import line_error
from mmtool.prepare.utterances import Utterance, read_utterances
from mmtool.store.schema import SPLITS
from mmtool.text import suggestion

SENTIMENT_TABLE = "label.csv"
_MODES = {"train": "train", "valid": "val", "test": "test"}
_LARGEST, _TOLERANCE = 3, 1e-6


class SentimentOptions(SpeechOptions):
    """What the classes are, which pickle is read, and what is stored of videos."""

    classes: Literal["7", "2-negative-nonnegative", "2-negative-positive"] = "7"
    """Rounded sentiment; or two classes, where 0 is positive or takes no part. The number itself
    is stored in any case."""
    file: str | None = None
    """Name of the pickle; unset takes the first known one, or label.csv with its videos."""
    shared_videos: Literal["drop", "keep"] = "drop"
    """What becomes of training utterances whose video is in val or test, and of val ones whose
    video is in test."""


@dataclass(frozen=True, slots=True)
class Sentiment:
    """An utterance with its class."""

    utterance: Utterance
    label: int
    skip: str
    """Why it takes no part; "" where it does."""


def sentiment_specs(
    root: Path, options: SentimentOptions, pickles: Sequence[str]
) -> dict[str, Spec]:
    """Give the columns: series of features, or sound, pictures and words of the videos."""
    path = _pickle(root, options, pickles)
    if path is None:
        return speech_specs(options, seconds=10)
    series = SeriesSpec(replace_non_finite=True)
    specs: dict[str, Spec] = {"audio": series, "vision": series, "text": series}
    if any(row.text for row in read_utterances(path)):
        specs["text.tokens"] = words(options)
    return specs


def sentiment_classes(options: SentimentOptions) -> list[str]:
    """Give the class names, from the most negative to the most positive."""
    if options.classes == "7":
        return [str(value) for value in range(-_LARGEST, _LARGEST + 1)]
    return options.classes.split("-")[1:]


def sentiments(root: Path, options: SentimentOptions, pickles: Sequence[str]) -> list[Sentiment]:
    """Give every utterance of the pickle or of the table, in its order."""
    path = _pickle(root, options, pickles)
    rows = _table_rows(root) if path is None else read_utterances(path)
    best: dict[str, str] = {}
    for row in rows:
        best[row.video] = max(best.get(row.video, row.split), row.split, key=SPLITS.index)
    found = []
    for row in rows:
        if not abs(row.value) <= _LARGEST + _TOLERANCE:
            raise SourceError(
                f"the sentiment of {row.id} is {row.value:g}, not between -3 and 3",
                where=str(path or root / SENTIMENT_TABLE),
                fix="take the labels from the release again",
            )
        label, skip = class_of(row.value, options)
        if options.shared_videos == "drop" and best[row.video] != row.split:
            skip = "cross-split-video"
        if path is not None and row.text:
            sources = {**row.sources, "text": replace(row.sources["text"], text=row.text)}
            row = replace(row, sources=sources)
        found.append(Sentiment(row, label, skip))
    return found


def class_of(value: float, options: SentimentOptions) -> tuple[int, str]:
    """Give the class of a sentiment, and why it takes no part; a half rounds to even."""
    if options.classes == "7":
        return round(max(-_LARGEST, min(_LARGEST, value))) + _LARGEST, ""
    if options.classes == "2-negative-positive":
        return int(value > 0), "neutral" if value == 0 else ""
    return int(value >= 0), ""


def _pickle(root: Path, options: SentimentOptions, pickles: Sequence[str]) -> Path | None:
    """Give the pickle to be read; None for videos with a table."""
    if options.file == SENTIMENT_TABLE:
        return None
    there = [path.name for name in pickles for path in sorted(root.glob(f"{name}*"))]
    if options.file is None:
        if there or (root / SENTIMENT_TABLE).is_file():
            return root / there[0] if there else None
        raise SourceError(
            "the videos have no labels",
            where=str(root),
            why="sentiments and splits of the raw release lie in .csd files, which are not read",
            fix=f"put {SENTIMENT_TABLE} of MMSA into {root}: "
            "video_id,clip_id,text,label,annotation,mode",
        )
    if options.file not in there:
        raise SourceError(
            f"there is no pickle {options.file!r}",
            where=str(root),
            why=f"there are: {', '.join(there) or 'none'}; known names: {', '.join(pickles)}",
            fix=suggestion(options.file, there, otherwise="-s file=NAME"),
        )
    return root / options.file


def _table_rows(root: Path) -> list[Utterance]:
    path = root / SENTIMENT_TABLE
    videos = FileTree(root, ".mp4")
    by_folder = {(video.parent.name, video.stem): video for video in videos.paths}
    found = []
    for line, cells in read_records(path, ("video_id", "clip_id", "text", "label", "mode")):
        video, number = cells["video_id"], cells["clip_id"]
        if cells["mode"] not in _MODES:
            what = f"mode {cells['mode']!r} is no split"
            raise line_error(path, line, what, suggestion(cells["mode"], _MODES))
        try:
            value = float(cells["label"])
        except ValueError:
            what = f"the label {cells['label']!r} is not a number"
            raise line_error(path, line, what, "correct this line") from None
        name = f"{video}_{number}"
        # MMSA has a folder for each video, the raw release one for all.
        file = by_folder.get((video, number)) or videos.find(name)
        source = Source(file or root / "Raw" / video / f"{number}.mp4")
        text = Source(path, text=cells["text"])
        sources = {"audio": source, "video": source, "text": text}
        found.append(Utterance(name, video, _MODES[cells["mode"]], value, sources, cells["text"]))
    return found
