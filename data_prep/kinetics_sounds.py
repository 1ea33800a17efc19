"""Kinetics-Sounds: 31 classes of Kinetics-400 that can be both seen and heard.

    mmtool prepare kinetics_sounds --source DIR
    mmtool prepare kinetics_sounds --source DIR -s lists=FOLDER

DIR holds the videos in any folders: flat as in the CVDF archive, `playing guitar/` or
`playing_guitar/`. A file is ytid.mp4, ytid_34.mp4 or ytid_000034_000044.mp4; it is matched by the
eleven characters of the id and, where a video has several files, by the second it begins at.
FOLDER, or DIR itself, holds one of three kinds of list; the first kind found is read:

    KS_train_val.json                 {"database": {id: {"subset": .., "label": ..}}}
    my_train.txt  my_test.txt         id,10,index      14,799 and 2,597 clips
    train.csv validate.csv test.csv   label,youtube_id,time_start,time_end,split of Kinetics-400

Splits  official            training, validation, testing of the json, or train, validate, test of
                            Kinetics-400
        ogm-ge              test is my_test.txt (or testing of a json without validation); val is
                            drawn evenly over classes from my_train.txt, `-s val_share=0.1`
        validation-as-test  a json without testing, or Kinetics-400 without labelled test rows: test
                            is its validation part, val is drawn from its train
        val-from-train      Kinetics-400 without validate rows: val is drawn from its train

The TPAMI-2024 code of the same authors evaluates on testing and never reads validation; the CVPR
paper speaks of 15,000, 1,900 and 1,900 clips, which fits none of the lists. Say which you used.

Columns  audio         wave, 16 kHz, at most ten seconds
         audio.logmel  64 x 500, hop 20 ms (recipes name it in data.columns)
         audio.fbank   128 x 1024, Kaldi's filterbank, which several papers use
         video         `frames` pictures at the centres of equal segments, 256 high and 341 wide

Traps  A tenth to a third of the videos is gone (up to 30 % may be missing, counted by split and
       class), some have no sound, some files hold 0 or 48 bytes. The two lists write ids in two
       ways: ytid_000132_000142 in train, ytid_2 in test.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from mmtool.prepare import api

NAME = "kinetics_sounds"
TITLE = "Kinetics-Sounds: 31 actions that are seen and heard"
LICENCE = "annotations: CC BY 4.0; videos are their makers'"
SOURCE = "Kinetics-400 (github.com/cvdfoundation/kinetics-dataset) and one of the lists below"
CITATION = (
    "R. Arandjelovic, A. Zisserman, Look, listen and learn, ICCV 2017; "
    "W. Kay et al., The Kinetics human action video dataset, 2017"
)
MEDIA = ["**/*.mp4"]
MAX_MISSING = 0.3
LEAKS = "drop-train"

# The index of OGM-GE's lists is that of the sorted names.
CLASSES = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)
JSON = "KS_train_val.json"
TEXTS = {"train": "my_train.txt", "test": "my_test.txt"}
TABLES = "*.csv"
_COLUMNS = {"label", "youtube_id", "time_start", "time_end", "split"}
_SUBSETS = {"training": "train", "validation": "val", "testing": "test"}
_KINETICS_SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}


class Options(api.Options):
    """Where the lists lie, what is stored, and how val is drawn where a list has none."""

    lists: Path | None = None
    """Folder of the lists; unset looks in the folder of the videos."""
    frames: int = Field(3, ge=1)
    """Pictures per clip."""
    val_share: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of each class of train that becomes val where the list has none."""


class Row(NamedTuple):
    """A clip of a list."""

    id: str
    video: str
    start_s: int
    label: int
    split: str


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Wave, two spectrograms, and pictures."""
    del root
    logmel = api.LogMel(num_mels=64, num_frames=500, window=400, hop=320)
    frames = api.FramesSpec(num_frames=options.frames, height=256, width=341)
    return {
        "audio": api.Column("audio", api.AudioSpec(max_seconds=10.0)),
        "audio.logmel": api.Column("audio", api.AudioSpec(max_seconds=10.0, feature=logmel)),
        "audio.fbank": api.Column(
            "audio", api.AudioSpec(max_seconds=10.0, feature=api.Filterbank())
        ),
        "video": api.Column("video", frames),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The 31 names, sorted."""
    del root, options
    return CLASSES


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every clip of the lists."""
    protocol, rows = _listed(options.lists or root)
    of_train = {row.video: row.label for row in rows if row.split == "train"}
    share = 0.0 if protocol == "official" else options.val_share
    val = api.draw_videos(of_train, share, "kinetics-sounds val")
    files = api.VideoFiles(root)
    for row in rows:
        path = files.find(row.video, row.start_s, any_start=True) or root / f"{row.id}.mp4"
        source = api.Source(path)
        yield api.Clip(
            id=row.id,
            label=row.label,
            sources={"audio": source, "video": source},
            split={protocol: "val" if row.split == "train" and row.video in val else row.split},
            group=row.video,
        )


def _listed(folder: Path) -> tuple[str, list[Row]]:
    """Give the protocol that a folder's lists make up, and their rows."""
    if (folder / JSON).is_file():
        rows = list(_json_rows(folder / JSON))
        return _protocol(rows, without_val="ogm-ge")
    if all((folder / name).is_file() for name in TEXTS.values()):
        return "ogm-ge", [r for split, name in TEXTS.items() for r in _texts(folder / name, split)]
    rows = [row for path in sorted(folder.glob(TABLES)) for row in _kinetics_rows(path)]
    if not rows:
        raise api.SourceError(
            "there is no list of Kinetics-Sounds",
            where=str(folder),
            why=f"looked for {JSON}; {' and '.join(TEXTS.values())}; "
            f"{TABLES} of Kinetics-400 with the columns {', '.join(sorted(_COLUMNS))}",
            fix="-s lists=FOLDER",
        )
    return _protocol(rows, without_val="val-from-train")


def _protocol(rows: list[Row], *, without_val: str) -> tuple[str, list[Row]]:
    splits = {row.split for row in rows}
    if "test" in splits:
        return "official" if "val" in splits else without_val, rows
    tested = [row._replace(split="test") if row.split == "val" else row for row in rows]
    return "validation-as-test", tested


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        database = json.loads(path.read_text(encoding="utf-8-sig"))["database"]
        for name, entry in sorted(database.items()):
            label = entry.get("label") or entry["annotations"]["label"]
            where = f"{path}: {name}"
            found = api.label_of(label.replace("_", " "), CLASSES, where)
            yield _row(name, found, _SUBSETS[entry["subset"]], where)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise api.SourceError(
            f"{path.name} is not what the authors published",
            where=str(path),
            why=f'wanted {{"database": {{id: {{"subset", "label"}}}}}}: {error!r}',
            fix="take this file from its source again",
        ) from error


def _texts(path: Path, split: str) -> Iterator[Row]:
    for line, (name, _, index) in api.read_rows(path, num_cells=3):
        where = f"{path}:{line}"
        if not index.isdecimal() or int(index) >= len(CLASSES):
            raise api.SourceError(
                f"{index!r} is not the index of a class",
                where=where,
                why=f"they run from 0 to {len(CLASSES) - 1}",
                fix="take this file from its source again",
            )
        yield _row(name, int(index), split, where)


def _kinetics_rows(path: Path) -> Iterator[Row]:
    """Give the rows of the 31 classes; nothing where a table is of another kind."""
    (_, header), *rows = api.read_rows(path)
    if not set(header) >= _COLUMNS:
        return
    for line, cells in rows:
        row = dict(zip(header, cells, strict=False))
        name, split = row.get("label", "").replace("_", " "), row.get("split", "")
        if name not in CLASSES:
            continue
        try:
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
            clip_id = f"{row['youtube_id']}_{start:06d}_{end:06d}"
            part = _KINETICS_SPLITS[split]
            yield _row(clip_id, CLASSES.index(name), part, f"{path}:{line}")
        except (KeyError, ValueError) as error:
            raise api.SourceError(
                f"line {line} is not a row of Kinetics-400",
                where=f"{path}:{line}",
                why=repr(error),
                fix="take this file from its source again",
            ) from error


def _row(clip_id: str, label: int, split: str, where: str) -> Row:
    name = api.video_and_start(clip_id)
    if name is None:
        raise api.SourceError(
            f"{clip_id!r} does not begin with the eleven characters of a video id",
            where=where,
            fix="take this file from its source again",
        )
    return Row(clip_id, name[0], name[1] or 0, label, split)
