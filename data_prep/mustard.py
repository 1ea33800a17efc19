"""MUStARD: 690 utterances of four television series, half of them sarcastic; seen, heard and read.

    mmtool prepare mustard --source DIR

    DIR/
        sarcasm_data.json  split_indices.p         here or in data/, as in the repository
        utterances_final/1_60.mp4                  here, in data/ or in mmsd_raw_data/
        context_final/1_60_c.mp4                   what was said before; not read

Splits  speaker-independent  test is Friends, as the authors' own; default. They have no val: of the
                             speakers with few utterances some become val, a seventh of train.
        fold-0 .. fold-4     the authors' five folds of split_indices.p, where it lies there.
                             Speakers are in train and in test. Val is a tenth of train, drawn
                             evenly over both classes.

Columns  audio  audio.logmel (64 x 500, the first ten seconds)  video  text

Traps  The series have a laughter track, which gives sarcasm away to the audio modality. The folds
       count rows of the JSON file, whose order is that of the file, not of the names: 1_60, 2_180.
       The README writes split_incides.p. The first version of the table has no `show`: refused.
       `-s context=true` puts the sentences before the utterance in front of its text; sound and
       picture remain those of the utterance.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmtool.prepare import api

NAME = "mustard"
TITLE = "MUStARD: sarcasm in television series"
LICENCE = "annotations: MIT; clips are copyrighted television"
SOURCE = "github.com/soujanyaporia/MUStARD and its mmsd_raw_data.zip"
CITATION = (
    "S. Castro, D. Hazarika, V. Perez-Rosas, R. Zimmermann, R. Mihalcea, S. Poria, Towards "
    "multimodal sarcasm detection (an _Obviously_ perfect paper), ACL 2019"
)
TABLE = "sarcasm_data.json"
EDITIONS = {"MUStARD": [TABLE], "repository": [f"data/{TABLE}"]}
MEDIA = ["**/utterances_final/*.mp4"]
MAX_MISSING = 0.0

CLASSES = ("not sarcastic", "sarcastic")
NUM_UTTERANCES, TEST_SHOW = 690, "FRIENDS"
INDICES = ("split_indices.p", "split_incides.p")
PLACES = ("", "data", "mmsd_raw_data", "data/mmsd_raw_data")
VAL_SHARE, FOLD_VAL_SHARE = 1 / 7, 0.1


class Options(api.SpeechOptions):
    """What is stored of each utterance."""

    context: bool = False
    """Put the sentences before the utterance in front of its text."""


class Row(NamedTuple):
    """An entry of the table."""

    name: str
    text: str
    context: str
    speaker: str
    show: str
    is_sarcastic: bool


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Wave and spectrogram, pictures, and what is said."""
    del root
    specs = api.speech_specs(options, seconds=10)
    return {name: api.Column(name.partition(".")[0], spec) for name, spec in specs.items()}


def classes(root: Path, options: Options) -> Sequence[str]:
    """Sarcastic or not."""
    del root, options
    return CLASSES


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every entry of the table, in its order."""
    path = _find(root, TABLE)
    rows = _rows(path)
    folds = _folds(root, rows)
    independent = _speaker_independent(rows)
    folder = _find(root, "utterances_final")
    for number, row in enumerate(rows):
        video = api.Source(folder / f"{row.name}.mp4")
        text = f"{row.context} {row.text}" if options.context and row.context else row.text
        yield api.Clip(
            id=row.name,
            label=int(row.is_sarcastic),
            sources={"audio": video, "video": video, "text": api.Source(path, text=text)},
            split={
                "speaker-independent": independent[row.name],
                **{fold: splits[number] for fold, splits in folds.items()},
            },
            group=row.speaker,
        )


def _find(root: Path, name: str) -> Path:
    places = [root / place / name for place in PLACES]
    return next((place for place in places if place.exists()), places[0])


def _rows(path: Path) -> list[Row]:
    try:
        table = json.loads("\n".join(text for _, text in api.read_lines(path)))
        rows = [_row(name, entry) for name, entry in table.items()]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise api.SourceError(
            f"{path.name} is not the table of MUStARD: {what}",
            where=str(path),
            why="every entry has utterance, context, speaker, show and sarcasm",
            fix=f"take {TABLE} of today's repository; its first version has no show",
        ) from error
    sarcastic = sum(row.is_sarcastic for row in rows)
    is_whole = 2 * len(rows) < NUM_UTTERANCES or (len(rows), sarcastic) == (NUM_UTTERANCES, 345)
    if not is_whole:
        raise api.SourceError(
            f"{path.name} lists {len(rows)} utterances, {sarcastic} of them sarcastic",
            where=str(path),
            why=f"MUStARD has {NUM_UTTERANCES}, 345 of them sarcastic",
            fix=f"take {TABLE} from the repository again",
        )
    return rows


def _row(name: str, entry: Mapping[str, Any]) -> Row:
    return Row(
        name,
        str(entry["utterance"]),
        " ".join(entry["context"]),
        f"{entry['show']} {entry['speaker']}",
        str(entry["show"]),
        bool(entry["sarcasm"]),
    )


def _speaker_independent(rows: Sequence[Row]) -> dict[str, str]:
    splits = {row.name: "test" if row.show == TEST_SHOW else "train" for row in rows}
    train = [row for row in rows if row.show != TEST_SHOW]
    wanted = VAL_SHARE * len(train)
    counts = Counter(row.speaker for row in train)
    # One of the leading parts alone would be most of val.
    minor = [row for row in train if counts[row.speaker] <= wanted]
    if minor:
        drawn = api.draw_share(
            [row.name for row in minor],
            min(1.0, wanted / len(minor)),
            "mustard speaker-independent val",
            groups=[row.speaker for row in minor],
        )
        splits.update(dict.fromkeys(drawn, "val"))
    return splits


def _folds(root: Path, rows: Sequence[Row]) -> dict[str, list[str]]:
    """Give the splits of the authors' folds in the order of the table; none without their file."""
    path = next((p for p in (_find(root, name) for name in INDICES) if p.is_file()), None)
    if path is None:
        return {}
    found = {}
    labels = {row.name: row.is_sarcastic for row in rows}
    for number, fold in enumerate(api.read_pickle(path)):
        train, test = _fold(fold)
        if sorted([*train, *test]) != list(range(len(rows))):
            raise api.SourceError(
                f"fold {number} of {path.name} does not hold each of {len(rows)} rows once",
                where=str(path),
                why=f"it has {len(train)} for train and {len(test)} for test",
                fix=f"take {path.name} and {TABLE} from one version of the repository",
            )
        splits = {rows[at].name: "train" for at in train}
        splits |= {rows[at].name: "test" for at in test}
        salt = f"mustard fold-{number} val"
        splits = api.carve(splits, FOLD_VAL_SHARE, salt, labels=labels)
        found[f"fold-{number}"] = [splits[row.name] for row in rows]
    return found


def _fold(fold: object) -> tuple[list[int], list[int]]:
    """Give the rows of train and of test; none of what is no pair of them."""
    if not isinstance(fold, tuple | list) or len(fold) != 2:
        return [], []
    train, test = (np.ravel(np.asarray(part)).tolist() for part in fold)
    return train, test
