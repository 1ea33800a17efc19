"""AVE: 4,097 videos of ten seconds in which one of 28 events is seen and heard.

    mmtool prepare ave --source AVE_Dataset

    AVE_Dataset/
        AVE/-abc_defghi.mp4
        trainSet.txt  valSet.txt  testSet.txt      Category&VideoID&Quality&StartTime&EndTime
        Annotations.txt                            all rows, not needed

The three lists are read with or without a header. Classes are the sorted names of all three.
The video lies anywhere below the folder of the lists, under its case-sensitive id.

Splits  official  the authors' three lists

Segments  clip   the whole video, as the balance literature classifies it
          event  the seconds StartTime to EndTime alone

Columns  audio         wave, 16 kHz
         audio.logmel  64 x 500, hop 20 ms: ten seconds (recipes name it in data.columns)
         video         `frames` pictures at the centres of equal segments, 256 high and 341 wide

Traps  The lists hold 4,143 rows but 4,097 videos: 45 ids occur more than once, mostly under another
       class. 18 of them are in train and in val or test; they leave train. Of those within a list
       `--duplicates first` keeps the first row, as PMR does (OGM-GE keeps the last, AMST both).
       One event lasts no time and is skipped. A quarter of the ids begins with `-`, and class names
       hold commas and blanks. The authors state no licence, so mmtool ships no list.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from mmtool.prepare import api

NAME = "ave"
TITLE = "AVE: audio-visual events"
LICENCE = "none stated; annotations derive from AudioSet (CC BY 4.0), videos are their makers'"
SOURCE = "AVE_Dataset.zip, linked from github.com/YapengTian/AVE-ECCV18"
CITATION = (
    "Y. Tian, J. Shi, B. Li, Z. Duan, C. Xu, Audio-visual event localization in unconstrained "
    "videos, ECCV 2018"
)
LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
EDITIONS = {"AVE_Dataset": list(LISTS.values())}
MEDIA = ["**/*.mp4"]
MAX_MISSING = 0.3
LEAKS = "drop-train"


class Options(api.Options):
    """What is stored of each video."""

    frames: int = Field(3, ge=1)
    """Pictures per clip."""
    segment: Literal["clip", "event"] = "clip"
    """The whole video, or the seconds in which the event happens."""


class Row(NamedTuple):
    """A row of a list."""

    split: str
    category: str
    video: str
    start_s: float
    end_s: float


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Wave, log-mel spectrogram, and pictures."""
    del root
    logmel = api.LogMel(num_mels=64, num_frames=500, window=400, hop=320)
    frames = api.FramesSpec(num_frames=options.frames, height=256, width=341)
    return {
        "audio": api.Column("audio", api.AudioSpec()),
        "audio.logmel": api.Column("audio", api.AudioSpec(feature=logmel)),
        "video": api.Column("video", frames),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The names of the lists, sorted."""
    del options
    return sorted({row.category for row in _rows(root)})


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every row of the three lists, repeated ids included."""
    names = classes(root, options)
    videos = api.FileTree(root, ".mp4")
    for row in _rows(root):
        path = videos.find(row.video) or root / "AVE" / f"{row.video}.mp4"
        source = api.Source(path)
        if options.segment == "event":
            source = api.Source(path, start_s=row.start_s, end_s=row.end_s)
        yield api.Clip(
            id=row.video,
            label=names.index(row.category),
            sources={"audio": source, "video": source},
            split={"official": row.split},
            group=row.video,
            skip=_unusable(row),
        )


def _unusable(row: Row) -> str:
    if row.start_s == row.end_s:
        return "zero-length"
    return "ends-before-start" if row.start_s > row.end_s else ""


def _rows(root: Path) -> Iterator[Row]:
    for split, name in LISTS.items():
        path = root / name
        # Class names hold quotes neither here nor there; "&" alone separates.
        for line, cells in api.read_rows(path, "&", quoted=False, num_cells=5):
            category, video, _, start, end = cells
            if (category, video) == ("Category", "VideoID"):
                continue
            try:
                yield Row(split, category, video, float(start), float(end))
            except ValueError:
                raise api.SourceError(
                    f"{start!r} to {end!r} are not seconds",
                    where=f"{path}:{line}",
                    fix="take this file from the release again",
                ) from None
