"""VGGSound: ten-second YouTube clips of 309 sounds whose source is seen, about 199,000 of them.

    mmtool prepare vggsound --source DIR

    DIR/
        vggsound.csv                        ytid,start,"label",train|test  (no header)
        <any folders>/ytid_000034.mp4       or ytid_34.mp4

Put vggsound.csv into the folder above the clips. Its rows are counted, for there are two editions.
Classes are the sorted names of the whole list, so that labels do not depend on what could be
fetched. Up to 30 % of the clips may be missing; the report counts them by split and class.

Splits  official  the list's train and test; val is 5 % of train by class, whole videos together
                  (`-s val_share=0.05`)

Columns  audio         wave, 16 kHz, at most ten seconds
         audio.logmel  64 x 500, hop 20 ms (recipes name it in data.columns)
         video         `frames` pictures at the centres of equal segments, 256 high and 341 wide

Traps  Labels hold commas and the words train and test. A video may occur with several starts; its
       clips never part between train and val. Train clips of a video that test also has are left
       out as `cross-split-video` (`-s keep_shared_videos=true` keeps them). The whole set needs
       about 250 GB: `-s frames=1` and `-s height=128` take less.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from mmtool.prepare import api

NAME = "vggsound"
TITLE = "VGGSound: sounds whose source is seen"
LICENCE = "list: CC BY 4.0; videos are their makers'"
SOURCE = "vggsound.csv from www.robots.ox.ac.uk/~vgg/data/vggsound, the clips from YouTube"
CITATION = (
    "H. Chen, W. Xie, A. Vedaldi, A. Zisserman, VGGSound: a large-scale audio-visual dataset, "
    "ICASSP 2020"
)
LIST = "vggsound.csv"
EDITIONS = {"vggsound.csv": [LIST]}
MEDIA = ["**/*.mp4"]
MAX_MISSING = 0.3
LEAKS = "drop-train"

_SPLITS = ("train", "test")
_FIX = "take this file from the release again"


class Options(api.Options):
    """What is stored of each clip, and how val is drawn."""

    frames: int = Field(3, ge=1)
    """Pictures per clip."""
    height: int = Field(256, ge=16)
    """Height of the stored pictures; the width is a third more."""
    val_share: float = Field(0.05, ge=0.0, lt=1.0)
    """Share of each class of train that becomes val."""
    keep_shared_videos: bool = False
    """Keep train clips of which test has another stretch of the same video."""


class Row(NamedTuple):
    """A row of the list."""

    video: str
    start_s: int
    label: str
    split: str


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Wave, log-mel spectrogram, and pictures."""
    del root
    logmel = api.LogMel(num_mels=64, num_frames=500, window=400, hop=320)
    width = round(options.height * 4 / 3)
    frames = api.FramesSpec(num_frames=options.frames, height=options.height, width=width)
    return {
        "audio": api.Column("audio", api.AudioSpec(max_seconds=10.0)),
        "audio.logmel": api.Column("audio", api.AudioSpec(max_seconds=10.0, feature=logmel)),
        "video": api.Column("video", frames),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The names of the list, sorted."""
    del options
    return sorted({row.label for row in _rows(root)})


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every row of the list."""
    rows = _rows(root)
    label_of = {name: number for number, name in enumerate(sorted({row.label for row in rows}))}
    tested = {row.video for row in rows if row.split == "test"}
    trained = {row.video: row.label for row in rows if row.video not in tested}
    val = api.draw_videos(trained, options.val_share, "vggsound val")
    files = api.VideoFiles(root)
    for row in rows:
        name = f"{row.video}_{row.start_s:06d}"
        source = api.Source(files.find(row.video, row.start_s) or root / f"{name}.mp4")
        is_shared = row.split == "train" and row.video in tested
        yield api.Clip(
            id=name,
            label=label_of[row.label],
            sources={"audio": source, "video": source},
            split={"official": "val" if row.video in val else row.split},
            group=row.video,
            skip="cross-split-video" if is_shared and not options.keep_shared_videos else "",
        )


def _rows(root: Path) -> list[Row]:
    path = root / LIST
    rows: list[Row] = []
    for line, (video, start, label, split) in api.read_rows(path, num_cells=4):
        if not rows and not start.isdecimal():
            continue
        if not start.isdecimal() or split not in _SPLITS:
            raise api.SourceError(
                f"{start!r} is not a second, or {split!r} neither train nor test",
                where=f"{path}:{line}",
                fix=_FIX,
            )
        rows.append(Row(video, int(start), label, split))
    if not rows:
        raise api.SourceError(f"{LIST} lists no clips", where=str(path), fix=_FIX)
    return rows
