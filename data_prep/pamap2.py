"""PAMAP2: 12 activities of nine people with sensors on hand, chest and ankle, and the heart rate.

    mmtool prepare pamap2 --source DIR
    mmtool prepare pamap2 --source DIR -s rate_hz=100 -s optional=true

    DIR/                                 or `PAMAP2_Dataset.zip` in DIR
        Protocol/subject101.dat          to subject109.dat: 54 columns, blanks between, 100 Hz:
                                         seconds, activity, heart rate, 17 of hand, chest, ankle
        Optional/subject101.dat ...      six further activities; left alone unless asked for

Columns  hand  chest  ankle   accelerometer of 16 g, gyroscope, magnetometer: nine channels each
         heart_rate           one channel at 10 Hz
         The accelerometer of 6 g saturates and the orientation is invalid, as the release says;
         neither is read, nor is the temperature.

Splits  holdout         test subject 106, val 105, train the others, as most papers
        subject-101...  one subject is test, the next one val; 109 has one short activity alone

Reported scores run from .75 to .94 macro F1 with window and split: compare within one protocol.

Traps  Activity 0 is what lies between activities: it takes no part, and ids are not contiguous. The
       heart rate stands in every tenth row: each value holds on until the next one of that subject.
       Rows are lost to the radio: gaps up to `max_gap_s` are bridged by straight lines, a window
       with a longer one in a sensor is left out, or with `--missing-modality keep` loses this
       sensor. 33.3 Hz takes every third row, as papers do, without a filter before.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmtool.prepare import api

NAME = "pamap2"
TITLE = "PAMAP2: activities seen from hand, chest, ankle and heart"
LICENCE = "CC BY 4.0"
SOURCE = "archive.ics.uci.edu/dataset/231"
CITATION = (
    "A. Reiss, D. Stricker, Introducing a new benchmarked dataset for activity monitoring, "
    "ISWC 2012"
)
EDITIONS = {"folder": ["Protocol/subject10*.dat"], "zip": ["PAMAP2*.zip"]}
MEDIA = ["Protocol/*.dat"]
MAX_MISSING = 0.0

PROTOCOL = {
    1: "lying", 2: "sitting", 3: "standing", 4: "walking", 5: "running", 6: "cycling",
    7: "nordic walking", 12: "ascending stairs", 13: "descending stairs", 16: "vacuum cleaning",
    17: "ironing", 24: "rope jumping",
}  # fmt: skip
OPTIONAL = {
    9: "watching TV", 10: "computer work", 11: "car driving", 18: "folding laundry",
    19: "house cleaning", 20: "playing soccer",
}  # fmt: skip
SUBJECTS = tuple(str(number) for number in range(101, 110))
TEST_SUBJECT, VAL_SUBJECT = "106", "105"
NUM_COLUMNS = 54
_TIME, _ACTIVITY, _HEART_RATE = range(3)
_FIRST_COLUMN = {"hand": 3, "chest": 20, "ankle": 37}
# After the temperature: 3 columns of 16 g, 3 of 6 g, 3 of rotation, 3 of the magnetic field.
_USED = (1, 2, 3, 7, 8, 9, 10, 11, 12)
_RATES_HZ = {"100": 100.0, "33.3": 100.0 / 3.0}
_HEART_RATE_HZ = 10.0


class Options(api.WindowOptions):
    """Windows, the grid and which activities."""

    rate_hz: Literal["33.3", "100"] = "33.3"
    """Rate of the grid of the three sensors: a third of the recorded one, or all of it."""
    max_gap_s: float = Field(0.5, ge=0)
    """Longest loss that is bridged."""
    optional: bool = False
    """Also take the folder `Optional` with its six activities."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Nine channels per place of the body, and the heart rate."""
    del root
    moves = api.SeriesSpec(rate_hz=_RATES_HZ[options.rate_hz], max_gap_s=options.max_gap_s)
    heart = api.SeriesSpec(rate_hz=_HEART_RATE_HZ, max_gap_s=options.max_gap_s)
    return {
        **{place: api.Column(place, moves) for place in _FIRST_COLUMN},
        "heart_rate": api.Column("heart_rate", heart),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The activities by their number in the release."""
    del root
    return list(_activities(options).values())


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every window of every subject."""
    folders = ("Protocol", "Optional")[: 1 + options.optional]
    tree = api.open_tree(root, *(f"{folder}/subject10?.dat" for folder in folders))
    if not tree:
        raise api.SourceError(
            "there is no Protocol/subject101.dat", where=str(root), fix="complete the release"
        )
    splits = _splits()
    for folder in folders:
        for subject in SUBJECTS:
            name = f"{folder}/subject{subject}.dat"
            source = replace(tree.get(name, api.Source(root / name)), read=_read_subject)
            sources = {key: replace(source, key=key) for key in (*_FIRST_COLUMN, "heart_rate")}
            clip_id = f"{subject}_{folder.lower()}"
            whole = api.Clip(clip_id, 0, sources, splits[subject], group=subject)
            if name in tree:
                yield from _windows(whole, source, options)
            elif folder == "Protocol":
                # Without its file the windows of a subject are unknown: it is missing as one clip.
                yield whole


def _windows(whole: api.Clip, source: api.Source, options: Options) -> Iterator[api.Clip]:
    numbers = api.read_numbers(source, NUM_COLUMNS)
    # What is no class here is known nevertheless: such rows belong to no window.
    label_by_number = dict.fromkeys((0, *PROTOCOL, *OPTIONAL), -1)
    label_by_number |= {number: label for label, number in enumerate(_activities(options))}
    labels = api.labels_of_numbers(numbers[:, _ACTIVITY], label_by_number, str(source.path))
    yield from api.window_clips(whole, numbers[:, _TIME], labels, options)


def _activities(options: Options) -> dict[int, str]:
    return dict(sorted((PROTOCOL | OPTIONAL if options.optional else PROTOCOL).items()))


def _splits() -> dict[str, dict[str, str]]:
    """Give the splits of every subject by protocol."""
    held_out = {TEST_SUBJECT: "test", VAL_SUBJECT: "val"}
    holdout = {subject: held_out.get(subject, "train") for subject in SUBJECTS}
    protocols = {"holdout": holdout, **api.leave_one_out(SUBJECTS, prefix="subject")}
    return {s: {name: split[s] for name, split in protocols.items()} for s in SUBJECTS}


def _read_subject(source: api.Source) -> dict[str, api.Recording]:
    numbers = api.read_numbers(source, NUM_COLUMNS)
    times_s = numbers[:, _TIME]
    channels = {
        place: numbers[:, [first + column for column in _USED]]
        for place, first in _FIRST_COLUMN.items()
    }
    channels["heart_rate"] = _held(numbers[:, _HEART_RATE])[:, None]
    return {n: api.Recording(times_s, values.astype(np.float32)) for n, values in channels.items()}


def _held(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let each value hold on until the next; what lies before the first one stays lost."""
    last = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), 0))
    return values[last]
